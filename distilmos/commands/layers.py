"""Options of the commands that run the frozen encoder over a data directory."""

from __future__ import annotations

import argparse

from distilmos.commands.options import add_forward_options, add_job_options
from distilmos.tokens.forward import ForwardOptions


def add_layer_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of a forward pass over a data directory; `layer_options` reads them."""
    parser.add_argument("--ssl", required=True, metavar="NAME_OR_FILE", help="hubert_tiny, or a fairseq HuBERT .pt")
    parser.add_argument("--data", required=True, metavar="DIR", help="for example dump/raw/train")
    parser.add_argument("--out", required=True, metavar="DIR", help="output directory")
    add_forward_options(parser)
    add_job_options(parser)


def layer_options(args: argparse.Namespace) -> ForwardOptions:
    """Return the values of the options of `add_layer_options`."""
    return ForwardOptions(args.ssl, args.data, args.out, args.device, args.batch_seconds, args.job, args.jobs)
