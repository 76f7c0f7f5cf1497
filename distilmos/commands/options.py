"""Options that several subcommands share."""

from __future__ import annotations

import argparse


def add_job_options(parser: argparse.ArgumentParser) -> None:
    """Declare --job and --jobs, the share of an array job."""
    parser.add_argument("--job", type=int, default=1, metavar="J", help="number of this job, 1..NJ (default: 1)")
    parser.add_argument("--jobs", type=int, default=1, metavar="NJ", help="number of parallel jobs (default: 1)")
