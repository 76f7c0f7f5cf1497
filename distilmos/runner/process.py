"""One job as a process: its start, its signals and its end, the same on this machine and on a compute node."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

from distilmos.runner.jobs import Job
from distilmos.runner.log import begin_log, end_log

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
class Running:
    """A job that has been started."""

    job: Job
    process: subprocess.Popen[bytes]
    started: float

    def end(self, status: int, usage: resource.struct_rusage) -> int:
        """Close the log of the job, for which `os.wait4` gave `status` and `usage`; return its exit status."""
        # Popen must not wait for, or signal, a process id that is no longer its own.
        self.process.returncode = os.waitstatus_to_exitcode(status)
        exit_status = self.process.returncode
        if exit_status < 0:
            exit_status = 128 - exit_status
        end_log(self.job.log, exit_status, time.monotonic() - self.started, usage.ru_maxrss * MAXRSS_UNIT)
        return exit_status


def start(job: Job, environment: Mapping[str, str], launcher: Iterable[str] = ()) -> Running | None:
    """Start a job in a process group of its own; None if there is no such command, which its log says then.

    Args:
        job: what to start; its log is appended to.
        environment: of the process.
        launcher: words before the command, such as those of srun.
    """
    begin_log(job)
    # Appending: a job that has several processes overwrites nothing.
    with job.log.open("ab") as log:
        try:
            process = subprocess.Popen(
                [*launcher, *job.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                process_group=0,
            )
            return Running(job, process, time.monotonic())
        except (OSError, ValueError) as error:
            log.write(f"cannot start {job.command[0]}: {error}\n".encode(errors="surrogateescape"))
    end_log(job.log, CANNOT_START, 0.0, 0)
    return None


def signal_group(pid: int, number: int) -> None:
    """Send a signal to a job and the processes of its group."""
    with suppress(ProcessLookupError):  # it may have just ended
        os.killpg(pid, number)


@contextmanager
def handling(numbers: Iterable[int], react: Callable[[int], None]) -> Iterator[None]:
    """Call `react` with the number of every signal that comes; it must not raise, so that nothing is lost half-way.

    A signal that our caller told us to ignore (nohup, a background job of a script) stays ignored.
    """

    def handler(number: int, _: FrameType | None) -> None:
        react(number)

    before = {number: signal.getsignal(number) for number in numbers}
    for number, action in before.items():
        if action is not signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)


def thread_variables(num_threads: int) -> dict[str, str]:
    """Return the environment variables that say how many threads a job may use."""
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(num_threads))
