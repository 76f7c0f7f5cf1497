#!/usr/bin/env bash
# Stage 0: fetches the NISQA corpus unless --db_root says where it is, and writes data directories. Run in the recipe's directory.
# Other options than these are those of local/prepare.py.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR/..
. ./path.sh
# shellcheck source-path=SCRIPTDIR/..
. ../TEMPLATE/options.sh

# Options
db_root=                 # unpacked NISQA_Corpus.zip; if empty, it is downloaded
download_dir=downloads   # where to
base_url=https://depositonce.tu-berlin.de/bitstream/11303/13012.5/9  # the corpus' own place, or a mirror
# End of options
take_options "$0" "$@"

if [ -z "${db_root}" ]; then
    distilmos download --unpack "${download_dir}/nisqa" "${base_url}/NISQA_Corpus.zip" "${download_dir}/NISQA_Corpus.zip"
    db_root=${download_dir}/nisqa/NISQA_Corpus
fi
exec python3 local/prepare.py --db_root "${db_root}" "${rest[@]}"
