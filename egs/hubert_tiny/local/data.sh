#!/usr/bin/env bash
# Stage 0: data directories train and valid of plain speech: LibriSpeech, fetched, or the recordings below --data_dir.
# Run in the recipe's directory.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR/..
. ./path.sh
# shellcheck source-path=SCRIPTDIR/..
. ../TEMPLATE/options.sh

# Options
datadir=data            # where to write
data_dir=               # directory of recordings, with what is below it; if empty, LibriSpeech is downloaded
download_dir=downloads  # where to
base_url=https://www.openslr.org/resources/12  # of train-clean-100.tar.gz: OpenSLR, or a mirror
allow_partial=false     # true leaves out unreadable recordings, and lists them
# End of options
take_all_options "$0" "$@"

if [ -z "${data_dir}" ]; then
    data_dir=${download_dir}/train-clean-100
    distilmos download --md5 2a93770f6d5c6c964bc36631d331a522 --unpack "${data_dir}" \
        "${base_url}/train-clean-100.tar.gz" "${download_dir}/train-clean-100.tar.gz"
fi
exec python3 local/prepare.py --db_root "${data_dir}" --datadir "${datadir}" --allow_partial "${allow_partial}"
