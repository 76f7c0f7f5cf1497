"""Upload a model directory to the Hugging Face hub.

Log in with `hf auth login`, or set HF_TOKEN. The upload consists of configuration, weights, card (README.md) and, if
the directory has them, model.onnx and calibrations. Anyone who can access the repository loads the model with
`distilmos predict --model OWNER/NAME`.
"""

from __future__ import annotations

import argparse

from distilmos.model.publish import push_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", metavar="DIR", help="model directory, for example exp/<tag>/model")
    parser.add_argument("repository", metavar="OWNER/NAME", help="hub id; created if it does not exist")
    parser.add_argument("--private", action="store_true", help="create the repository as private")


def run(args: argparse.Namespace) -> int:
    """Upload the model."""
    print(push_model(args.model, args.repository, private=args.private))
    return 0
