#!/usr/bin/env bash
# Test data only: HablaMOS, Spanish text-to-speech. Recipes that train score it with --test_sets.
set -euo pipefail
cd "$(dirname "$0")"

../TEMPLATE/distilmos.sh --train_sets "" --dev_sets "" --test_sets "hablamos" --stop_stage 1 "$@"
