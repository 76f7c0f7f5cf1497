"""Put a model directory on the Hugging Face hub.

`hf auth login`, or the token in HF_TOKEN, says who you are. What goes there is the configuration, the weights and the
card (README.md); whoever has access loads it with `distilmos predict --model OWNER/NAME`.
"""

from __future__ import annotations

import argparse

from distilmos.model.package import push_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", metavar="DIR", help="model directory, for example exp/<tag>/model")
    parser.add_argument("repository", metavar="OWNER/NAME", help="is made if it does not exist")
    parser.add_argument("--private", action="store_true", help="a repository that is made is not public")


def run(args: argparse.Namespace) -> int:
    """Upload it."""
    print(push_model(args.model, args.repository, private=args.private))
    return 0
