#!/usr/bin/env bash
# Stage 0: degrades plain speech (downloaded LibriSpeech, or the recordings below --data_dir) and simulates its ratings.
# Run this in the recipe's directory.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR/..
. ./path.sh
# shellcheck source-path=SCRIPTDIR/..
. ../TEMPLATE/options.sh
# shellcheck source-path=SCRIPTDIR/..
. ../TEMPLATE/speech.sh

# Options
datadir=data            # data directories to write
data_dir=               # directory of recordings, searched recursively; if empty, stage 0 downloads LibriSpeech
download_dir=downloads  # directory of the download
base_url=https://www.openslr.org/resources/12  # of train-clean-100.tar.gz: OpenSLR, or a mirror
allow_partial=false     # true skips unreadable recordings, and lists them
copies=1                # times that each recording is degraded, each time in another way
wide=false              # true: more degradations, and ratings by Distill-MOS, too (needs ffmpeg and distilmos[references])
degrade_jobs=2          # parallel processes
# End of options
take_all_options "$0" "$@"

find_speech "${data_dir}" "${download_dir}" "${base_url}"
exec distilmos python local/prepare.py --db_root "${speech}" --datadir "${datadir}" --allow_partial "${allow_partial}" \
    --copies "${copies}" --wide "${wide}" --jobs "${degrade_jobs}"
