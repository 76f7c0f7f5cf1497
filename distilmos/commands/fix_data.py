"""Repair data directories without guessing missing values, and list the changes.

Sorts the tables; drops malformed and repeated lines, and utterances without audio, system or score; adds durations;
recomputes scores of utterances that lost ratings. Keeps the old tables in DIR/.backup.
"""

from __future__ import annotations

import argparse

from distilmos.data.fix import fix_data


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("directories", nargs="+", metavar="DIR", help="data directory, for example data/train")


def run(args: argparse.Namespace) -> int:
    """Repair each directory."""
    for name in args.directories:
        changes = fix_data(name)
        print("\n".join(changes) if changes else f"{name}: nothing to repair")
    return 0
