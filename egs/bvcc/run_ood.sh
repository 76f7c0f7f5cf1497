#!/usr/bin/env bash
# The out-of-domain track of the VoiceMOS Challenge 2022: stages 0 and 1 of ood_train, ood_dev and ood_test, for run.sh.
set -euo pipefail
cd "$(dirname "$0")"

../TEMPLATE/distilmos.sh --train_sets "" --dev_sets "" --test_sets "ood_train ood_dev ood_test" --stop_stage 1 "$@" -- \
    --track ood
