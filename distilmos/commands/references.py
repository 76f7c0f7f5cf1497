"""Stage 7: score what the scores of a model are to be compared with, on the same test sets.

Writes RESULTS/references.json, which `distilmos report` shows below the scores of the model:
  - the mean score of the training set, and the length of the recording;
  - the mean of the other utterances of the condition: what perfect knowledge of the conditions gives;
  - listeners, as far as single ratings are known: how well some of them predict the others;
  - a ridge regression on the best layer of the frozen encoder, fitted to the training set (with --pooled);
  - published models, whose scores `distilmos predict-published` has written (with --published).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from distilmos.commands.options import add_bootstrap_options
from distilmos.errors import InputError
from distilmos.references.write import PooledLayers, write_references
from distilmos.scoring.bootstrap import SAMPLES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--train", type=Path, metavar="DIR", help="training set, dump/raw/train")
    parser.add_argument(
        "--test",
        type=Path,
        nargs=2,
        action="append",
        required=True,
        metavar=("DATA", "RESULTS"),
        help="test set and its directory of results, such as dump/raw/test exp/<tag>/results/test; several times",
    )
    parser.add_argument(
        "--pooled",
        type=Path,
        metavar="DIR",
        help="pooled layers: DIR/NAME has those of the test set with the results .../NAME; needs --train-pooled",
    )
    parser.add_argument("--train-pooled", type=Path, metavar="DIR", help="pooled layers of the training set")
    parser.add_argument(
        "--published", type=Path, metavar="DIR", help="DIR/NAME has scores of published models for the test set NAME"
    )
    add_bootstrap_options(parser, SAMPLES)


def run(args: argparse.Namespace) -> int:
    """Write the references and print what they lack."""
    if (args.pooled is None) != (args.train_pooled is None):
        raise InputError("--pooled and --train-pooled belong together; give both")
    if args.pooled and not args.train:
        raise InputError("--pooled needs --train")
    pooled = PooledLayers(args.train_pooled, args.pooled) if args.pooled else None
    for line in write_references(args.train, args.test, pooled, args.published, args.samples, args.seed):
        print(line)
    return 0
