"""Stage 4: token ids of all layers from one forward pass of the frozen encoder; exactly one for each frame.

Writes OUT/shards/layerN.JOB.{ark,scp}; `distilmos merge-archives OUT` joins the shards.
"""

from __future__ import annotations

import argparse

from distilmos.commands.options import add_encoder_options, add_job_options
from distilmos.tokens.labels import dump_tokens


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_encoder_options(parser)
    parser.add_argument("--kmeans", required=True, metavar="DIR", help="for example exp/kmeans_hubert_tiny_k200")
    parser.add_argument("--data", required=True, metavar="DIR", help="for example dump/raw/train")
    parser.add_argument("--out", required=True, metavar="DIR", help="for example dump/tokens_hubert_tiny_k200/train")
    add_job_options(parser)


def run(args: argparse.Namespace) -> int:
    """Write one job's share."""
    frames = dump_tokens(
        args.ssl,
        args.kmeans,
        args.data,
        args.out,
        device=args.device,
        batch_seconds=args.batch_seconds,
        job=args.job,
        jobs=args.jobs,
    )
    print(f"{frames} frames")
    return 0
