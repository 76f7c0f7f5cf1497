#!/usr/bin/env bash
# Check a GPU against the CPU of the same machine, in minutes: encoders of all families, tokens (also with torch.compile), a
# run of the size of egs/mini with its resume, gradients of two processes on the GPU (gloo) and of NCCL. Then measure
# throughput and memory of Whisper tiny.en, HuBERT Base and WavLM Large (random weights) at the batch sizes of conf/.
#
#   tools/gpu_check.sh [--wheels DIR] [--device NAME] [--out FILE]
#
# --wheels installs this package from wheels in DIR, for a machine without network; without it the package must be
# installed. --device is the device to check (default: cuda); cpu runs the same checks without a GPU. --out writes the
# results as JSON. exit status: 0 all checks passed; 1 a check failed; 2 the device cannot be used.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
if [ "${1:-}" = --wheels ]; then
    python3 -m pip install --quiet --no-index --find-links "$2" -e "${root}[torch]"
    shift 2
fi
PYTHONPATH="${root}${PYTHONPATH:+:${PYTHONPATH}}" exec python3 "${root}/tools/gpu_check.py" "$@"
