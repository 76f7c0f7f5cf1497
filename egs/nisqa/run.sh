#!/usr/bin/env bash
# Test sets of the NISQA corpus: degraded speech and live calls. Recipes that train score them (--test_sets nisqa/SET).
set -euo pipefail
cd "$(dirname "$0")"

../TEMPLATE/distilmos.sh --train_sets "" --dev_sets "" --test_sets "nisqa_for nisqa_p501 nisqa_livetalk" --stop_stage 1 "$@"
