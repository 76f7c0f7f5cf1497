"""Stage 0: write SUMMARY.md and a histogram into data directories.

Shows counts, hours, ratings, agreement between listeners, and the overlap of each set with the other given sets. Of
single ratings it shows 95 % intervals of a bootstrap over listeners and utterances, which are also in scores.tsv, and
the listener ceiling: how well listeners predict other listeners.
"""

from __future__ import annotations

import argparse

from distilmos.report.datacard import write_cards


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("directories", nargs="+", metavar="DIR", help="data directories of one corpus")


def run(args: argparse.Namespace) -> int:
    """Write the summaries and print their paths."""
    for path in write_cards(args.directories):
        print(path)
    return 0
