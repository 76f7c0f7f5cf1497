"""Stage 2: run the frozen encoder once over the training set and store sampled frames of every layer.

Writes OUT/shards/layerN.JOB.{ark,scp}; `distilmos merge-archives OUT` joins the shards.
"""

from __future__ import annotations

import argparse

from distilmos.commands.options import add_seed_option, positive_int
from distilmos.commands.options.layers import add_layer_options, layer_options
from distilmos.memory import use_huge_pages
from distilmos.tokens.features import MAX_FRAMES, dump_features


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_layer_options(parser)
    parser.add_argument(
        "--max-frames",
        type=positive_int,
        default=MAX_FRAMES,
        metavar="N",
        help=f"frames stored per layer, over all jobs (default: {MAX_FRAMES})",
    )
    add_seed_option(parser, "the sampling")


def run(args: argparse.Namespace) -> int:
    """Write the share of one job."""
    use_huge_pages()
    print(f"{dump_features(layer_options(args), args.max_frames, args.seed)} frames of each layer")
    return 0
