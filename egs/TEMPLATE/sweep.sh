#!/usr/bin/env bash
# Trains models of conf/ with several seeds as one array of jobs, and compares their scores on a page. Run
# ../TEMPLATE/sweep.sh in a recipe's directory, after stages 0 to 4; it passes options that are not its own to run.sh. Run
# it again to continue: it finishes the runs that have not ended and scores all runs again.
set -euo pipefail

. "$(dirname "$0")/options.sh"

# Options
models="distilmos sslmos"                 # CONF[+key=value][@option=value]... of conf/, see egs/README.md
seeds="1 2 3"                             # of the runs
jobs=2                                    # runs at a time
num_threads=1                             # CPU threads of a run
ngpu=0                                    # GPUs of a run
resources="--mem 16G --time 48:00:00"     # of a run, for a scheduler; a run that takes longer fails
expdir=exp                                # directory of the runs, MODEL_seedN
dev=false                                 # true: only train, and show the dev set, to choose settings
out=                                      # the page; if empty: sweep.md in expdir
job=                                      # internal: the number of one run
# End of options

# take_model MODEL: sets `settings` to the options of run.sh for this model: CONF, each +key=value that replaces a setting of
# conf/CONF.yaml, @clusters=N and @teacher=SSL. Sets `own_tokens` to the last two alone.
take_model() {
    local changes=$1 words
    settings=(--conf "conf/${changes%%[+@]*}.yaml") own_tokens=()
    while [[ ${changes} =~ ([+@])([^+@]+)(.*) ]]; do
        words=${BASH_REMATCH[2]} changes=${BASH_REMATCH[3]}
        case ${BASH_REMATCH[1]} in
            +) settings+=(--train_opts "${words}") ;;
            @)
                # Directories of tokens are named by these alone.
                [[ ${words} =~ ^(clusters|teacher)= ]] || usage_error "$0" "--models: @${words}: not of clusters or teacher"
                own_tokens+=("--${words%%=*}" "${words#*=}")
                ;;
        esac
    done
    settings+=("${own_tokens[@]}")
}

take_options "$0" "$@"
case ${rest[0]-} in --help) exit 0 ;; esac
true_or_false dev
# The directory of a run has the name of its model.
[[ ${models} != */* ]] || usage_error "$0" "--models: a value with / must be in a file of conf/"
for model in ${models}; do
    take_model "${model}" # refuses an option before anything runs
done
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
    # This file marks a run whose stages have all ended with the current settings and data; a study keeps only such runs.
    ended=${expdir}/${model}_seed${seed}/.ended
    rm -f "${ended}"
    # The stages run inside this job. Of a run that has ended, they only check that settings and data are still the same.
    # Options of the model win over options of all models.
    cmd_backend=local ./run.sh "${rest[@]}" --expdir "${expdir}" --stage 5 --stop_stage "${last}" "${settings[@]}" \
        --tag "${model}_seed${seed}" --seed "${seed}" --num_threads "${num_threads}" --ngpu "${ngpu}"
    touch "${ended}"
    exit
fi

. ./path.sh
. ./cmd.sh
# Models with options of their own need tokens of their own: make these first, once for all seeds.
for model in ${models}; do
    take_model "${model}"
    [ ${#own_tokens[@]} -gt 0 ] || continue
    # The name depends on the options of all models too: other sets or another encoder need other tokens.
    made=${expdir}/sweep/tokens.$(checksum "${settings[1]}" "${own_tokens[@]}" "${rest[@]}")
    if [ ! -e "${made}" ]; then
        # The features of stage 2 are those of the teacher.
        [[ " ${own_tokens[*]} " = *" --teacher "* ]] && first=2 || first=3
        ./run.sh "${rest[@]}" --expdir "${expdir}" --ngpu "${ngpu}" --stage "${first}" --stop_stage 4 "${settings[@]}"
        mkdir -p "${expdir}/sweep"
        touch "${made}"
    fi
done
read -ra asks <<<"${resources}"
array_name "$0" "${models}" "${seeds}" "${expdir}" "${rest[@]}"
"${cmd[@]}" "${asks[@]}" --gpu "${ngpu}" --num-threads "${num_threads}" --max-jobs-run "${jobs}" \
    "${array}=1:${#runs[@]}" "${expdir}/sweep/log/run.${array}.log" \
    "$0" --models "${models}" --seeds "${seeds}" --num_threads "${num_threads}" --ngpu "${ngpu}" --expdir "${expdir}" \
    --dev "${dev}" --job "${array}" "${rest[@]}"
read -ra models <<<"${models}"
read -ra seeds <<<"${seeds}"
distilmos gather "${expdir}" --models "${models[@]}" --seeds "${seeds[@]}" "${gathered[@]}" \
    --out "${out:-${expdir}/sweep.md}"
