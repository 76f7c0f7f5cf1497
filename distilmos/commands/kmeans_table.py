"""Stage 3: gather the statistics of all layers into one table, quality.md and quality.json."""

from __future__ import annotations

import argparse

from distilmos.tokens.kmeans import write_quality_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("kmeans", metavar="DIR", help="for example exp/kmeans_hubert_tiny_k200")


def run(args: argparse.Namespace) -> int:
    """Write and print the table."""
    print(write_quality_table(args.kmeans), end="")
    return 0
