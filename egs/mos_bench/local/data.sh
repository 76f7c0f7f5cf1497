#!/usr/bin/env bash
# Stage 0: writes a data directory for each set. Run this in the recipe's directory; --help lists the options.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR/..
. ./path.sh

exec distilmos python local/prepare.py "$@"
