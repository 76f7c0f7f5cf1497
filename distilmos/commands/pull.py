"""Fetch a model from the Hugging Face hub as a model directory.

`distilmos predict --model OWNER/NAME` needs no such copy; this is for machines without access to the internet.
"""

from __future__ import annotations

import argparse

from distilmos.model.package import pull_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("repository", metavar="OWNER/NAME", help="on the hub")
    parser.add_argument("out", metavar="DIR", help="model directory to write")


def run(args: argparse.Namespace) -> int:
    """Fetch it."""
    pull_model(args.repository, args.out)
    print(args.out)
    return 0
