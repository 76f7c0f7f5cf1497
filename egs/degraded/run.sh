#!/usr/bin/env bash
# Degraded plain speech with simulated ratings, to train on before a small corpus with real ratings.
set -euo pipefail
cd "$(dirname "$0")"

../TEMPLATE/distilmos.sh --test_sets "test" "$@"
