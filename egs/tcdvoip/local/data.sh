#!/usr/bin/env bash
# Stage 0: makes Kaldi-style data directories from TCD-VoIP. Run it in the recipe's directory; --help lists the options.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR/..
. ./path.sh

exec distilmos python local/prepare.py "$@"
