# shellcheck shell=bash
# The environment of every recipe; source this in the recipe's directory. It uses the active virtual environment, else
# tools/venv, else the `distilmos` command on PATH. `distilmos python` runs scripts with that environment's interpreter.

export LC_ALL=C # the order of Kaldi's tables
if [ -z "${VIRTUAL_ENV-}" ] && [ -x ../../tools/venv/bin/distilmos ]; then
    PATH="$(cd ../../tools/venv/bin && pwd):${PATH}"
    export PATH
fi
if ! command -v distilmos >/dev/null; then
    echo "path.sh: no distilmos command: run 'make -C tools demo' at the top of the repository first" >&2
    exit 2
fi
