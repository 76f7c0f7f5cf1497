#!/usr/bin/env bash
# DistilMOS against plain fine-tuning: every model with several seeds, in domain (conditions) and out of domain (a type of
# degradation held out), and RESULTS.md with tables and figures. Started again, it goes on with what is not done.
set -euo pipefail
cd "$(dirname "$0")"
. ../TEMPLATE/options.sh

# Options
db_root=downloads/tcdvoip                                # the release
protocols="conditions echo chop clip compspkr noise"     # conditions, or a held-out type
models="distilmos sslmos no_tokens frozen last_layer"    # CONF[+key=value][@option=value]... of conf/
seeds="1 2 3 4 5"                                        # of training; sampling and k-means have seed 1
references=                                              # published models to score as they are: distillmos, dnsmos
jobs=2                                                   # trainings at a time, each with one CPU thread
kept=study                                               # what is kept of every training: what is there is not run again
out=RESULTS.md                                           # the page; its figures go to a directory beside it
# End of options
take_all_options study.sh "$@"
. ./path.sh
. local/keep.sh

# take_protocol PROTOCOL: sets `split` to the options of run.sh, `analyze` to whether it says what the layers know, and the
# directories `exp`, `dump` and `place`.
take_protocol() {
    case $1 in
        conditions) split=(--split conditions) analyze=true exp=exp dump=dump place=${kept}/conditions ;;
        *)
            # How much is forgotten is asked in one protocol: an analysis takes a quarter of the time of a training.
            split=(--split leave_type_out --held_out "$1") analyze=false
            exp=exp/leave_$1_out dump=dump/leave_$1_out place=${kept}/leave_$1_out
            ;;
    esac
    split+=(--db_root "${db_root}")
}

# check: ends if what is kept has been trained with other settings than those of conf/.
check() {
    local places=() protocol
    for protocol in ${protocols}; do
        take_protocol "${protocol}"
        places+=("${place}")
    done
    python3 local/check_kept.py --kept "${places[@]}" --models "${models}" --seeds "${seeds}"
}

check
for protocol in ${protocols}; do
    take_protocol "${protocol}"
    for reference in ${references}; do
        results=${place}/zero_shot/${reference}/results/test
        if [ ! -e "${results}/metrics.json" ]; then
            prepare "${dump}" "${split[@]}"
            python3 local/zero_shot.py --model "${reference}" --data "${dump}/raw/test" --out "${results}/utt2mos"
            distilmos score --data "${dump}/raw/test" --results "${results}"
        fi
    done
    # Seeds that lack the same models are one array of jobs: a new seed, or a new model, is all that is trained.
    declare -A seeds_of=()
    for seed in ${seeds}; do
        lacking_models "${place}" "${models}" "${seed}"
        [ ${#left[@]} -eq 0 ] || seeds_of["${left[*]}"]+="${seed} "
    done
    for group in "${!seeds_of[@]}"; do
        prepare "${dump}" "${split[@]}"
        sweep --models "${group}" --seeds "${seeds_of[${group}]}" --jobs "${jobs}" --expdir "${exp}" \
            --analyze "${analyze}" "${split[@]}"
        lacking_models "${place}" "${group}" "${seeds_of[${group}]}"
        for training in "${lacking[@]}"; do
            files=(config.yaml log.jsonl results/test/{metrics.json,scored.tsv})
            [ ! -e "${exp}/${training}/analysis" ] || files+=(analysis/analysis.json)
            keep "${exp}/${training}" "${place}/${training}" "${files[@]}"
        done
    done
done
((failed == 0)) || exit "${failed}"
check
python3 local/gather.py --protocols "${protocols}" --models "${models}" --seeds "${seeds}" \
    --references "${references}" --kept "${kept}" --out "${out}"
