# shellcheck shell=bash
# The environment of every recipe, sourced in the recipe's directory: the active virtual environment, else tools/venv.
# Sorting is always that of the C locale.

export LC_ALL=C
if [ -z "${VIRTUAL_ENV-}" ] && [ -x ../../tools/venv/bin/distilmos ]; then
    PATH="$(cd ../../tools/venv/bin && pwd):${PATH}"
    export PATH
fi
if ! command -v distilmos >/dev/null; then
    echo "path.sh: no distilmos command: run 'make -C tools demo' at the top of the repository first" >&2
    exit 2
fi
