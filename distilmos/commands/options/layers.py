"""Options of the commands that run the frozen encoder over a data directory."""

from __future__ import annotations

import argparse

from distilmos.commands.options import add_forward_options, add_job_options
from distilmos.tokens.forward import BATCH_SECONDS, PRECISIONS, ForwardOptions


def add_layer_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of a forward pass over a data directory; `layer_options` reads them."""
    parser.add_argument(
        "--ssl", required=True, metavar="NAME_OR_FILE", help="name, path or hub id of an encoder, or mfcc for MFCC"
    )
    parser.add_argument("--data", required=True, metavar="DIR", help="for example dump/raw/train")
    parser.add_argument("--out", required=True, metavar="DIR", help="output directory")
    parser.add_argument(
        "--backend",
        choices=("distilmos", "fairseq"),
        default="distilmos",
        help="what computes hidden states: fairseq's own module takes SSL models that distilmos does not know "
        "(default: distilmos)",
    )
    parser.add_argument(
        "--user-dir", metavar="DIR", help="with --backend fairseq: Python code of a model that is not part of fairseq"
    )
    parser.add_argument(
        "--precision",
        choices=tuple(PRECISIONS),
        default="float32",
        help="of the encoder; bfloat16 is faster on hardware that has it, and 1 to 2 %% of the tokens become others "
        "(default: float32)",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the transformer (torch.compile), for a large corpus on a GPU; with --backend distilmos",
    )
    add_forward_options(parser, BATCH_SECONDS)
    add_job_options(parser)


def layer_options(args: argparse.Namespace) -> ForwardOptions:
    """Return the values of the options of `add_layer_options`."""
    return ForwardOptions(
        ssl=args.ssl,
        data_dir=args.data,
        out_dir=args.out,
        device=args.device,
        batch_seconds=args.batch_seconds,
        job=args.job,
        jobs=args.jobs,
        backend=args.backend,
        user_dir=args.user_dir,
        precision=args.precision,
        compiled=args.compile,
    )
