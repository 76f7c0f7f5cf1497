"""Run a command, or an array of commands, with a log each: the interface of Kaldi's run.pl.

JOB is replaced by the number of the job in LOG and in every argument of COMMAND. COMMAND gets its arguments exactly as
given, no shell is in between; its output goes to LOG, with the time, peak memory and exit status.
All jobs of an array are run; then those that failed are named with the last lines of their logs.
"""

from __future__ import annotations

import argparse

from distilmos.commands.options import positive_int
from distilmos.runner.jobs import parse_array, raise_failures
from distilmos.runner.local import default_parallelism, run_jobs
from distilmos.runner.process import StoppedError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.usage = "distilmos run [--num-threads N] [--max-jobs-run N] [JOB=1:n] LOG COMMAND..."
    # An option of COMMAND must never be taken for an abbreviation of ours.
    parser.allow_abbrev = False
    parser.add_argument(
        "--num-threads", type=positive_int, default=1, metavar="N", help="CPU threads of a job (default: 1)"
    )
    parser.add_argument(
        "--max-jobs-run", type=positive_int, metavar="N", help="jobs at a time (default: as many as the cores hold)"
    )
    parser.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Run the jobs."""
    jobs = parse_array(args.words).jobs
    try:
        failed = run_jobs(jobs, args.num_threads, args.max_jobs_run or default_parallelism(args.num_threads))
    except StoppedError as stopped:
        return 128 + stopped.signal
    raise_failures(jobs, failed)
    return 0
