#!/usr/bin/env bash
# Stage 0: downloads TTSDS2, unless --db_root names a copy, and writes data directories. Run this in the recipe's
# directory.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR/..
. ./path.sh
# shellcheck source-path=SCRIPTDIR/..
. ../TEMPLATE/options.sh

# Options
datadir=data            # data directories to write
db_root=                # the unpacked corpus; if empty, stage 0 downloads it
download_dir=downloads  # directory of the download
base_url=https://huggingface.co/datasets/urgent-challenge/urgent26_track2_sqa/resolve/main  # of ttsds2.zip
allow_partial=false     # true prepares an incomplete corpus, and lists the missing parts
# End of options
take_all_options "$0" "$@"

if [ -z "${db_root}" ]; then
    db_root=${download_dir}/ttsds2
    distilmos download --unpack "${db_root}" "${base_url}/ttsds2.zip" "${download_dir}/ttsds2.zip"
fi
exec distilmos python local/prepare.py --db_root "${db_root}" --datadir "${datadir}" --allow_partial "${allow_partial}"
