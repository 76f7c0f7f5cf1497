#!/usr/bin/env bash
# Stage 0: speaks, degrades and rates (simulated) the embedded corpus. Run in the recipe's directory; --help lists the
# options.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR/..
. ./path.sh

exec python3 local/prepare.py "$@"
