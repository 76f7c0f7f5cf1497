"""Stage 6 with --references true: score a data directory with a published model that never saw the corpus.

The extra `references` installs the packages of the models: pip install 'distilmos[references]'
"""

from __future__ import annotations

import argparse

from distilmos.references.published import MODELS, predict_published


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    titles = "; ".join(f"{name}: {model.title}" for name, model in MODELS.items())
    parser.add_argument("--model", choices=tuple(MODELS), required=True, help=titles)
    parser.add_argument("--data", required=True, metavar="DATA", help="data directory, for example dump/raw/test")
    parser.add_argument("--out", required=True, metavar="FILE", help="table of scores to write")


def run(args: argparse.Namespace) -> int:
    """Score the recordings."""
    predict_published(args.model, args.data, args.out)
    return 0
