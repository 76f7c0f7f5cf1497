"""Write a subset of a data directory: listed utterances, listed systems, or a random draw."""

from __future__ import annotations

import argparse

from distilmos.commands.options import add_seed_option, positive_int
from distilmos.data.transform import drawn, listed, subset_data


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("source", metavar="DATA", help="data directory")
    parser.add_argument("out", metavar="OUT", help="data directory to write")
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--utt-list", metavar="FILE", help="utterance ids, one per line")
    choice.add_argument("--sys-list", metavar="FILE", help="systems, one per line")
    choice.add_argument("--count", type=positive_int, metavar="N", help="number of utterances to draw at random")
    add_seed_option(parser, "the draw")


def run(args: argparse.Namespace) -> int:
    """Select and write the utterances; print their number."""
    if args.count is not None:
        wanted = drawn(args.count, args.seed)
    else:
        wanted = listed(args.utt_list or args.sys_list, "utt2sys" if args.sys_list else None)
    print(f"{args.out}: {subset_data(args.out, args.source, wanted)} utterances")
    return 0
