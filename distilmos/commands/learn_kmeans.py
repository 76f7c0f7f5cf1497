"""Stage 3: learn the k-means of one layer from the sampled frames of the training set."""

from __future__ import annotations

import argparse

from distilmos.commands.options import add_seed_option, positive_int
from distilmos.tokens.kmeans import CLUSTERS, learn_kmeans


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--feats", required=True, metavar="DIR", help="features of stage 2, for example dump/feats")
    parser.add_argument("--layer", type=positive_int, required=True, metavar="N", help="encoder layer, counted from 1")
    parser.add_argument(
        "--clusters",
        type=positive_int,
        default=CLUSTERS,
        metavar="K",
        help=f"number of clusters (default: {CLUSTERS})",
    )
    add_seed_option(parser, "the initialisation")
    parser.add_argument(
        "--out",
        required=True,
        metavar="DIR",
        help="k-means directory to write, for example exp/kmeans_hubert_tiny_k200",
    )


def run(args: argparse.Namespace) -> int:
    """Learn the k-means of one layer."""
    quality = learn_kmeans(args.feats, args.layer, args.clusters, args.seed, args.out)
    print(
        f"layer {quality.layer}: {quality.frames} frames, inertia {quality.inertia_per_frame:.4g} per frame, "
        f"{quality.empty} empty and {quality.tiny} tiny clusters, perplexity {quality.perplexity:.1f}"
    )
    return 0
