"""Compare several models and seeds on one page: all scores, means and deviations, paired bootstraps.

The runs are EXPDIR/MODEL_seedN, as egs/TEMPLATE/sweep.sh names them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from distilmos.files import write_text
from distilmos.report.sweep import dev_page, sweep_page


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("expdir", type=Path, metavar="EXPDIR", help="for example exp")
    parser.add_argument(
        "--models", nargs="+", required=True, metavar="MODEL", help="the first is compared with the others"
    )
    parser.add_argument("--seeds", nargs="+", required=True, metavar="N", help="of each model")
    parser.add_argument("--dev", action="store_true", help="show only the dev set; the runs need no scores")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the page, in Markdown")


def run(args: argparse.Namespace) -> int:
    """Write and print the page."""
    page = (dev_page if args.dev else sweep_page)(args.expdir, args.models, args.seeds)
    write_text(args.out, page)
    print(page)
    return 0
