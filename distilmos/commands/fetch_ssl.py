"""Stage 0: make sure that an SSL encoder can be loaded, before anything needs it.

An encoder that is known by name is fetched to $DISTILMOS_CACHE (else ~/.cache/distilmos), one with a hub id to the
cache of the Hugging Face hub ($HF_HOME), once for all recipes; do this where there is access to the internet, for
example not on a compute node. Others must be there.
"""

from __future__ import annotations

import argparse

from distilmos.ssl.known import KNOWN, fetch_known
from distilmos.ssl.load import embedded_names, find_checkpoint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    names = ", ".join([*embedded_names(), *KNOWN])
    parser.add_argument("name", metavar="NAME", help=f"{names}, a hub id, or path of a checkpoint")
    parser.add_argument("--base-url", metavar="URL", help="directory of a mirror, for those known by name")


def run(args: argparse.Namespace) -> int:
    """Fetch it or find it."""
    path = fetch_known(args.name, args.base_url) if args.name in KNOWN else find_checkpoint(args.name)
    print(f"SSL encoder: {path}")
    return 0
