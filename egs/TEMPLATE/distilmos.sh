#!/usr/bin/env bash
# From a corpus to a scored model: every stage that the recipes share. A recipe's run.sh calls this script in the
# recipe's directory, with its settings; what follows `--` are arguments for the recipe's local/data.sh.
set -euo pipefail

. "$(dirname "$0")/options.sh"

# Options
stage=0                   # first stage
stop_stage=8              # last stage
nj=2                      # parallel jobs of stages 1 to 4, each with one CPU thread
num_threads=2             # CPU threads of stages 5 and 6
datadir=data              # where the data directories are
dumpdir=dump              # where audio, features and tokens go
expdir=exp                # where models and results go
train_set=train           # set to train on
dev_set=dev               # set to choose the model with
test_sets="test"          # sets to test on, separated by spaces
ssl_model=                # SSL encoder, a name or the path of a checkpoint; if empty: that of the configuration
clusters=200              # k-means clusters of each layer
max_frames=40000          # training frames sampled for k-means
conf=conf/distilmos.yaml  # training configuration
train_opts=()             # key=value in place of what the configuration says; can be given several times
tag=                      # name of the experiment; if empty: that of the configuration, and the seed
seed=1                    # of the frames sampled, of k-means and of training
# End of options

titles=(
    "corpus to data directories"
    "audio, checked and packed"
    "hidden states of all layers, sampled frames of the training set"
    "k-means of every layer"
    "token ids of all layers"
    "multi-task fine-tuning"
    "prediction of every test set"
    "scores and report"
    "portable model"
)
last_stage=$((${#titles[@]} - 1))

usage() {
    local number
    echo
    echo "Stages:"
    for number in "${!titles[@]}"; do
        echo "  ${number}  ${titles[number]}"
    done
}

refuse() {
    running=
    echo "distilmos.sh: $1" >&2
    exit 2
}

# need FILE STAGE: ends unless FILE exists, which STAGE makes. Shards beside it mean that STAGE did not get to its end.
need() {
    if [ ! -e "$1" ] || [ -e "${1%/*}/shards" ]; then
        refuse "stage ${running} needs $1: run stage $2 first"
    fi
}

# need_audio SET...: ends unless stage 1 has been run for every SET.
need_audio() {
    local name
    for name; do
        need "${dumpdir}/raw/${name}/wav.scp" 1
    done
}

# validate DIR: ends unless DIR is a valid data directory; a test set may be without ratings.
validate() {
    local rated=()
    [ -e "$1/utt2mos" ] || rated=(--unrated)
    distilmos validate-data "${rated[@]}" "$1"
}

# begin STAGE: whether STAGE is asked for and has work to do; announces it.
begin() {
    ((stage <= $1 && $1 <= stop_stage)) || return 1
    if [ "${model}" = sslmos ] && [[ $1 == [234] ]]; then
        echo "stage $1 is skipped: ${conf} has model: sslmos, which needs no tokens"
        return 1
    fi
    running=$1
    began=${SECONDS}
    echo "$(date '+%F %T') stage $1: ${titles[$1]}"
}

# end [FILE...]: announces that the stage is over, and what it made.
end() {
    echo "$(date '+%F %T') stage ${running}: done in $((SECONDS - began)) s${1:+: $*}"
    running=
}

report_failure() {
    local status=$?
    [ -z "${running}" ] || echo "distilmos.sh: stage ${running} failed" >&2
    return "${status}"
}

take_options "$0" "$@"
case ${rest[0]-} in
    --help)
        usage
        exit 0
        ;;
    "" | --) data_opts=("${rest[@]:1}") ;;
    *) usage_error "$0" "unknown option ${rest[0]}" ;;
esac
for name in stage stop_stage nj num_threads clusters max_frames seed; do
    [[ ${!name} =~ ^(0|[1-9][0-9]*)$ ]] || usage_error "$0" "--${name} must be a whole number, not '${!name}'"
done
for name in nj num_threads clusters max_frames; do
    ((${!name} > 0)) || usage_error "$0" "--${name} must be at least 1"
done
((stage <= stop_stage && stop_stage <= last_stage)) || usage_error "$0" "no stages from ${stage} to ${stop_stage}"
read -ra tests <<<"${test_sets}"

. ./path.sh
. ./cmd.sh

# The configuration is checked before the first stage, not when training begins; it says which model there will be.
[ -z "${ssl_model}" ] || train_opts+=("ssl_model=${ssl_model}")
chosen=$(python3 - "${conf}" "${train_opts[@]}" <<'END'
import sys

from distilmos.errors import InputError
from distilmos.training.config import load_config

try:
    config = load_config(sys.argv[1], sys.argv[2:])
except InputError as error:
    sys.exit(f"distilmos.sh: {error}")
print(config.model, config.ssl_model)
END
) || exit 2
read -r model ssl_model <<<"${chosen}"

sets=("${train_set}" "${dev_set}" "${tests[@]}")
ssl_name=$(basename "${ssl_model}" .pt)
conf_name=$(basename "${conf}" .yaml)
feats=${dumpdir}/feats
kmeans=${expdir}/kmeans_${ssl_name}_k${clusters}
tokens=${dumpdir}/tokens_${ssl_name}_k${clusters}
exp=${expdir}/${tag:-${conf_name}_seed${seed}}

running=
trap report_failure EXIT

if begin 0; then
    local/data.sh --datadir "${datadir}" "${data_opts[@]}"
    for set in "${sets[@]}"; do
        validate "${datadir}/${set}"
    done
    end
fi

