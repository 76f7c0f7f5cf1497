#!/usr/bin/env bash
# Trains models of conf/ with several seeds as one array of jobs, and gathers their scores: ../TEMPLATE/sweep.sh in a
# recipe's directory, after stages 0 to 4. Options that are not its own go to the recipe's run.sh. Started again, it goes on
# training what has not been trained to the end, and scores all again.
set -euo pipefail

. "$(dirname "$0")/options.sh"

# Options
models="distilmos sslmos"                 # CONF[+key=value][@option=value]... of conf/, see egs/README.md
seeds="1 2 3"                             # of training
jobs=2                                    # trainings at a time
num_threads=1                             # CPU threads of a training
ngpu=0                                    # GPUs of a training
resources="--mem 16G --time 48:00:00"     # what a training asks a scheduler for
expdir=exp                                # where the trainings are, as MODEL_seedN
dev=false                                 # true only trains, and shows the dev set: to choose settings by
out=                                      # the page; if empty: sweep.md in expdir
job=                                      # internal: the number of one training
# End of options

# take_model MODEL: sets `settings` to the options of run.sh that make it: CONF, +key=value in place of what conf/CONF.yaml
# says, and @option=value of run.sh itself; sets `own_tokens` to the latter alone.
take_model() {
    local changes=$1 words
    settings=(--conf "conf/${changes%%[+@]*}.yaml") own_tokens=()
    while [[ ${changes} =~ ([+@])([^+@]+)(.*) ]]; do
        words=${BASH_REMATCH[2]}
        case ${BASH_REMATCH[1]} in
            +) settings+=(--train_opts "${words}") ;;
            @) own_tokens+=("--${words%%=*}" "${words#*=}") ;;
        esac
        changes=${BASH_REMATCH[3]}
    done
    settings+=("${own_tokens[@]}")
}

take_options "$0" "$@"
case ${rest[0]-} in --help) exit 0 ;; esac
true_or_false dev
# A training's directory has the name of its model.
[[ ${models} != */* ]] || usage_error "$0" "--models: a value with / belongs into a configuration of conf/"
case ${dev} in
    true) last=5 gathered=(--dev) ;;
    false) last=7 gathered=() ;;
esac

runs=()
for seed in ${seeds}; do
    for model in ${models}; do
        runs+=("${model} ${seed}")
    done
done

if [ -n "${job}" ]; then
    read -r model seed <<<"${runs[job - 1]}"
    take_model "${model}"
    # Whoever keeps trainings, as egs/tcdvoip/study.sh does, sees by this file that all stages have ended, with the settings
    # and data of now.
    ended=${expdir}/${model}_seed${seed}/.ended
    rm -f "${ended}"
    # The stages run inside this job. A training that has ended is only checked: its settings and data are still the same.
    # What makes the model counts before options for all.
    cmd_backend=local ./run.sh "${rest[@]}" --expdir "${expdir}" --stage 5 --stop_stage "${last}" "${settings[@]}" \
        --tag "${model}_seed${seed}" --seed "${seed}" --num_threads "${num_threads}" --ngpu "${ngpu}"
    touch "${ended}"
    exit
fi

. ./path.sh
. ./cmd.sh
# Tokens of other options than the recipe's are made before, once for all seeds.
for model in ${models}; do
    take_model "${model}"
    [ ${#own_tokens[@]} -gt 0 ] || continue
    # Other sets of the recipe, or another encoder of a configuration, have tokens of their own.
    made=${expdir}/sweep/tokens.$(cksum <<<"${settings[1]} ${own_tokens[*]} ${rest[*]}" | cut -d ' ' -f 1)
    if [ ! -e "${made}" ]; then
        ./run.sh "${rest[@]}" --expdir "${expdir}" --stage 3 --stop_stage 4 "${settings[@]}"
        mkdir -p "${expdir}/sweep"
        touch "${made}"
    fi
done
read -ra asks <<<"${resources}"
"${cmd[@]}" "${asks[@]}" --gpu "${ngpu}" --num-threads "${num_threads}" --max-jobs-run "${jobs}" \
    "JOB=1:${#runs[@]}" "${expdir}/sweep/log/run.JOB.log" \
    "$0" --models "${models}" --seeds "${seeds}" --num_threads "${num_threads}" --ngpu "${ngpu}" --expdir "${expdir}" \
    --dev "${dev}" --job JOB "${rest[@]}"
read -ra models <<<"${models}"
read -ra seeds <<<"${seeds}"
distilmos gather "${expdir}" --models "${models[@]}" --seeds "${seeds[@]}" "${gathered[@]}" \
    --out "${out:-${expdir}/sweep.md}"
