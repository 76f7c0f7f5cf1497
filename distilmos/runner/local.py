"""Jobs on this machine, several at a time."""

from __future__ import annotations

import os
import platform
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType

from distilmos.errors import InputError
from distilmos.runner.jobs import Job

# Time between asking the running jobs to end and killing them.
GRACE_SECONDS = 5
# ru_maxrss is in bytes on macOS and in KiB elsewhere.
MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024
CANNOT_START = 127  # the exit status that a shell gives for a command that is not there


class StoppedError(Exception):
    """A signal stopped the jobs; `signal` is its number."""

    def __init__(self, number: int) -> None:
        """Keep the signal's number."""
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.signal = number


@dataclass(frozen=True)
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    started: float


def default_parallelism(num_threads: int) -> int:
    """Return how many jobs of `num_threads` threads the available cores hold, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // num_threads)


def run_jobs(jobs: list[Job], num_threads: int, max_jobs_run: int) -> list[Job]:
    """Run all jobs, each with its log; a failed job does not keep the others from running.

    Must be called in the main thread; collects any other child of this process that ends meanwhile.

    Args:
        jobs: in the order in which they start.
        num_threads: value of OMP_NUM_THREADS and MKL_NUM_THREADS of each job.
        max_jobs_run: how many may run at a time.

    Returns:
        the jobs that failed, in the order of `jobs`.

    Raises:
        InputError: if a log cannot be written; nothing is started then.
        StoppedError: if SIGINT, SIGTERM or SIGHUP came; all jobs have ended then.
    """
    for job in jobs:
        _empty_log(job.log)
    threads = str(num_threads)
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    queue = list(reversed(jobs))
    running: dict[int, _Running] = {}
    failed: set[Job] = set()
    with _stopping(running) as stops:
        while running or (queue and not stops):
            while queue and len(running) < max_jobs_run and not stops:
                job = queue.pop()
                process = _start(job, environment)
                if process is None:
                    failed.add(job)
                    continue
                running[process.pid] = _Running(job, process, time.monotonic())
                if stops:  # the signal came between the start and the line above, and missed this job
                    _signal_group(process.pid, signal.SIGTERM)
            if not running:
                continue
            pid, status, usage = os.wait4(-1, 0)
            ended = running.pop(pid, None)
            if ended is None:  # a child of the script that became this process with `exec`
                continue
            # Popen must not wait for, or signal, a process id that is no longer its own.
            ended.process.returncode = os.waitstatus_to_exitcode(status)
            if stops:
                _signal_group(pid, signal.SIGKILL)  # what the job itself has started
            exit_status = _shell_status(ended.process.returncode)
            _end_log(ended.job.log, exit_status, time.monotonic() - ended.started, usage.ru_maxrss * MAXRSS_UNIT)
            if exit_status != 0:
                failed.add(ended.job)
    if stops:
        raise StoppedError(stops[0])
    return [job for job in jobs if job in failed]


@contextmanager
def _stopping(running: dict[int, _Running]) -> Iterator[list[int]]:
    """Make signals end the running jobs; gives the list of the signals that have come.

    The first signal asks the jobs to end, a second one or GRACE_SECONDS kill them. The handlers raise nothing, so that
    no moment exists at which a started job could be lost.
    """
    stops: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        kill = bool(stops)
        if number != signal.SIGALRM:
            stops.append(number)
            signal.alarm(GRACE_SECONDS)
        for pid in list(running):
            _signal_group(pid, signal.SIGKILL if kill else signal.SIGTERM)

    # A signal that our caller told us to ignore (nohup, a background job of a script) stays ignored.
    wanted = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM]
    before = {number: signal.getsignal(number) for number in wanted}
    for number in wanted:
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield stops
    finally:
        signal.alarm(0)
        for pid in running:  # only if something unforeseen ended the loop
            _signal_group(pid, signal.SIGKILL)
        for number in wanted:
            signal.signal(number, before[number])


def _empty_log(log: Path) -> None:
    """Prove that the log can be written, and leave no older one in the place of a job that waits."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
    except OSError as error:
        raise InputError(f"{log}: cannot write the log: {error.strerror}") from None


def _start(job: Job, environment: dict[str, str]) -> subprocess.Popen[bytes] | None:
    """Start a job in a process group of its own; None if there is no such command."""
    heading = {
        "Host": platform.node(),
        "Command": shlex.join(job.command),
        "Directory": str(Path.cwd()),
        "Started": _now(),
    }
    lines = "".join(f"# {name} {value}".replace("\n", "\n# ") + "\n" for name, value in heading.items())
    job.log.write_text(lines, encoding="utf-8", errors="surrogateescape")
    # Appending: a job that has several processes overwrites nothing.
    with job.log.open("ab") as log:
        try:
            return subprocess.Popen(
                job.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                process_group=0,
            )
        except (OSError, ValueError) as error:
            log.write(f"cannot start {job.command[0]}: {error}\n".encode(errors="surrogateescape"))
    _end_log(job.log, CANNOT_START, 0.0, 0)
    return None


def _end_log(log: Path, exit_status: int, seconds: float, peak_bytes: int) -> None:
    # The peak counts the job and those of its processes that it waited for.
    measured = f"elapsed {seconds:.2f} s, peak memory {peak_bytes / 1e6:.1f} MB, exit status {exit_status}"
    with log.open("ab+") as stream:
        stream.seek(-1, os.SEEK_END)
        newline = "" if stream.read(1) == b"\n" else "\n"
        stream.write(f"{newline}# Ended {_now()} {measured}\n".encode())


def _signal_group(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):  # it may have just ended
        os.killpg(pid, number)


def _shell_status(returncode: int) -> int:
    """Return the exit status in a shell's way: 128 + N for a process that signal N ended."""
    return 128 - returncode if returncode < 0 else returncode


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
