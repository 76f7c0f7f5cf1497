#!/usr/bin/env bash
# From a corpus to a scored model: every stage that the recipes share. A recipe's run.sh calls this script in the
# recipe's directory, with its settings. Options that local/data.sh declares are passed on to it, and so is what follows
# `--`.
set -euo pipefail

. "$(dirname "$0")/options.sh"
. "$(dirname "$0")/stages.sh"

# Options
stage=0                   # first stage
stop_stage=8              # last stage
nj=2                      # parallel jobs of stages 1 to 4, each with one CPU thread
num_threads=2             # CPU threads of stages 5 and 6
ngpu=0                    # GPUs to ask for: of stage 5, and one for each job of stages 2, 4 and 6; 0 leaves it to the jobs
num_nodes=1               # machines of stage 5, each with ngpu GPUs; more than one with a scheduler only
resources=()              # [STAGE:]OPTIONS, what jobs ask a scheduler for, as "5:--mem 32G --time 24:00:00"; several times
datadir=data              # where the data directories are
dumpdir=dump              # where audio, features and tokens go
expdir=exp                # where models and results go
train_sets="train"        # sets to train on, separated by spaces: this recipe's, or CORPUS/SET of another recipe
dev_sets="dev"            # sets to choose the model with
test_sets="test"          # sets to test on; those of other recipes are scored if they are prepared
published=                # table of published figures to be shown beside ours
analyze=false             # true adds to the report what each layer of the encoder knows, before and after stage 5
ssl_model=                # SSL encoder, a name or the path of a checkpoint; if empty: that of the configuration
ssl_url=                  # where to fetch it from, if not from where it is published
teacher=                  # SSL model whose layers make the tokens; if empty: ssl_model itself, as in the paper
backend=distilmos         # of stages 2 and 4; fairseq for a teacher that only fairseq's own module knows
user_dir=                 # with backend fairseq: code of a model that is not part of fairseq
forward_opts=()           # options of dump-feats and dump-tokens, stages 2 and 4, as "--precision bfloat16"; several times
clusters=200              # k-means clusters of each layer
max_frames=40000          # training frames sampled for k-means
conf=conf/distilmos.yaml  # training configuration
train_opts=()             # key=value in place of what the configuration says; can be given several times
stage_to_tmpdir=false     # true copies the audio of stage 5 to $TMPDIR of the job, for a slow shared file system
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

# of_recipe SET: sets `recipe` to the recipe that SET is of, and `name` to its name there: CORPUS/SET, or a name that begins
# with that of another recipe (hablamos, nisqa_for); all others are this recipe's own.
of_recipe() {
    recipe=${corpus}
    name=$1
    case $1 in
        *+*) ;; # of several, joined here
        */*)
            recipe=${1%%/*}
            name=${1#*/}
            ;;
        *) [ ! -e "../${1%%_*}/run.sh" ] || recipe=${1%%_*} ;;
    esac
}

# raw_of SET: sets `raw` to where stage 1 of its recipe puts SET.
raw_of() {
    local recipe name
    of_recipe "$1"
    raw=../${recipe}/dump/raw/${name}
    [ "${recipe}" != "${corpus}" ] || raw=${dumpdir}/raw/${name}
}

# need_audio SET...: ends unless stage 1 has been run for every SET.
need_audio() {
    local set raw recipe name
    for set; do
        raw_of "${set}"
        of_recipe "${set}"
        if [[ ${recipe} != "${corpus}" && ! -e ${raw}/wav.scp ]]; then
            refuse "stage ${running} needs ${raw}/wav.scp: run stages 0 and 1 of egs/${recipe} first"
        fi
        need "${raw}/wav.scp" 1
    done
}

