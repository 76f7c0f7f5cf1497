#!/usr/bin/env bash
# SOMOS: one voice, synthesised by 200 systems of neural text-to-speech. The test sets of other recipes, if prepared,
# are scored out of domain.
set -euo pipefail
cd "$(dirname "$0")"

../TEMPLATE/distilmos.sh \
    --nj 4 \
    --test_sets "test bvcc/test nisqa/nisqa_for nisqa/nisqa_p501 nisqa/nisqa_livetalk hablamos/hablamos ttsds2/ttsds2" \
    "$@"
