#!/usr/bin/env bash
# Stage 0: fetches HablaMOS unless --db_root says where it is, and writes data directories. Run in the recipe's directory.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR/..
. ./path.sh
# shellcheck source-path=SCRIPTDIR/..
. ../TEMPLATE/options.sh

# Options
datadir=data            # where to write
db_root=                # the unpacked corpus; if empty, it is downloaded
download_dir=downloads  # where to
base_url=https://zenodo.org/records/17024887/files  # of HablaMOS.tar.gz: Zenodo, or a mirror
allow_partial=false     # true prepares what there is, and lists what is missing
# End of options
take_all_options "$0" "$@"

if [ -z "${db_root}" ]; then
    distilmos download --unpack "${download_dir}/hablamos" \
        "${base_url}/HablaMOS.tar.gz" "${download_dir}/HablaMOS.tar.gz"
    db_root=${download_dir}/hablamos/HablaMOS
fi
exec distilmos python local/prepare.py --db_root "${db_root}" --datadir "${datadir}" --allow_partial "${allow_partial}"
