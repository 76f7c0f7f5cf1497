#!/usr/bin/env bash
# Stage 0: makes the embedded corpus: degraded synthetic speech with simulated ratings. Run this in the recipe's
# directory.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR/..
. ./path.sh
# shellcheck source-path=SCRIPTDIR/..
. ../TEMPLATE/options.sh

# Options
datadir=data  # data directories to write
size=full     # size of the corpus: full or small
# End of options
take_all_options "$0" "$@"

exec distilmos python local/prepare.py --datadir "${datadir}" --size "${size}"
