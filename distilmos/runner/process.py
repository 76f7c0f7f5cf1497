"""A job as a process: start, signals and end, on this machine and on a compute node."""

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
CANNOT_START = 127  # a shell's exit status for a missing command


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
        """Finish the log after `os.wait4` returned `status` and `usage`; return the exit status."""
        # Keep Popen from waiting for, or signalling, a process id that may belong to another process now.
        self.process.returncode = os.waitstatus_to_exitcode(status)
        exit_status = self.process.returncode
        if exit_status < 0:
            exit_status = 128 - exit_status
        end_log(self.job.log, exit_status, time.monotonic() - self.started, usage.ru_maxrss * MAXRSS_UNIT)
        return exit_status


def start(job: Job, environment: Mapping[str, str], launcher: Iterable[str] = ()) -> Running | None:
    """Start a job in its own process group; return None, and note it in the log, if the command cannot start.

    Args:
        job: the job; this appends to its log.
        environment: of the process.
        launcher: words in front of the command, such as those of srun.
    """
    begin_log(job)
    # Append, so that several processes of a job do not overwrite each other's lines.
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
    """Send a signal to all processes of a job's group."""
    with suppress(ProcessLookupError):  # it may have just ended
        os.killpg(pid, number)


@contextmanager
def handling(numbers: Iterable[int], react: Callable[[int], None]) -> Iterator[None]:
    """Call `react` with the number of each signal. It must not raise: an exception could interrupt any line.

    Signals that the caller of this process ignores (nohup, a background job of a script) stay ignored.
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
    """Return the environment variables that limit the threads of a job."""
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(num_threads))
