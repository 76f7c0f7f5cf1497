"""Split a data directory into parts, for example train=80 dev=10 test=10.

With --by system, no system is in two parts; likewise speaker and sentence, which need utt2spk and utt2sent.
"""

from __future__ import annotations

import argparse

from distilmos.commands.options import add_seed_option, positive_float
from distilmos.data.transform import SPLIT_BY, split_data


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("source", metavar="DATA", help="data directory")
    parser.add_argument("out", metavar="OUT", help="parent of the parts")
    parser.add_argument("parts", metavar="PART=SHARE", nargs="+", type=_part, help="name and share in any unit")
    parser.add_argument("--by", choices=SPLIT_BY, default="utterance", help="what no two parts share (utterance)")
    add_seed_option(parser, "the split")


def _part(text: str) -> tuple[str, float]:
    name, separator, share = text.partition("=")
    if not separator or not name or "/" in name:
        raise argparse.ArgumentTypeError(f"{text!r} is not PART=SHARE")
    return name, positive_float(share)


def run(args: argparse.Namespace) -> int:
    """Split and print the sizes."""
    sizes = split_data(args.out, args.source, dict(args.parts), args.by, args.seed)
    for name, count in sizes.items():
        print(f"{args.out}/{name}: {count} utterances")
    return 0
