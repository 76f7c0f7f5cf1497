#!/usr/bin/env bash
# Stage 0: fetches SOMOS unless --db_root says where it is, and writes data directories. Run in the recipe's directory.
# Other options than these are those of local/prepare.py.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR/..
. ./path.sh
# shellcheck source-path=SCRIPTDIR/..
. ../TEMPLATE/options.sh

# Options
db_root=                                               # unpacked somos.zip; if empty, it is downloaded
download_dir=downloads                                 # where to
base_url=https://zenodo.org/records/7378801/files      # Zenodo, or a mirror
# End of options
take_options "$0" "$@"

if [ -z "${db_root}" ]; then
    db_root=${download_dir}/somos
    distilmos download --size 3971669902 --md5 bdfde4cae256549dfab05d713136e4af \
        --unpack "${db_root}" --nested audios.zip "${base_url}/somos.zip" "${download_dir}/somos.zip"
fi
exec python3 local/prepare.py --db_root "${db_root}" "${rest[@]}"
