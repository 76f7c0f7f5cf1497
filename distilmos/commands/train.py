"""Stage 5: fine-tune an SSL encoder to predict MOS, and the token ids of its frozen self.

Writes OUT/config.yaml, log.jsonl, tensorboard/, checkpoints/ and final/, the model directory. Started again after an
interruption, with the same settings and data, it continues from its last checkpoint to the same final weights.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from distilmos.memory import keep_freed_memory
from distilmos.training.config import load_config
from distilmos.training.job import TrainJob, run_training


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--config", required=True, metavar="FILE", help="settings, for example conf/distilmos.yaml")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="replace one of the settings"
    )
    parser.add_argument("--train", required=True, type=Path, metavar="DIR", help="for example dump/raw/train")
    parser.add_argument("--dev", required=True, type=Path, metavar="DIR", help="for example dump/raw/dev")
    parser.add_argument("--train-tokens", type=Path, metavar="DIR", help="tokens of --train; not for model sslmos")
    parser.add_argument("--dev-tokens", type=Path, metavar="DIR", help="tokens of --dev; not for model sslmos")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="for example exp/distilmos")
    parser.add_argument("--seed", type=int, metavar="N", help="replaces the setting `seed`")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (default: auto)")


def run(args: argparse.Namespace) -> int:
    """Train."""
    keep_freed_memory()
    overrides = args.overrides + ([] if args.seed is None else [f"seed={args.seed}"])
    run_training(
        TrainJob(
            config=load_config(args.config, overrides),
            train=args.train,
            dev=args.dev,
            train_tokens=args.train_tokens,
            dev_tokens=args.dev_tokens,
            out=args.out,
            device=args.device,
            command=["distilmos", *sys.argv[1:]],
        )
    )
    return 0
