#!/usr/bin/env bash
# Stage 0: downloads BVCC, unless --db_root names a copy, and writes data directories. Run this in the recipe's
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
base_url=https://zenodo.org/records/6572573/files  # of main.tar.gz and ood.tar.gz: Zenodo, or a mirror
track=main              # main, or ood: the out-of-domain track; see run_ood.sh
silent=drop             # drop or keep the silent utterance of the training set
system_truth="split"    # true MOS of a system: split (mean of its utterances in the set) or corpus (mydata_system.csv)
allow_partial=false     # true prepares an incomplete corpus, and lists the missing parts
# End of options
take_all_options "$0" "$@"

case ${track} in
    main) ;;
    ood)
        if [ -z "${db_root}" ]; then
            db_root=${download_dir}/bvcc_ood
            distilmos download --unpack "${db_root}" "${base_url}/ood.tar.gz" "${download_dir}/ood.tar.gz"
        fi
        exec distilmos python local/ood.py --db_root "${db_root}" --datadir "${datadir}" --allow_partial "${allow_partial}"
        ;;
    *) usage_error "$0" "--track must be main or ood, not '${track}'" ;;
esac
if [ -z "${db_root}" ]; then
    db_root=${download_dir}/bvcc
    distilmos download --md5 fc880c2a208c3285a47bd9a64f34eb11 --unpack "${db_root}" \
        "${base_url}/main.tar.gz" "${download_dir}/main.tar.gz"
fi
exec distilmos python local/prepare.py --db_root "${db_root}" --datadir "${datadir}" --allow_partial "${allow_partial}" \
    --silent "${silent}" --system_truth "${system_truth}"
