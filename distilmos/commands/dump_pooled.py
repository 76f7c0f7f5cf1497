"""Stage 4: run the frozen encoder over a data directory and store the mean and deviation over time of every layer.

Writes OUT/shards/pooled.JOB.{ark,scp}; `distilmos merge-archives OUT` joins the shards. dump-tokens stores the same for
its data. `distilmos references` fits a ridge regression to them.
"""

from __future__ import annotations

import argparse

from distilmos.commands.options.layers import add_layer_options, layer_options
from distilmos.memory import use_huge_pages
from distilmos.tokens.pooled import dump_pooled


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_layer_options(parser)


def run(args: argparse.Namespace) -> int:
    """Write the share of one job."""
    use_huge_pages()
    print(f"{dump_pooled(layer_options(args))} utterances")
    return 0
