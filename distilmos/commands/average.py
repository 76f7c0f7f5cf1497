"""Average the weights of models that were trained from the same one with other seeds or parts of the data.

Writes a model directory. The statistics of its batch norms are those of --data, recordings that they were trained on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from distilmos.commands.options import add_forward_options, add_seed_option
from distilmos.training.average import AverageJob, average_models
from distilmos.training.config import TrainConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("models", nargs="+", metavar="MODEL", help="model directory, such as exp/distilmos_seed1/final")
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="for example dump/raw/train")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="model directory to write")
    add_seed_option(parser, "the order of --data")
    add_forward_options(parser, TrainConfig.model_fields["batch_seconds"].default)


def run(args: argparse.Namespace) -> int:
    """Average and say what was written."""
    average_models(AverageJob(args.models, args.data, args.out, args.device, args.batch_seconds, args.seed))
    print(f"{args.out}: the mean of {len(args.models)} models")
    return 0
