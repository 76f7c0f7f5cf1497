"""Repair data directories as far as it can be done without guessing, and say what was changed.

Sorts; drops malformed and repeated lines, and utterances without audio, system or score; adds durations. The tables as
they were are kept in DIR/.backup.
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
