#!/usr/bin/env bash
# Stage 0: fetches TTSDS2 unless --db_root says where it is, and writes data directories. Run in the recipe's directory.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR/..
. ./path.sh
# shellcheck source-path=SCRIPTDIR/..
. ../TEMPLATE/options.sh

# Options
datadir=data            # where to write
db_root=                # the unpacked corpus; if empty, it is downloaded
download_dir=downloads  # where to
base_url=https://huggingface.co/datasets/urgent-challenge/urgent26_track2_sqa/resolve/main  # of ttsds2.zip
allow_partial=false     # true prepares what there is, and lists what is missing
# End of options
take_all_options "$0" "$@"

if [ -z "${db_root}" ]; then
    db_root=${download_dir}/ttsds2
    distilmos download --unpack "${db_root}" "${base_url}/ttsds2.zip" "${download_dir}/ttsds2.zip"
fi
exec distilmos python local/prepare.py --db_root "${db_root}" --datadir "${datadir}" --allow_partial "${allow_partial}"
