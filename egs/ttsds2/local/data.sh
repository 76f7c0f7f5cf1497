#!/usr/bin/env bash
# Stage 0: fetches TTSDS2 unless --db_root says where it is, and writes data directories. Run in the recipe's directory.
# Other options than these are those of local/prepare.py.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR/..
. ./path.sh
# shellcheck source-path=SCRIPTDIR/..
. ../TEMPLATE/options.sh

# Options
db_root=                 # unpacked ttsds2.zip; if empty, it is downloaded
download_dir=downloads   # where to
base_url=https://huggingface.co/datasets/urgent-challenge/urgent26_track2_sqa/resolve/main  # the corpus' own place, or a mirror
# End of options
take_options "$0" "$@"

if [ -z "${db_root}" ]; then
    distilmos download --unpack "${download_dir}/ttsds2" "${base_url}/ttsds2.zip" "${download_dir}/ttsds2.zip"
    db_root=${download_dir}/ttsds2
fi
exec python3 local/prepare.py --db_root "${db_root}" "${rest[@]}"
