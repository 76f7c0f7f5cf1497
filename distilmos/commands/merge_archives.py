"""Join the archives and tables of parallel jobs in DIR/shards into DIR."""

from __future__ import annotations

import argparse

from distilmos.commands.options import positive_int
from distilmos.data.dump import merge_shards


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("directory", metavar="DIR", help="directory with the shards, for example dump/raw/train")
    parser.add_argument("--jobs", type=positive_int, required=True, metavar="NJ", help="number of jobs")


def run(args: argparse.Namespace) -> int:
    """Merge, and print the number of utterances of each archive and table."""
    for name, count in merge_shards(args.directory, args.jobs).items():
        print(f"{args.directory}/{name}: {count} utterances")
    return 0
