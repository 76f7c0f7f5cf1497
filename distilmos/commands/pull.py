"""Download a model from the Hugging Face hub to a model directory.

Only a machine without internet access needs this: `distilmos predict --model OWNER/NAME` downloads the model itself.
"""

from __future__ import annotations

import argparse

from distilmos.model.publish import pull_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("repository", metavar="OWNER/NAME", help="hub id of the model")
    parser.add_argument("out", metavar="DIR", help="model directory to write")


def run(args: argparse.Namespace) -> int:
    """Download the model."""
    pull_model(args.repository, args.out)
    print(args.out)
    return 0
