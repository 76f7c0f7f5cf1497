#!/usr/bin/env bash
# The embedded corpus: degraded synthetic speech with simulated ratings. It needs no download.
set -euo pipefail
cd "$(dirname "$0")"

../TEMPLATE/distilmos.sh --test_sets "test test_ood" --resources "--mem 2G --time 0:30:00" "$@"
