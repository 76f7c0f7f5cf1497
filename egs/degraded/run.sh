#!/usr/bin/env bash
# Plain speech, degraded, with simulated ratings: what a model is trained on before a small corpus of real ones.
set -euo pipefail
cd "$(dirname "$0")"

../TEMPLATE/distilmos.sh --test_sets "test" "$@"
