"""Join data directories, for example the training sets of two corpora.

SOURCE is a directory, or LABEL=DIR: then the utterances are marked as of the corpus LABEL (utt2corpus), and the names
of its systems, listeners, speakers and sentences begin with LABEL-, so that they meet no others. No audio is copied.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from distilmos.data.transform import combine_data
from distilmos.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("out", metavar="OUT", help="data directory to write")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    parser.add_argument("sources", metavar="SOURCE", nargs="+", help="DIR or LABEL=DIR")


def run(args: argparse.Namespace) -> int:
    """Join."""
    if Path(args.out).exists() and not args.overwrite:
        raise InputError(f"{args.out}: exists already; it is the directory to write (--overwrite replaces it)")
    pairs = [source.rpartition("=")[::2] for source in args.sources]
    print(f"{args.out}: {combine_data(args.out, pairs)} utterances")
    return 0
