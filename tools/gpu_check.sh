#!/usr/bin/env bash
# Check encoders, a short training run with its resume, and throughput on a GPU, against the CPU of the same machine.
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
