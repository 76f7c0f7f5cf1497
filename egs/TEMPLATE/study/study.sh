#!/usr/bin/env bash
# The studies of a recipe, which links to this script as study/study.sh: many runs, compared on pages. PAGE is a page of
# study/models.yaml, or FOLDER/PAGE one of study/FOLDER/models.yaml.
#   ./study.sh page PAGE             makes PAGE.md from the kept results
#   ./study.sh train PAGE [OPTIONS]  trains and keeps the runs that the page lacks, then makes the page
# After an interruption, start the same command again to continue. Stages 1 to 4 and the runs are jobs of a scheduler; finished
# models, and the analyses of a run, compute on this machine.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=egs/TEMPLATE/options.sh
. ../TEMPLATE/options.sh

# Options
db_root=  # of the corpus; if empty: that of run.sh
jobs=2    # runs at a time, each with one CPU thread
ngpu=0    # GPUs of a run
# End of options
action=${1-} page=${2-}
case ${action} in
    page | train) [ -n "${page}" ] || usage_error study.sh "${action} needs the name of a page" ;;
    --help)
        echo "study.sh page PAGE, or study.sh train PAGE [OPTIONS]"
        take_all_options study/study.sh --help
        ;;
    *) usage_error study.sh "expected 'page PAGE' or 'train PAGE'" ;;
esac
take_all_options study/study.sh "${@:3}"
# shellcheck source=egs/TEMPLATE/path.sh
. ./path.sh
work=study # below data, dump and exp
[[ ${page} != */* ]] || work+=/${page%/*}

# prepare: runs stages 0 and 1 for the data in `split` and `place`, unless this has been done.
prepare() {
    local set made
    for set in ${train_sets} ${test_sets}; do
        [[ ${set} != */* || -e ../${set%%/*}/dump/raw/${set#*/}/wav.scp ]] ||
            usage_error study.sh "needs the set ${set}: run egs/${set%%/*}/run.sh first"
    done
    made=dump/${work}/${place}/.prepared.$(checksum "${split[@]}")
    if [ ! -e "${made}" ]; then
        ./run.sh "${split[@]}" --stage 0 --stop_stage 1
        touch "${made}"
    fi
}

# score KIND MODEL RAW RESULTS: scores the set RAW with a published model (KIND score) or with one of `distilmos predict`.
score() {
    case $1 in
        score) distilmos predict-published --model "$2" --data "$3" --out "$4/utt2mos" ;;
        predict) distilmos predict --model "$2" "$3" --out "$4/utt2mos" --resume ;;
    esac && distilmos score --data "$3" --results "$4"
}

# is_due WHAT: sets `made` to a file that marks an analysis WHAT of `run` on `tests`, and succeeds if this is to be made. The run
# may have failed, or may have been trained again since.
is_due() {
    made=${run}/.$1.$(checksum "${tests[@]}")
    [ -e "${run}/.ended" ] && [ ! "${made}" -nt "${run}/final/config.yaml" ]
}

failed=0 # status of the last command that failed

# attempt COMMAND...: runs a command. If it fails, the finished runs are kept all the same, but not after a signal.
attempt() {
    "$@" && return
    failed=$?
    ((failed < 128)) || exit "${failed}"
    return 1
}

if [ "${action}" = train ]; then
    lacking=$(distilmos python ../TEMPLATE/study/study.py lacking "${page}")
    while IFS='|' read -r -u 3 kind place options train_sets test_sets more; do
        [ -n "${kind}" ] || continue
        read -ra split <<<"${options}"
        [ -z "${db_root}" ] || split+=(--db_root "${db_root}")
        split+=(--datadir "data/${work}/${place}" --dumpdir "dump/${work}/${place}")
        split+=(--train_sets "${train_sets}" --test_sets "${test_sets}")
        prepare
        case ${kind} in
            tokens)
                IFS='|' read -r encoder settings <<<"${more}"
                read -ra settings <<<"${settings}"
                made=dump/${work}/${place}/.tokens.$(checksum "${encoder}" "${split[@]}")
                if [ ! -e "${made}" ]; then
                    ./run.sh "${split[@]}" --expdir "exp/${work}/${place}" --ngpu "${ngpu}" "${settings[@]}" \
                        --stage 2 --stop_stage 4
                    touch "${made}"
                fi
                ;;
            score | predict)
                IFS='|' read -r model raw results <<<"${more}"
                attempt score "${kind}" "${model}" "${raw}" "${results}" || true
                ;;
            sweep)
                IFS='|' read -r models seeds dev <<<"${more}"
                attempt ../TEMPLATE/sweep.sh --models "${models}" --seeds "${seeds}" --jobs "${jobs}" --ngpu "${ngpu}" \
                    --expdir "exp/${work}/${place}" --dev "${dev}" "${split[@]}" || true
                ;;
            refit)
                IFS='|' read -r run train tests <<<"${more}"
                read -ra tests <<<"${tests}"
                is_due refit || continue
                attempt distilmos analyze --ssl "${run}/final" --data "${train}" "${tests[@]/#/--test-data=}" \
                    --max-frames 1000 --out "${run}/refit" || continue
                touch "${made}"
                ;;
            confidence)
                IFS='|' read -r run _ tests <<<"${more}"
                read -ra tests <<<"${tests}"
                is_due confidence || continue
                attempt distilmos confidence "${run}/final" --data "${tests[@]}" --out "${run}/confidence.json" || continue
                touch "${made}"
                ;;
        esac
    done 3<<<"${lacking}"
    distilmos python ../TEMPLATE/study/study.py keep "${page}"
    ((failed == 0)) || exit "${failed}"
fi
distilmos python ../TEMPLATE/study/study.py page "${page}"
