#!/usr/bin/env bash
# Test sets of MOS-Bench that no other recipe has. Recipes that train score them (--test_sets mos_bench/SET); score.sh
# scores any model on all of MOS-Bench.
set -euo pipefail
cd "$(dirname "$0")"
. ../TEMPLATE/options.sh

# Options
db_root=downloads    # a directory for each corpus, and a clone of SHEET, see README.md
sets=                # sets to prepare, separated by spaces; if empty, all that are in db_root
allow_partial=false  # true prepares incomplete sets, and lists the missing parts
# End of options
take_options run.sh "$@"

if [[ -z ${sets} && ${rest[0]-} != --help ]]; then
    while IFS=$'\t' read -r set folder _ title; do
        [ "${folder}" != - ] || continue # another recipe prepares it
        if [ -d "${db_root}/${folder}" ]; then
            sets+="${sets:+ }${set}"
        else
            echo "not prepared: ${set}, ${title}: no directory ${db_root}/${folder}"
        fi
    done < <(tail -n +2 local/sets.tsv)
    [ -n "${sets}" ] || usage_error run.sh "${db_root} has none of the corpora, see README.md"
fi

../TEMPLATE/distilmos.sh --train_sets "" --dev_sets "" --test_sets "${sets}" --stop_stage 1 "${rest[@]}" -- \
    --db_root "${db_root}" --sets "${sets}" --allow_partial "${allow_partial}"
