#!/usr/bin/env bash
# Stage 0: speaks, degrades and rates (simulated) the embedded corpus. Run in the recipe's directory.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR/..
. ./path.sh
# shellcheck source-path=SCRIPTDIR/..
. ../TEMPLATE/options.sh

# Options
datadir=data  # where to write
size=full     # of the corpus: full or small
# End of options
take_all_options "$0" "$@"

exec distilmos python local/prepare.py --datadir "${datadir}" --size "${size}"
