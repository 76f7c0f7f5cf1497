#!/usr/bin/env bash
# Test data only: the NISQA corpus' test sets: live recordings of calls, rated. Recipes that train score it with --test_sets.
set -euo pipefail
cd "$(dirname "$0")"

../TEMPLATE/distilmos.sh --train_sets "" --dev_sets "" --test_sets "nisqa_for nisqa_p501 nisqa_livetalk" --stop_stage 1 "$@"
