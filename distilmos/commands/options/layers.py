"""Options of the commands that run the frozen encoder over a data directory (stages 2 and 4)."""

from __future__ import annotations

import argparse

from distilmos.commands.options import add_forward_options, add_job_options
from distilmos.tokens.forward import BATCH_SECONDS, PRECISIONS, ForwardOptions


def add_layer_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options; `layer_options` reads them."""
    parser.add_argument(
        "--ssl",
        required=True,
        metavar="NAME_OR_FILE",
        help="name, path or hub id of an encoder; mfcc for MFCCs, best_rq for the random projections of BEST-RQ",
    )
    parser.add_argument("--data", required=True, metavar="DIR", help="data directory, for example dump/raw/train")
    parser.add_argument("--out", required=True, metavar="DIR", help="output directory")
    parser.add_argument(
        "--backend",
        choices=("distilmos", "fairseq"),
        default="distilmos",
        help="library that computes the hidden states; fairseq supports SSL models that distilmos does not "
        "(default: distilmos)",
    )
    parser.add_argument(
        "--user-dir", metavar="DIR", help="with --backend fairseq: Python code of a model that is not part of fairseq"
    )
    parser.add_argument(
        "--precision",
        choices=tuple(PRECISIONS),
        default="float32",
        help="precision of the encoder; bfloat16 is faster on hardware that supports it, but changes up to 2 %% of the "
        "tokens (default: float32)",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the transformer (torch.compile), for a large corpus on a GPU; only with --backend distilmos",
    )
    add_forward_options(parser, BATCH_SECONDS)
    add_job_options(parser)


def layer_options(args: argparse.Namespace) -> ForwardOptions:
    """Return the values of the options that `add_layer_options` declares."""
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
