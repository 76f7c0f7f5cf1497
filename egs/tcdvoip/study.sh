#!/usr/bin/env bash
# DistilMOS against plain fine-tuning: every model of conf/ with several seeds, in domain (conditions) and out of domain
# (a degradation type held out), and RESULTS.md with the tables. Started again, it goes on with what is not done.
set -euo pipefail
cd "$(dirname "$0")"
. ../TEMPLATE/options.sh

# Options
db_root=downloads/tcdvoip          # the release
protocols="conditions echo chop"   # conditions, or a held-out type: echo, chop, clip, compspkr, noise
models="distilmos sslmos"          # CONF[+key=value]... of conf/; the first is compared with the others, A+... with A
seeds="1 2 3"                      # of training; sampling and k-means have seed 1
references=                        # published models to score as they are: distillmos, dnsmos
jobs=2                             # trainings at a time, each with one CPU thread
out=RESULTS.md                     # the page
# End of options
take_all_options study.sh "$@"

# protocol_options PROTOCOL: sets `split` to the options of run.sh.
protocol_options() {
    case $1 in
        conditions) split=(--split conditions) ;;
        *) split=(--split leave_type_out --held_out "$1") ;;
    esac
    split+=(--db_root "${db_root}")
}

. ./path.sh
for protocol in ${protocols}; do
    protocol_options "${protocol}"
    below=
    [ "${protocol}" = conditions ] || below=/leave_${protocol}_out
    if [ ! -e "dump${below}/.prepared" ]; then
        ./run.sh "${split[@]}" --stage 0 --stop_stage 4
        touch "dump${below}/.prepared"
    fi
    for reference in ${references}; do
        results=exp${below}/zero_shot/${reference}/results/test
        if [ ! -e "${results}/metrics.json" ]; then
            python3 local/zero_shot.py --model "${reference}" --data "dump${below}/raw/test" --out "${results}/utt2mos"
            distilmos score --data "dump${below}/raw/test" --results "${results}"
        fi
    done
    ../TEMPLATE/sweep.sh --models "${models}" --seeds "${seeds}" --jobs "${jobs}" --expdir "exp${below}" "${split[@]}"
done
python3 local/gather.py --protocols "${protocols}" --models "${models}" --seeds "${seeds}" \
    --references "${references}" --out "${out}"
