#!/usr/bin/env bash
# Stage 0: reads a copy of github.com/microsoft/P.808 and writes data directories. Run this in the recipe's directory.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR/..
. ./path.sh
# shellcheck source-path=SCRIPTDIR/..
. ../TEMPLATE/options.sh

# Options
datadir=data              # data directories to write
db_root=downloads/P.808   # a copy of github.com/microsoft/P.808, with p835_reference_conditions/
target=ovrl               # scores of utt2mos: ovrl (overall quality), sig (speech signal) or bak (background noise)
allow_partial=false       # true prepares an incomplete corpus, and lists the missing parts
# End of options
take_all_options "$0" "$@"

exec distilmos python local/prepare.py --db_root "${db_root}" --datadir "${datadir}" --allow_partial "${allow_partial}" \
    --target "${target}"
