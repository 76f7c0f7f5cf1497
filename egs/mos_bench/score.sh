#!/usr/bin/env bash
# score.sh MODEL [OPTION...]: scores a model on all prepared sets of MOS-Bench, here and in other recipes, and writes a
# table. MODEL is the same as for `distilmos predict --model`. Run it again to continue: a set is scored again only if the
# model, the set or this package has changed.
set -euo pipefail
shopt -s extglob
cd "$(dirname "$0")"
. ../TEMPLATE/options.sh

# Options
out=              # directory of the results; if empty, exp/MODEL, with _ for each /
dumpdir=dump      # audio of this recipe's sets
dumpdir_of=()     # CORPUS=DIR, dumpdir of another recipe if not ../CORPUS/dump; several times
num_threads=2     # CPU threads
ngpu=0            # GPUs to request for each set
# End of options
given=${1-} # `distilmos sets` has a variable `model`
case ${given} in
    --help) ;;
    "" | -*) usage_error "$0" "expected a model, then options" ;;
    *) shift ;;
esac
take_all_options "$0" "$@"
if [ -z "${out}" ]; then
    out=${given//\//_}
    out=exp/${out##+([._])}
fi

. ./path.sh
. ./cmd.sh

model_dir=$(distilmos python local/model_dir.py "${given}")
mapfile -t words < <(tail -n +2 local/sets.tsv | cut -f 1)
names=$(distilmos sets --corpus "${PWD##*/}" --test "${words[@]}" --dumpdir "${dumpdir}" "${dumpdir_of[@]/#/--dumpdir-of=}" \
    --model "${model_dir}" --config /dev/null --clusters 1 --seed 1)
eval "${names}"

rows=() prepared=false
# shellcheck disable=SC2154  # `names` sets tests, test_names and test_scales
for index in "${!tests[@]}"; do
    raw=${tests[index]#*=} results=${out}/${test_names[index]} scale=${test_scales[index]}
    if [[ ! -e ${raw}/wav.scp || -e ${raw}/shards ]]; then
        rows+=(-)
        continue
    fi
    echo "${words[index]}: ${results}/log/predict.log"
    # The runner repeats no job that has succeeded with the same inputs.
    distilmos renew --input "${raw}" --input "${model_dir}" -- "${results}" "${scale}" >/dev/null
    "${cmd[@]}" --mem 8G --time 8:00:00 --gpu "${ngpu}" --num-threads "${num_threads}" "${results}/log/predict.log" \
        distilmos predict "${raw}" --model "${model_dir}" --out "${results}/utt2mos" --resume ${scale:+--corpus "${scale}"}
    "${cmd[@]}" --mem 4G --time 1:00:00 "${results}/log/score.log" distilmos score --data "${raw}" --results "${results}"
    rows+=("${results}") prepared=true
done
if [ "${prepared}" = false ]; then
    echo "${0##*/}: no set of MOS-Bench is prepared: run stages 0 and 1 of this recipe or of another one in the table" >&2
    exit 2
fi
echo
distilmos python local/table.py --model "${given}" --out "${out}" "${rows[@]}"
