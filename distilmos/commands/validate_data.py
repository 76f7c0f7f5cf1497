"""Check Kaldi-style data directories; print every fault with file and line.

Exit status 0 if all are valid, 2 otherwise.
"""

from __future__ import annotations

import argparse

from distilmos.data.validate import validate_data_dir
from distilmos.errors import raise_faults


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("directories", nargs="+", metavar="DIR", help="data directory, for example data/train")
    parser.add_argument("--unrated", action="store_true", help="accept a directory without utt2mos (prediction only)")
    parser.add_argument("--pipes", action="store_true", help="accept commands in wav.scp; they do not run")


def run(args: argparse.Namespace) -> int:
    """Validate each directory and report all faults together."""
    faults = [
        fault
        for name in args.directories
        for fault in validate_data_dir(name, rated=not args.unrated, pipes=args.pipes)
    ]
    raise_faults(faults, ", ".join(args.directories))
    print(f"{', '.join(args.directories)}: valid")
    return 0
