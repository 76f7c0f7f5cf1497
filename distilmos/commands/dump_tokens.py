"""Stage 4: compute the token ids of all layers in one forward pass of the frozen encoder, one id per frame and layer.

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
    parser.add_argument(
        "--kmeans", required=True, metavar="DIR", help="k-means directory, for example exp/kmeans_hubert_tiny_k200"
    )


def run(args: argparse.Namespace) -> int:
    """Write the share of one job."""
    use_huge_pages()
    print(f"{dump_tokens(layer_options(args), args.kmeans)} frames")
    return 0
