"""Before stage 2: predict time, disk and memory of what follows, by a short measurement on this machine."""

from __future__ import annotations

import argparse

from distilmos.commands.options import positive_int
from distilmos.ssl.forward import choose_device
from distilmos.training.config import load_config
from distilmos.training.plan import make_plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--config", required=True, metavar="FILE", help="settings, for example conf/distilmos.yaml")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="replace one of the settings"
    )
    parser.add_argument("--train", required=True, metavar="DIR", help="for example dump/raw/train")
    parser.add_argument("--dev", required=True, metavar="DIR", help="for example dump/raw/dev")
    parser.add_argument("--test", action="append", default=[], metavar="DIR", help="for example dump/raw/test")
    parser.add_argument("--clusters", type=positive_int, default=200, metavar="K", help="default: 200")
    parser.add_argument("--max-frames", type=positive_int, default=40000, metavar="N", help="default: 40000")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (default: auto)")


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    config = load_config(args.config, args.overrides)
    device = choose_device(args.device)
    print(make_plan(config, args.train, args.dev, args.test, args.clusters, args.max_frames, device))
    return 0
