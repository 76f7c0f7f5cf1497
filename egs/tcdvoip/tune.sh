#!/usr/bin/env bash
# The settings of conf/, chosen by the dev sets of folds of `conditions`: every candidate is trained on each fold, and
# TUNING.md shows how well it does on dev. No test set is scored. Started again, it goes on with what is not done.
set -euo pipefail
cd "$(dirname "$0")"
. ../TEMPLATE/options.sh

# Options
db_root=downloads/tcdvoip  # the release
models=                    # candidates, CONF[+key=value][@option=value]... of conf/; if empty: those of local/candidates
folds="1 2"                # of train and dev, 1 to 4; the number of a fold is the seed of its trainings, too
jobs=2                     # trainings at a time, each with one CPU thread
kept=study/tuning          # what is kept of every training: what is there is not run again
out=TUNING.md              # the page
# End of options
take_all_options tune.sh "$@"
. ./path.sh
. local/keep.sh

models=$(xargs <<<"${models}")  # a list over several lines is one line of the page
command="./tune.sh${models:+ --models \"${models}\"} --folds \"${folds}\" --kept ${kept} --out ${out}"
[ -n "${models}" ] || models=$(grep -v '^#' local/candidates | xargs)
mkdir -p "${kept}"
# check: ends if what is kept has been trained with other settings than those of conf/.
check() { python3 local/check_kept.py --kept "${kept}" --models "${models}" --seeds "${folds}" --folds; }

check
for fold in ${folds}; do
    lacking_models "${kept}" "${models}" "${fold}"
    if [ ${#left[@]} -gt 0 ]; then
        part=/dev_fold_${fold}
        [ "${fold}" != 1 ] || part=
        split=(--db_root "${db_root}" --split conditions --dev_fold "${fold}")
        prepare "dump${part}" "${split[@]}"
        sweep --models "${left[*]}" --seeds "${fold}" --jobs "${jobs}" --expdir "exp${part}" --dev true "${split[@]}"
        for training in "${lacking[@]}"; do
            keep "exp${part}/${training}" "${kept}/${training}" config.yaml log.jsonl
        done
    fi
done
((failed == 0)) || exit "${failed}"
check
read -ra models <<<"${models}"
read -ra folds <<<"${folds}"
distilmos gather "${kept}" --models "${models[@]}" --seeds "${folds[@]}" --dev --out "${kept}/page.md"
{
    echo "# TCD-VoIP: candidates for settings, on dev"
    echo
    echo "Made by \`${command}\`."
    echo "The training with seed N has fold N of dev: 20 conditions, fold 4 the last 11. Means are over the folds. No test set"
    echo "was scored."
    echo
    cat "${kept}/page.md"
} >"${out}.tmp"
rm "${kept}/page.md"
mv "${out}.tmp" "${out}"
