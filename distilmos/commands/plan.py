"""Estimate time, memory and disk of all stages with short measurements on this machine; runs before stage 2."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from distilmos.commands.options import add_forward_options, positive_int
from distilmos.files import write_json
from distilmos.memory import use_huge_pages
from distilmos.planning.plan import PlanOptions, make_plan
from distilmos.ssl.forward import choose_device
from distilmos.training.config import load_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--config", required=True, metavar="FILE", help="settings, for example conf/distilmos.yaml")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="replace a setting"
    )
    parser.add_argument("--train", required=True, metavar="DIR", help="for example dump/raw/train")
    parser.add_argument("--dev", required=True, metavar="DIR", help="for example dump/raw/dev")
    parser.add_argument("--test", action="append", default=[], metavar="DIR", help="for example dump/raw/test")
    defaults = PlanOptions()
    for name, value, what in (
        ("clusters", defaults.clusters, "K"),
        ("max-frames", defaults.max_frames, "training frames sampled for k-means"),
        ("jobs", defaults.jobs, "parallel jobs of stages 2 to 4, each with one CPU thread or GPU"),
        ("num-threads", defaults.threads, "CPU threads of stages 5 and 6"),
    ):
        parser.add_argument(
            f"--{name}", type=positive_int, default=value, metavar="N", help=f"{what} (default: {value})"
        )
    add_forward_options(parser, defaults.batch_seconds)
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the figures to FILE, in seconds and bytes"
    )


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    use_huge_pages()
    options = PlanOptions(
        clusters=args.clusters,
        max_frames=args.max_frames,
        batch_seconds=args.batch_seconds,
        jobs=args.jobs,
        threads=args.num_threads,
    )
    config = load_config(args.config, args.overrides)
    print("plan: measures this machine; this takes up to some minutes with a large encoder", file=sys.stderr)
    plan = make_plan(config, args.train, args.dev, args.test, options, choose_device(args.device))
    print(plan.as_text())
    if args.json:
        write_json(args.json, [asdict(stage) for stage in plan.stages])
    return 0