# join_sets SET...: sets `joined` to the name of one set that has all of them.
join_sets() {
    local names=("${@//\//_}")
    printf -v joined '+%s' "${names[@]}"
    joined=${joined#+}
    [ $# -gt 1 ] || joined=${1-}
}

# write_joint SET...: makes the joint set of several SETs, without copying audio.
write_joint() {
    local set sources=() joined raw recipe name
    [ $# -gt 1 ] || return 0
    need_audio "$@"
    for set; do
        raw_of "${set}"
        of_recipe "${set}"
        sources+=("${recipe}=${raw}")
    done
    join_sets "$@"
    distilmos combine-data --overwrite "${dumpdir}/raw/${joined}" "${sources[@]}"
}

# own_sets: sets `own` to the names of this recipe's sets.
own_sets() {
    local set recipe name
    own=()
    for set in "${trains[@]}" "${devs[@]}" "${tests[@]}"; do
        of_recipe "${set}"
        [ "${recipe}" != "${corpus}" ] || own+=("${name}")
    done
}

# prepared_tests: sets `prepared` to the test sets that can be scored: this recipe's, and those of others that are there.
prepared_tests() {
    local set raw recipe name
    prepared=()
    for set in "${tests[@]}"; do
        raw_of "${set}"
        of_recipe "${set}"
        if [[ ${recipe} != "${corpus}" && ! -e ${raw}/wav.scp ]]; then
            echo "not prepared, so not scored: ${set}"
        else
            prepared+=("${set}")
        fi
    done
    [ ${#prepared[@]} -gt 0 ] || refuse "stage ${running} needs a test set of '${test_sets}': run stages 0 and 1 there first"
}

# results_of SET: sets `results` to the directory of its results.
results_of() {
    results=${1#"${corpus}"/}
    results=${exp}/results/${results//\//_}
}

skips() {
    [[ ${model} != distilmos && $1 == [234] ]] || return 1
    echo "stage $1 is skipped: ${conf} has model: ${model}, which needs no tokens"
}

asks_of() {
    local gpu=$((ngpu > 0 ? 1 : 0))
    case $1 in
        1) asks=(--mem 2G --time 4:00:00) ;;
        2 | 4 | 6) asks=(--mem 8G --time 8:00:00 --gpu "${gpu}") ;;
        3) asks=(--mem 8G --time 4:00:00) ;;
        5) asks=(--mem 16G --time 48:00:00 --gpu "${ngpu}") ;;
        *) asks=(--mem 4G --time 1:00:00) ;;
    esac
}

take_stage_options "$@"
whole_numbers 0 ngpu seed
whole_numbers 1 num_threads num_nodes clusters max_frames
true_or_false analyze stage_to_tmpdir
read -ra trains <<<"${train_sets}"
read -ra devs <<<"${dev_sets}"
read -ra tests <<<"${test_sets}"
corpus=$(basename "${PWD}")

. ./path.sh
. ./cmd.sh

# The configuration is checked before the first stage, not when training begins; it says which model there will be. A
# recipe of test sets has none.
[ -z "${ssl_model}" ] || train_opts+=("ssl_model=${ssl_model}")
if [ ${#trains[@]} -eq 0 ]; then
    ((stop_stage <= 1)) || usage_error "$0" "this recipe has test sets only, and stages 0 and 1: score them from another one"
    conf=/dev/null
fi
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

join_sets "${trains[@]}"
train_set=${joined}
suffix=
[ ${#trains[@]} -le 1 ] || suffix=_${joined} # what is made of several corpora has a name of its own
join_sets "${devs[@]}"
dev_set=${joined}
[ "${backend}" != fairseq ] || : "${teacher:=${ssl_model}}"
if [ -n "${teacher}" ]; then
    train_opts+=(foreign_tokens=true)
else
    teacher=${ssl_model}
fi
ssl_name=$(basename "${teacher}" .pt)
read -ra more_args <<<"${forward_opts[*]}"
layer_args=(--ssl "${teacher}" --backend "${backend}" ${user_dir:+--user-dir "${user_dir}"} "${more_args[@]}")
made_with=("${teacher}" "${backend}" "${more_args[@]}")
conf_name=$(basename "${conf}" .yaml)
feats=${dumpdir}/feats${suffix}
kmeans=${expdir}/kmeans_${ssl_name}_k${clusters}${suffix}
tokens=${dumpdir}/tokens_${ssl_name}_k${clusters}${suffix}
exp=${expdir}/${tag:-${conf_name}_seed${seed}${suffix}}

if begin 0; then
    if [ ${#trains[@]} -gt 0 ]; then
        distilmos fetch-ssl "${ssl_model}" ${ssl_url:+--base-url "${ssl_url}"}
        [ "${teacher}" = "${ssl_model}" ] || distilmos fetch-ssl "${teacher}" ${ssl_url:+--base-url "${ssl_url}"}
    fi
    local/data.sh --datadir "${datadir}" "${data_opts[@]}"
    own_sets
    for set in "${own[@]}"; do
        validate "${datadir}/${set}"
    done
    distilmos summarize-data "${own[@]/#/${datadir}/}"
    end
fi

if begin 1; then
    own_sets
    for set in "${own[@]}"; do
        need "${datadir}/${set}/wav.scp" 0
    done
    for set in "${own[@]}"; do
        pack_audio "${datadir}/${set}" "${dumpdir}/raw/${set}"
    done
    write_joint "${trains[@]}"
    write_joint "${devs[@]}"
    end
fi

# What the configuration is changed by, for the commands that take one.
config_args=(--config "${conf}")
for pair in "${train_opts[@]}"; do
    config_args+=(--set "${pair}")
done

if begin 2; then
    need_audio "${train_set}" "${dev_set}"
    raw_of "${train_set}"
    renew "${feats}" "${raw}" "${teacher}" "${user_dir}" -- "${nj}" "${max_frames}" "${seed}" "${made_with[@]}"
    raw_of "${dev_set}"
    plan_args=(--dev "${raw}")
    for set in "${tests[@]}"; do
        raw_of "${set}"
        [ ! -e "${raw}/wav.scp" ] || plan_args+=(--test "${raw}")
    done
    raw_of "${train_set}"
    "${cmd[@]}" "${asks[@]}" --num-threads "${num_threads}" "${feats}/log/plan.log" \
        distilmos plan "${config_args[@]}" --train "${raw}" "${plan_args[@]}" --clusters "${clusters}" \
        --max-frames "${max_frames}" --jobs "${nj}" --num-threads "${num_threads}"
    grep -v '^#' "${feats}/log/plan.log"
    echo "${teacher}" >"${feats}/ssl_model"
    share "${feats}" dump_feats distilmos dump-feats "${layer_args[@]}" --data "${raw}" --out "${feats}" \
        --max-frames "${max_frames}" --seed "${seed}"
    end
fi

if begin 3; then
    need "${feats}/layer1.scp" 2
    [ "$(cat "${feats}/ssl_model")" = "${teacher}" ] || refuse "${feats} is not of ${teacher}: run stage 2 first"
    # Token ids of an older k-means mean something else: stage 4 must make them anew.
    renew "${tokens}"
    learn_kmeans "${feats}" "${kmeans}" "${clusters}" "${seed}"
    end
fi

if begin 4; then
    need "${kmeans}/quality.json" 3
    need_audio "${train_set}" "${dev_set}"
    for set in "${train_set}" "${dev_set}"; do
        raw_of "${set}"
        renew "${tokens}/${set}" "${kmeans}" "${raw}" "${teacher}" "${user_dir}" -- "${nj}" "${made_with[@]}"
        share "${tokens}/${set}" dump_tokens distilmos dump-tokens "${layer_args[@]}" --kmeans "${kmeans}" \
            --data "${raw}" --out "${tokens}/${set}"
    done
    end
fi

if begin 5; then
    train_args=(--seed "${seed}")
    [ "${stage_to_tmpdir}" = false ] || train_args+=(--stage-to-tmpdir)
    need_audio "${train_set}" "${dev_set}"
    if [ "${model}" = distilmos ]; then
        need "${tokens}/${train_set}/layer1.scp" 4
        need "${tokens}/${dev_set}/layer1.scp" 4
        train_args+=(--train-tokens "${tokens}/${train_set}" --dev-tokens "${tokens}/${dev_set}")
    fi
    raw_of "${train_set}"
    train_args+=(--train "${raw}")
    raw_of "${dev_set}"
    train_args+=(--dev "${raw}")
    ((ngpu <= 1)) || train_args+=(--nproc "${ngpu}")
    if ((num_nodes > 1)); then
        asks+=(--num-nodes "${num_nodes}")
        train_args+=(--nnodes "${num_nodes}")
    fi
    echo "progress: ${exp}/log/train.log"
    "${cmd[@]}" "${asks[@]}" --num-threads "${num_threads}" "${exp}/log/train.log" \
        distilmos train "${config_args[@]}" --out "${exp}" "${train_args[@]}"
    end "${exp}"
fi

if begin 6; then
    need "${exp}/final/config.yaml" 5
    prepared_tests
    need_audio "${prepared[@]}"
    scales=$(sed -n '/^corpora:/,/^[^-c]/p' "${exp}/final/config.yaml")
    for set in "${prepared[@]}"; do
        raw_of "${set}"
        results_of "${set}"
        predict_args=()
        of_recipe "${set}"
        # A model of several corpora knows the scale of each.
        if grep -qx -e "- ${recipe}" <<<"${scales}"; then
            predict_args=(--corpus "${recipe}")
        fi
        renew "${results}" # with the scores of an older prediction
        "${cmd[@]}" "${asks[@]}" --num-threads "${num_threads}" "${results}/log/predict.log" \
            distilmos predict "${raw}" --model "${exp}/final" --out "${results}/utt2mos" "${predict_args[@]}"
    done
    end
fi

if begin 7; then
    prepared_tests
    for set in "${prepared[@]}"; do
        raw_of "${set}"
        results_of "${set}"
        need "${results}/utt2mos" 6
        "${cmd[@]}" "${asks[@]}" "${results}/log/score.log" distilmos score --data "${raw}" --results "${results}"
    done
    if [[ ${analyze} == true && ${model} == spectral ]]; then
        echo "stage 7 analyses no layers: ${conf} has model: spectral, which does not run its encoder"
    elif [ "${analyze}" = true ]; then
        need_audio "${dev_set}"
        raw_of "${dev_set}"
        analyze_args=(--data "${raw}")
        for set in "${tests[@]}"; do
            of_recipe "${set}"
            [ "${recipe}" != "${corpus}" ] || analyze_args+=(--data "${dumpdir}/raw/${name}")
        done
        # Another model's tokens are no measure of what this one has forgotten.
        if [[ ${teacher} == "${ssl_model}" && -e ${kmeans}/quality.json ]]; then
            analyze_args+=(--kmeans "${kmeans}")
        fi
        ask_for 7 6 # it is a pass of the encoder over recordings, too
        "${cmd[@]}" "${asks[@]}" --num-threads "${num_threads}" "${exp}/log/analyze.log" \
            distilmos analyze "${exp}" "${analyze_args[@]}"
        ask_for 7
    fi
    report_args=()
    for set in "${tests[@]}"; do
        results_of "${set}"
        report_args+=(--set "${results##*/}")
    done
    [ "${model}" != distilmos ] || report_args+=(--kmeans "${kmeans}")
    [ -z "${published}" ] || report_args+=(--published "${published}")
    "${cmd[@]}" "${asks[@]}" "${exp}/log/report.log" distilmos report "${exp}" "${report_args[@]}"
    end "${exp}/RESULTS.md" "${exp}/report.html"
fi

if begin 8; then
    need "${exp}/final/config.yaml" 5
    "${cmd[@]}" "${asks[@]}" "${exp}/log/export.log" distilmos export "${exp}" --out "${exp}/model"
    end "${exp}/model"
fi
