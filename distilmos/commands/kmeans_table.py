"""Stage 3: collect the k-means statistics of all layers in quality.md and quality.json."""

from __future__ import annotations

import argparse

from distilmos.tokens.kmeans import write_quality_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("kmeans", metavar="DIR", help="k-means directory, for example exp/kmeans_hubert_tiny_k200")


def run(args: argparse.Namespace) -> int:
    """Write and print the table."""
    print(write_quality_table(args.kmeans), end="")
    return 0
