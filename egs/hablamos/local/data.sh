#!/usr/bin/env bash
# Stage 0: downloads HablaMOS, unless --db_root names a copy, and writes data directories. Run this in the recipe's
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
base_url=https://zenodo.org/records/17024887/files  # of HablaMOS.tar.gz: Zenodo, or a mirror
allow_partial=false     # true prepares an incomplete corpus, and lists the missing parts
# End of options
take_all_options "$0" "$@"

if [ -z "${db_root}" ]; then
    distilmos download --unpack "${download_dir}/hablamos" \
        "${base_url}/HablaMOS.tar.gz" "${download_dir}/HablaMOS.tar.gz"
    db_root=${download_dir}/hablamos/HablaMOS
fi
exec distilmos python local/prepare.py --db_root "${db_root}" --datadir "${datadir}" --allow_partial "${allow_partial}"
