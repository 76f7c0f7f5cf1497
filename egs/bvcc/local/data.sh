#!/usr/bin/env bash
# Stage 0: fetches BVCC unless --db_root says where it is, and writes data directories. Run in the recipe's directory.
# Other options than these are those of local/prepare.py.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR/..
. ./path.sh
# shellcheck source-path=SCRIPTDIR/..
. ../TEMPLATE/options.sh

# Options
db_root=                                               # unpacked main.tar.gz; if empty, it is downloaded
download_dir=downloads                                 # where to
base_url=https://zenodo.org/records/6572573/files      # Zenodo, or a mirror
# End of options
take_options "$0" "$@"

if [ -z "${db_root}" ]; then
    db_root=${download_dir}/bvcc
    distilmos download --md5 fc880c2a208c3285a47bd9a64f34eb11 --unpack "${db_root}" \
        "${base_url}/main.tar.gz" "${download_dir}/main.tar.gz"
fi
exec python3 local/prepare.py --db_root "${db_root}" "${rest[@]}"
