#!/usr/bin/env bash
# Test set TTSDS2, recent text-to-speech in four domains. Recipes that train score it (--test_sets ttsds2/ttsds2).
set -euo pipefail
cd "$(dirname "$0")"

../TEMPLATE/distilmos.sh --train_sets "" --dev_sets "" --test_sets "ttsds2" --stop_stage 1 "$@"
