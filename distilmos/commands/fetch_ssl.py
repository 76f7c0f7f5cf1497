"""Stage 0: download an SSL encoder, so that later stages can load it without internet access.

An encoder known by name goes to $DISTILMOS_CACHE (default: ~/.cache/distilmos), one with a hub id to the cache of the
Hugging Face hub ($HF_HOME); all recipes share both. Run this where the internet can be reached, which a compute node
often cannot. A path must exist already.
"""

from __future__ import annotations

import argparse

from distilmos.ssl.features import FEATURES
from distilmos.ssl.known import KNOWN, fetch_known
from distilmos.ssl.load import PADDED, embedded_names, find_checkpoint, load_ssl


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    names = ", ".join([*embedded_names(), *KNOWN, *FEATURES])
    parser.add_argument("name", metavar="NAME", help=f"{names}, a hub id, or the path of a checkpoint")
    parser.add_argument("--base-url", metavar="URL", help="directory of a mirror, for encoders known by name")


def run(args: argparse.Namespace) -> int:
    """Download the encoder, or check that it exists."""
    if args.name in FEATURES:
        print(f"{args.name}: computed from the waveform, nothing to download")
        return 0
    name = args.name.removesuffix(PADDED)
    path = fetch_known(name, args.base_url) if name in KNOWN else find_checkpoint(name)
    if name != args.name:
        load_ssl(args.name)  # refuses the suffix unless the encoder is a Whisper
    print(f"SSL encoder: {path}")
    return 0
