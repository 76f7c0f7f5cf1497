"""Write a part of a data directory: the utterances or systems of a list, or some drawn at random."""

from __future__ import annotations

import argparse

from distilmos.commands.options import add_seed_option, positive_int
from distilmos.data.transform import drawn, listed, subset_data


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("source", metavar="DATA", help="data directory")
    parser.add_argument("out", metavar="OUT", help="data directory to write")
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--utt-list", metavar="FILE", help="utterance ids, one a line")
    choice.add_argument("--sys-list", metavar="FILE", help="systems, one a line")
    choice.add_argument("--count", type=positive_int, metavar="N", help="utterances, drawn at random")
    add_seed_option(parser, "the draw")


def run(args: argparse.Namespace) -> int:
    """Choose and write."""
    if args.count is not None:
        wanted = drawn(args.count, args.seed)
    else:
        wanted = listed(args.utt_list or args.sys_list, "utt2sys" if args.sys_list else None)
    print(f"{args.out}: {subset_data(args.out, args.source, wanted)} utterances")
    return 0
