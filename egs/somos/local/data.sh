#!/usr/bin/env bash
# Stage 0: downloads SOMOS, unless --db_root names a copy, and writes data directories. Run this in the recipe's
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
base_url=https://zenodo.org/records/7378801/files  # of somos.zip: Zenodo, or a mirror
variant=clean           # full (all ratings) or clean (only listeners who passed the checks)
allow_partial=false     # true prepares an incomplete corpus, and lists the missing parts
# End of options
take_all_options "$0" "$@"

if [ -z "${db_root}" ]; then
    db_root=${download_dir}/somos
    distilmos download --size 3971669902 --md5 bdfde4cae256549dfab05d713136e4af --unpack "${db_root}" \
        --nested audios.zip "${base_url}/somos.zip" "${download_dir}/somos.zip"
fi
exec distilmos python local/prepare.py --db_root "${db_root}" --datadir "${datadir}" --allow_partial "${allow_partial}" \
    --variant "${variant}"
