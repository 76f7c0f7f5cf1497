"""Stage 0: write SUMMARY.md and a histogram into data directories.

Counts, hours, ratings, how well the listeners agree, and what each set shares with the others that are named.
"""

from __future__ import annotations

import argparse

from distilmos.report.card import write_cards


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("directories", nargs="+", metavar="DIR", help="data directories of one corpus")


def run(args: argparse.Namespace) -> int:
    """Write the cards and print where they are."""
    for path in write_cards(args.directories):
        print(path)
    return 0
