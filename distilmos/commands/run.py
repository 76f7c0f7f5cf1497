"""Run a command, or an array of commands, each with a log: the interface of Kaldi's run.pl, queue.pl and slurm.pl.

JOB in LOG and in the arguments of COMMAND is replaced by the number of the job where it is a word (`x.JOB.log`, but not
`JOBS` or `JOB_ID`). If a path has this word, use another name: N_=1:n. COMMAND gets its arguments otherwise unchanged,
without a shell. Its output goes to LOG, with the host, times, peak memory and exit status. If a job fails, the others
still run; then the command fails and shows the end of each failed job's log.

With --backend slurm, sge or pbs the jobs run on that scheduler, with the settings of the site in --config. Ctrl-C
cancels them. If this command dies otherwise, start it again: it finds its jobs.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from distilmos.commands.options import non_negative_int, positive_int
from distilmos.errors import InputError
from distilmos.runner.conf import read_conf
from distilmos.runner.jobs import Array, Job, parse_array, raise_failures
from distilmos.runner.local import default_parallelism, run_jobs
from distilmos.runner.process import StoppedError
from distilmos.runner.queue import Queue, Resources
from distilmos.runner.resume import take_up
from distilmos.runner.schedulers import BACKENDS
from distilmos.runner.state import LOCAL

# The format that all schedulers read alike: a plain number is minutes for one and seconds for another.
TIME = re.compile(r"\d+:[0-5]\d:[0-5]\d")
MEMORY = re.compile(r"\d+(\.\d+)?[KMGT]?")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.usage = "distilmos run [options] [JOB=1:n] LOG COMMAND..."
    # An option of COMMAND must not match an abbreviation of an option here.
    parser.allow_abbrev = False
    parser.add_argument("--backend", choices=[LOCAL, *BACKENDS], default=LOCAL, help="where to run (default: local)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings of the site (default: conf/BACKEND.conf)")
    parser.add_argument(
        "--num-threads", type=positive_int, default=1, metavar="N", help="CPU threads of a job (default: 1)"
    )
    parser.add_argument(
        "--max-jobs-run",
        type=positive_int,
        metavar="N",
        help="limit of jobs that run at a time (default: by the number of cores, or the scheduler)",
    )
    parser.add_argument("--mem", metavar="4G", help="memory of a job; schedulers only")
    parser.add_argument("--time", metavar="H:MM:SS", help="time limit of a job; schedulers only")
    parser.add_argument("--gpu", type=non_negative_int, metavar="N", help="GPUs reserved for a job")
    parser.add_argument(
        "--num-nodes",
        type=positive_int,
        default=1,
        metavar="N",
        help="nodes of a job; COMMAND starts on each, with MASTER_ADDR, MASTER_PORT and DISTILMOS_NODES; slurm only",
    )
    parser.add_argument(
        "--retry", type=non_negative_int, default=0, metavar="N", help="run failed jobs again, up to N times"
    )
    parser.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Run the jobs."""
    for option, pattern in (("time", TIME), ("mem", MEMORY)):
        value = getattr(args, option)
        if value is not None and not pattern.fullmatch(value):
            raise InputError(f"--{option} {value}: expected {'H:MM:SS' if option == 'time' else 'such as 4G or 500M'}")
    array = parse_array(args.words)
    try:
        if args.backend == LOCAL:
            raise_failures(array.jobs, _run_locally(array, args))
        else:
            raise_failures(array.jobs, *_queue(array, args).run())
    except StoppedError as stopped:
        return 128 + stopped.signal
    return 0


def _run_locally(array: Array, args: argparse.Namespace) -> list[Job]:
    if args.num_nodes > 1:
        raise InputError(f"--num-nodes {args.num_nodes}: the local backend has one node; use --backend slurm")
    parallel = args.max_jobs_run or default_parallelism(args.num_threads)
    jobs, ended = take_up(array)
    for _ in range(args.retry + 1):
        jobs = run_jobs(jobs, args.num_threads, parallel, args.gpu or 0, ended)
    return jobs


def _queue(array: Array, args: argparse.Namespace) -> Queue:
    options = {"num_threads": str(args.num_threads)}
    given = {"mem": args.mem, "time": args.time, "gpu": args.gpu, "num_nodes": args.num_nodes}
    options |= {name: str(value) for name, value in given.items() if value is not None}
    if args.num_nodes == 1:
        del options["num_nodes"]  # only some backends have this option
    conf = read_conf(args.config or Path("conf") / f"{args.backend}.conf")
    resources = Resources(options, args.num_threads, args.num_nodes, args.max_jobs_run, args.retry)
    return Queue(array, args.backend, conf, resources)