if begin 1; then
    for set in "${sets[@]}"; do
        need "${datadir}/${set}/wav.scp" 0
    done
    for set in "${sets[@]}"; do
        source=${datadir}/${set} raw=${dumpdir}/raw/${set}
        rm -rf "${raw}"
        mkdir -p "${raw}"
        # Before the audio: wav.scp is what later stages look for, and then nothing may be missing beside it.
        for table in utt2sys utt2mos ratings utt2spk utt2sent text sys2group sys2mos notes; do
            [ ! -e "${source}/${table}" ] || cp "${source}/${table}" "${raw}"
        done
        "${cmd[@]}" --max-jobs-run "${nj}" "JOB=1:${nj}" "${raw}/log/dump_audio.JOB.log" \
            distilmos dump-audio "${source}" "${raw}" --job JOB --jobs "${nj}"
        "${cmd[@]}" "${raw}/log/merge_archives.log" distilmos merge-archives "${raw}" --jobs "${nj}"
        validate "${raw}"
    done
    end
fi

if begin 2; then
    need_audio "${train_set}"
    rm -rf "${feats}"
    mkdir -p "${feats}"
    echo "${ssl_model}" >"${feats}/ssl_model"
    "${cmd[@]}" --max-jobs-run "${nj}" "JOB=1:${nj}" "${feats}/log/dump_feats.JOB.log" \
        distilmos dump-feats --ssl "${ssl_model}" --data "${dumpdir}/raw/${train_set}" --out "${feats}" \
        --max-frames "${max_frames}" --seed "${seed}" --job JOB --jobs "${nj}"
    "${cmd[@]}" "${feats}/log/merge_archives.log" distilmos merge-archives "${feats}" --jobs "${nj}"
    end
fi

if begin 3; then
    need "${feats}/layer1.scp" 2
    [ "$(cat "${feats}/ssl_model")" = "${ssl_model}" ] || refuse "${feats} is not of ${ssl_model}: run stage 2 first"
    layers=("${feats}"/layer*.scp)
    # Token ids of an older k-means mean something else: stage 4 must make them anew.
    rm -rf "${kmeans}" "${tokens}"
    "${cmd[@]}" --max-jobs-run "${nj}" "JOB=1:${#layers[@]}" "${kmeans}/log/learn_kmeans.JOB.log" \
        distilmos learn-kmeans --feats "${feats}" --layer JOB --clusters "${clusters}" --seed "${seed}" --out "${kmeans}"
    "${cmd[@]}" "${kmeans}/log/kmeans_table.log" distilmos kmeans-table "${kmeans}"
    cat "${kmeans}/quality.md"
    end
fi

if begin 4; then
    need "${kmeans}/quality.json" 3
    need_audio "${train_set}" "${dev_set}"
    rm -rf "${tokens:?}/${train_set}" "${tokens:?}/${dev_set}"
    for set in "${train_set}" "${dev_set}"; do
        "${cmd[@]}" --max-jobs-run "${nj}" "JOB=1:${nj}" "${tokens}/${set}/log/dump_tokens.JOB.log" \
            distilmos dump-tokens --ssl "${ssl_model}" --kmeans "${kmeans}" --data "${dumpdir}/raw/${set}" \
            --out "${tokens}/${set}" --job JOB --jobs "${nj}"
        "${cmd[@]}" "${tokens}/${set}/log/merge_archives.log" distilmos merge-archives "${tokens}/${set}" --jobs "${nj}"
    done
    end
fi

if begin 5; then
    train_args=(--seed "${seed}")
    for pair in "${train_opts[@]}"; do
        train_args+=(--set "${pair}")
    done
    need_audio "${train_set}" "${dev_set}"
    if [ "${model}" != sslmos ]; then
        need "${tokens}/${train_set}/layer1.scp" 4
        need "${tokens}/${dev_set}/layer1.scp" 4
        train_args+=(--train-tokens "${tokens}/${train_set}" --dev-tokens "${tokens}/${dev_set}")
    fi
    echo "progress: ${exp}/log/train.log"
    "${cmd[@]}" --num-threads "${num_threads}" "${exp}/log/train.log" \
        distilmos train --config "${conf}" --train "${dumpdir}/raw/${train_set}" --dev "${dumpdir}/raw/${dev_set}" \
        --out "${exp}" "${train_args[@]}"
    end "${exp}"
fi

if begin 6; then
    need "${exp}/final/config.yaml" 5
    need_audio "${tests[@]}"
    for set in "${tests[@]}"; do
        rm -rf "${exp}/results/${set}" # with the scores of an older prediction
        "${cmd[@]}" --num-threads "${num_threads}" "${exp}/results/${set}/log/predict.log" \
            distilmos predict "${dumpdir}/raw/${set}" --model "${exp}/final" --out "${exp}/results/${set}/utt2mos"
    done
    end
fi

if begin 7; then
    for set in "${tests[@]}"; do
        need "${exp}/results/${set}/utt2mos" 6
        "${cmd[@]}" "${exp}/results/${set}/log/score.log" \
            distilmos score --data "${dumpdir}/raw/${set}" --results "${exp}/results/${set}"
    done
    report_args=()
    [ "${model}" = sslmos ] || report_args=(--kmeans "${kmeans}")
    "${cmd[@]}" "${exp}/log/report.log" distilmos report "${exp}" "${report_args[@]}"
    end "${exp}/RESULTS.md" "${exp}/report.html"
fi

if begin 8; then
    need "${exp}/final/config.yaml" 5
    "${cmd[@]}" "${exp}/log/export.log" distilmos export "${exp}" --out "${exp}/model"
    end "${exp}/model"
fi
