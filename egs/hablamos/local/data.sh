#!/usr/bin/env bash
# Stage 0: fetches HablaMOS unless --db_root says where it is, and writes data directories. Run in the recipe's directory.
# Other options than these are those of local/prepare.py.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR/..
. ./path.sh
# shellcheck source-path=SCRIPTDIR/..
. ../TEMPLATE/options.sh

# Options
db_root=                 # unpacked HablaMOS.tar.gz; if empty, it is downloaded
download_dir=downloads   # where to
base_url=https://zenodo.org/records/17024887/files  # the corpus' own place, or a mirror
# End of options
take_options "$0" "$@"

if [ -z "${db_root}" ]; then
    distilmos download --unpack "${download_dir}/hablamos" "${base_url}/HablaMOS.tar.gz" "${download_dir}/HablaMOS.tar.gz"
    db_root=${download_dir}/hablamos/HablaMOS
fi
exec python3 local/prepare.py --db_root "${db_root}" "${rest[@]}"
