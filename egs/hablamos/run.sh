#!/usr/bin/env bash
# Test set HablaMOS, Spanish text-to-speech. Recipes that train score it (--test_sets hablamos/hablamos).
set -euo pipefail
cd "$(dirname "$0")"

../TEMPLATE/distilmos.sh --train_sets "" --dev_sets "" --test_sets "hablamos" --stop_stage 1 "$@"
