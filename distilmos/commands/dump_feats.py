"""Stage 2: run the frozen encoder once over the training set and keep sampled frames of every layer.

Writes OUT/shards/layerN.JOB.{ark,scp}; `distilmos merge-archives OUT` joins the shards.
"""

from __future__ import annotations

import argparse

from distilmos.commands.options import add_encoder_options, add_job_options
from distilmos.tokens.features import dump_features


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_encoder_options(parser)
    parser.add_argument("--data", required=True, metavar="DIR", help="for example dump/raw/train")
    parser.add_argument("--out", required=True, metavar="DIR", help="for example dump/feats")
    parser.add_argument(
        "--max-frames", type=int, default=40000, help="frames of each layer that all jobs keep (default: 40000)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the sampling (default: 1)")
    add_job_options(parser)


def run(args: argparse.Namespace) -> int:
    """Write one job's share."""
    frames = dump_features(
        args.ssl,
        args.data,
        args.out,
        max_frames=args.max_frames,
        seed=args.seed,
        device=args.device,
        batch_seconds=args.batch_seconds,
        job=args.job,
        jobs=args.jobs,
    )
    print(f"{frames} frames of each layer")
    return 0
