#!/usr/bin/env bash
# BVCC, the main track of the VoiceMOS Challenge 2022: text-to-speech and voice conversion. The test sets of other
# recipes, if prepared, are scored out of domain.
set -euo pipefail
cd "$(dirname "$0")"

../TEMPLATE/distilmos.sh \
    --nj 4 \
    --test_sets "test somos/test nisqa/nisqa_for nisqa/nisqa_p501 nisqa/nisqa_livetalk hablamos/hablamos ttsds2/ttsds2" \
    --published published.tsv \
    "$@"
