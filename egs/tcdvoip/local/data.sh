#!/usr/bin/env bash
# Stage 0: TCD-VoIP to Kaldi-style data directories. Run in the recipe's directory; --help lists the options.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR/..
. ./path.sh

exec distilmos python local/prepare.py "$@"
