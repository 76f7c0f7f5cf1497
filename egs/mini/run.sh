#!/usr/bin/env bash
# The embedded corpus: synthetic speech, degraded, with simulated ratings. Needs no download.
set -euo pipefail
cd "$(dirname "$0")"

../TEMPLATE/distilmos.sh --test_sets "test test_ood" --resources "--mem 2G --time 0:30:00" "$@"
