#!/usr/bin/env bash
# Stage 0: downloads speechocean762, unless --db_root names a copy, and writes data directories. Run this in the
# recipe's directory.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR/..
. ./path.sh
# shellcheck source-path=SCRIPTDIR/..
. ../TEMPLATE/options.sh

# Options
datadir=data            # data directories to write
db_root=                # the unpacked corpus; if empty, stage 0 downloads it
download_dir=downloads  # directory of the download
base_url=https://www.openslr.org/resources/101  # of speechocean762.tar.gz: OpenSLR, or a mirror
aspect=fluency          # aspect of utt2mos and ratings: fluency, prosodic or accuracy
dev_seed=1              # seed of the choice of the dev speakers
train_group=all         # speakers of train and dev: all, adult or child
train_utterances=0      # number of utterances of train, drawn with dev_seed; 0: all
allow_partial=false     # true prepares an incomplete corpus, and lists the missing parts
# End of options
take_all_options "$0" "$@"

if [ -z "${db_root}" ]; then
    distilmos download --unpack "${download_dir}/speechocean762" \
        "${base_url}/speechocean762.tar.gz" "${download_dir}/speechocean762.tar.gz"
    db_root=${download_dir}/speechocean762/speechocean762
fi
exec distilmos python local/prepare.py --db_root "${db_root}" --datadir "${datadir}" --allow_partial "${allow_partial}" \
    --aspect "${aspect}" --dev_seed "${dev_seed}" --train_group "${train_group}" --train_utterances "${train_utterances}"
