#!/usr/bin/env bash
# Test sets: reference conditions of Microsoft's P.835 crowdsourcing. Recipes that train score them (--test_sets p835/SET).
set -euo pipefail
cd "$(dirname "$0")"

../TEMPLATE/distilmos.sh --train_sets "" --dev_sets "" --test_sets "p835_wb p835_fb" --stop_stage 1 "$@"
