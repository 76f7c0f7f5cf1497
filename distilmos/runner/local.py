"""Jobs on this machine, several at a time."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from distilmos.devices import cores, gpus
from distilmos.errors import InputError
from distilmos.runner.jobs import Job
from distilmos.runner.log import empty_log
from distilmos.runner.process import Running, StoppedError, handling, signal_group, start, thread_variables

# Time from SIGTERM to SIGKILL when jobs are stopped.
GRACE_SECONDS = 5


def default_parallelism(num_threads: int) -> int:
    """Return the number of jobs with `num_threads` threads that fit on the available cores, at least 1."""
    return max(1, cores() // num_threads)


def run_jobs(
    jobs: list[Job], num_threads: int, max_jobs_run: int, gpu: int = 0, ended: Callable[[Job, int], None] | None = None
) -> list[Job]:
    """Run all jobs, each with its log; the others continue when one fails.

    Must be called in the main thread. It also reaps other children of this process that end meanwhile.

    Args:
        jobs: in the order in which they start.
        num_threads: value of OMP_NUM_THREADS and MKL_NUM_THREADS of each job.
        max_jobs_run: limit of jobs that run at a time.
        gpu: GPUs reserved for each job; 0 reserves none. A machine without GPUs runs the jobs without.
        ended: called with each job that has ended and its exit status.

    Returns:
        the failed jobs, in the order of `jobs`.

    Raises:
        InputError: if a log cannot be written, or the machine has fewer GPUs than a job needs; no job has started then.
        StoppedError: after SIGINT, SIGTERM or SIGHUP; all jobs have ended then.
    """
    free = gpus() if gpu else []
    if free:
        if len(free) < gpu:
            raise InputError(f"--gpu {gpu}: this machine has only {len(free)}")
        max_jobs_run = min(max_jobs_run, len(free) // gpu)
    for job in jobs:
        empty_log(job.log)
    environment = os.environ | thread_variables(num_threads)
    queue = list(reversed(jobs))
    running: dict[int, Running] = {}
    holds: dict[Job, list[str]] = {}
    failed: set[Job] = set()
    with _stopping(running) as stops:
        while running or (queue and not stops):
            while queue and len(running) < max_jobs_run and not stops:
                job = queue.pop()
                holds[job], free = free[:gpu], free[gpu:]
                own = {"CUDA_VISIBLE_DEVICES": ",".join(holds[job])} if holds[job] else {}
                process = start(job, environment | own)
                if process is None:
                    failed.add(job)
                    free += holds[job]
                    continue
                pid = process.process.pid
                running[pid] = process
                if stops:  # the signal came between `start` and the line above and missed this job
                    signal_group(pid, signal.SIGTERM)
            if not running:
                continue
            pid, status, usage = os.wait4(-1, 0)
            over = running.pop(pid, None)
            if over is None:  # a child of a script that started this process with `exec`
                continue
            if stops:
                signal_group(pid, signal.SIGKILL)  # processes that the job has started
            free += holds[over.job]
            exit_status = over.end(status, usage)
            if exit_status != 0:
                failed.add(over.job)
            if ended is not None:
                ended(over.job, exit_status)
    if stops:
        raise StoppedError(stops[0])
    return [job for job in jobs if job in failed]


@contextmanager
def _stopping(running: dict[int, Running]) -> Iterator[list[int]]:
    """End the running jobs when a signal comes; yield the list of received signals.

    The first signal sends SIGTERM to the jobs; a second signal, or GRACE_SECONDS, kills them.
    """
    stops: list[int] = []

    def stop(number: int) -> None:
        kill = bool(stops)
        if number != signal.SIGALRM:
            stops.append(number)
            signal.alarm(GRACE_SECONDS)
        for pid in list(running):
            signal_group(pid, signal.SIGKILL if kill else signal.SIGTERM)

    with handling([signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM], stop):
        try:
            yield stops
        finally:
            signal.alarm(0)
            for pid in running:  # only after an exception in the loop
                signal_group(pid, signal.SIGKILL)
