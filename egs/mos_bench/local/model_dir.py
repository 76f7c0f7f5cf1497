"""Print the directory of a model, given as for `distilmos predict --model`."""

from __future__ import annotations

import sys

from distilmos.errors import run_main
from distilmos.model.directory import find_model

if __name__ == "__main__":
    run_main(lambda: print(find_model(sys.argv[1])))
