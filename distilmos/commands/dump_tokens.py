"""Stage 4: token ids of all layers from one forward pass of the frozen encoder; exactly one for each frame.

Writes OUT/shards/layerN.JOB.{ark,scp}; `distilmos merge-archives OUT` joins the shards.
"""

from __future__ import annotations

import argparse

from distilmos.commands.options.layers import add_layer_options, layer_options
from distilmos.memory import use_huge_pages
from distilmos.tokens.labels import dump_tokens


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_layer_options(parser)
    parser.add_argument("--kmeans", required=True, metavar="DIR", help="for example exp/kmeans_hubert_tiny_k200")


def run(args: argparse.Namespace) -> int:
    """Write one job's share."""
    use_huge_pages()
    print(f"{dump_tokens(layer_options(args), args.kmeans)} frames")
    return 0
