#!/usr/bin/env bash
# The embedded corpus: synthetic speech, degraded, with simulated ratings. Needs no download.
set -euo pipefail
cd "$(dirname "$0")"
. ../TEMPLATE/options.sh

# Options
size=full  # of the corpus that stage 0 makes: full or small
# End of options
take_options run.sh "$@"

../TEMPLATE/distilmos.sh \
    --test_sets "test test_ood" \
    "${rest[@]}" -- --size "${size}"
