"""Join data directories, for example the training sets of two corpora.

SOURCE is a directory or LABEL=DIR. LABEL names the corpus of the utterances (utt2corpus) and becomes the prefix LABEL-
of systems, listeners, speakers and sentences, so that names of different corpora stay distinct. No audio is copied.
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
    """Join the directories and print the number of utterances."""
    if Path(args.out).exists() and not args.overwrite:
        raise InputError(f"{args.out}: already exists; the output directory comes first (--overwrite replaces it)")
    pairs = [source.partition("=")[::2] if "=" in source else ("", source) for source in args.sources]
    print(f"{args.out}: {combine_data(args.out, pairs)} utterances")
    return 0
