"""Stage 5: fine-tune an SSL encoder to predict MOS and the token ids of the original, frozen encoder.

Writes OUT/config.yaml, log.jsonl, tensorboard/, checkpoints/ and the model directory final/. Run the same command again
after an interruption: it continues from the last checkpoint to the same final weights.

Several processes (--nproc, --nnodes) share the recordings of each batch. The result is that of one process, up to
rounding and dropout. torchrun can start the processes too; its exit status is 1 instead of 1, 2 or 75:
  torchrun --nproc-per-node N --no-python distilmos train ...

After SIGTERM or SIGUSR1, training finishes the step, writes a checkpoint and ends, also while a read is stalled. If no
recording arrives for 15 s, training warns; after 45 s it fails and names the file.

exit status:
  0   trained to the end
  1   failed: a loss is not finite, the disk delivers no audio, or another process failed
  2   usage or bad input
  75  stopped by SIGTERM or SIGUSR1; run again to continue (EX_TEMPFAIL of sysexits.h)
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from distilmos.commands.options import add_device_option, positive_int
from distilmos.training.config import load_config
from distilmos.training.inputs import InputPaths
from distilmos.training.job import TrainJob, run_training
from distilmos.training.launch import launch


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--config", required=True, metavar="FILE", help="settings, for example conf/distilmos.yaml")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="replace a setting"
    )
    parser.add_argument("--train", required=True, type=Path, metavar="DIR", help="for example dump/raw/train")
    parser.add_argument("--dev", required=True, type=Path, metavar="DIR", help="for example dump/raw/dev")
    parser.add_argument("--train-tokens", type=Path, metavar="DIR", help="tokens of --train; for model distilmos")
    parser.add_argument("--dev-tokens", type=Path, metavar="DIR", help="tokens of --dev; for model distilmos")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="for example exp/distilmos")
    parser.add_argument("--seed", type=int, metavar="N", help="replaces the setting `seed`")
    add_device_option(parser)
    parser.add_argument(
        "--stage-to-tmpdir",
        action="store_true",
        help="read the audio from a copy in $TMPDIR, which should be on a local disk; removed at the end",
    )
    parser.add_argument(
        "--nproc",
        type=positive_int,
        default=1,
        metavar="N",
        help="processes on this machine, each with its own GPU or, on the CPU, its share of OMP_NUM_THREADS",
    )
    parser.add_argument(
        "--nnodes",
        type=positive_int,
        default=1,
        metavar="M",
        help="number of machines; run this command on each of them, with MASTER_ADDR, MASTER_PORT and NODE_RANK "
        "(or its name in Slurm or PBS) in the environment",
    )


def run(args: argparse.Namespace) -> int:
    """Train, in this process or in several."""
    overrides = args.overrides + ([] if args.seed is None else [f"seed={args.seed}"])
    job = TrainJob(
        config=load_config(args.config, overrides),
        paths=InputPaths(args.train, args.dev, args.train_tokens, args.dev_tokens),
        out=args.out,
        device=args.device,
        stage=args.stage_to_tmpdir,
        command=["distilmos", *sys.argv[1:]],
    )
    if args.nproc * args.nnodes > 1 and "RANK" not in os.environ:
        return launch(args.nproc, args.nnodes, [sys.executable, "-m", "distilmos.cli", *sys.argv[1:]])
    run_training(job)
    return 0
