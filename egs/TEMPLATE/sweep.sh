#!/usr/bin/env bash
# Trains models of conf/ with several seeds as one array of jobs, and gathers their scores: ../TEMPLATE/sweep.sh in a
# recipe's directory, after stages 0 to 4. Options that are not its own go to the recipe's run.sh. Started again, it goes on
# with what is not done.
set -euo pipefail

. "$(dirname "$0")/options.sh"

# Options
models="distilmos sslmos"                 # CONF[+key=value]... of conf/; the first is compared with the others, A+... with A
seeds="1 2 3"                             # of training
jobs=2                                    # trainings at a time
num_threads=1                             # CPU threads of a training
ngpu=0                                    # GPUs of a training
resources="--mem 16G --time 48:00:00"     # what a training asks a scheduler for
expdir=exp                                # where the trainings are, as MODEL_seedN
out=                                      # the page; if empty: sweep.md in expdir
job=                                      # internal: the number of one training
# End of options
take_options "$0" "$@"
case ${rest[0]-} in --help) exit 0 ;; esac

runs=()
for seed in ${seeds}; do
    for model in ${models}; do
        runs+=("${model} ${seed}")
    done
done

if [ -n "${job}" ]; then
    read -r model seed <<<"${runs[job - 1]}"
    settings=()
    for pair in $(tr + ' ' <<<"${model}"); do
        [[ ${pair} != *=* ]] || settings+=(--train_opts "${pair}")
    done
    # The stages run inside this job. A training that has ended is only checked: its settings and data are still the same.
    cmd_backend=local exec ./run.sh --expdir "${expdir}" --stage 5 --stop_stage 7 --conf "conf/${model%%+*}.yaml" \
        "${settings[@]}" --tag "${model}_seed${seed}" --seed "${seed}" --num_threads "${num_threads}" --ngpu "${ngpu}" \
        "${rest[@]}"
fi

. ./path.sh
. ./cmd.sh
read -ra asks <<<"${resources}"
"${cmd[@]}" "${asks[@]}" --gpu "${ngpu}" --num-threads "${num_threads}" --max-jobs-run "${jobs}" \
    "JOB=1:${#runs[@]}" "${expdir}/sweep/log/run.JOB.log" \
    "$0" --models "${models}" --seeds "${seeds}" --num_threads "${num_threads}" --ngpu "${ngpu}" --expdir "${expdir}" \
    --job JOB "${rest[@]}"
read -ra models <<<"${models}"
read -ra seeds <<<"${seeds}"
distilmos gather "${expdir}" --models "${models[@]}" --seeds "${seeds[@]}" --out "${out:-${expdir}/sweep.md}"
