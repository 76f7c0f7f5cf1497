"""Split a data directory into parts, for example train=80 dev=10 test=10.

With --by system, no system is in two parts; --by speaker needs utt2spk, --by sentence needs utt2sent.
"""

from __future__ import annotations

import argparse

from distilmos.commands.options import add_seed_option, pair, positive_float
from distilmos.data.transform import SPLIT_BY, split_data
from distilmos.errors import InputError
from distilmos.metrics import few_systems


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("source", metavar="DATA", help="data directory")
    parser.add_argument("out", metavar="OUT", help="parent of the parts")
    parser.add_argument("parts", metavar="PART=SHARE", nargs="+", type=_part, help="name and share (any unit)")
    parser.add_argument(
        "--by", choices=SPLIT_BY, default="utterance", help="no two parts share one (default: utterance)"
    )
    add_seed_option(parser, "the split")


def _part(text: str) -> tuple[str, float]:
    name, share = pair("PART=SHARE")(text)
    if "/" in name:
        raise argparse.ArgumentTypeError(f"{text!r}: a part cannot have a / in its name")
    return name, positive_float(share)


def run(args: argparse.Namespace) -> int:
    """Split, and print the size of each part."""
    shares = dict(args.parts)
    if len(shares) < len(args.parts):
        raise InputError(f"a part occurs twice: {' '.join(name for name, _ in args.parts)}")
    sizes = split_data(args.out, args.source, shares, args.by, args.seed)
    for name, (utterances, systems) in sizes.items():
        print(f"{args.out}/{name}: {utterances} utterances, {systems} systems")
        if caution := few_systems(systems):
            print(f"warning: {args.out}/{name}: {caution}")
    return 0
