#!/usr/bin/env bash
# Stage 0: data directories train and valid of plain speech: LibriSpeech, fetched, or the recordings below --data_dir.
# Run in the recipe's directory.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR/..
. ./path.sh
# shellcheck source-path=SCRIPTDIR/..
. ../TEMPLATE/options.sh
# shellcheck source-path=SCRIPTDIR/..
. ../TEMPLATE/speech.sh

# Options
datadir=data            # where to write
data_dir=               # directory of recordings, with what is below it; if empty, LibriSpeech is downloaded
download_dir=downloads  # where to
base_url=https://www.openslr.org/resources/12  # of train-clean-100.tar.gz: OpenSLR, or a mirror
allow_partial=false     # true leaves out unreadable recordings, and lists them
# End of options
take_all_options "$0" "$@"

find_speech "${data_dir}" "${download_dir}" "${base_url}"
exec distilmos python local/prepare.py --db_root "${speech}" --datadir "${datadir}" --allow_partial "${allow_partial}"
