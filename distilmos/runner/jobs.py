"""The elements of an array, and the report of the failed ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from distilmos.errors import FailedError, InputError

ARRAY = re.compile(r"([A-Za-z_]\w*)=(\d+)(?::(\d+))?")
TAIL_LINES = 10
# The elements of an array mostly fail for the same reason, so a few logs are enough.
TAILS_SHOWN = 5


@dataclass(frozen=True)
class Job:
    """One command with its log.

    Attributes:
        index: number of the element; None for a single command.
        log: file for stdout and stderr.
        command: program and arguments; no shell interprets them.
    """

    index: int | None
    log: Path
    command: tuple[str, ...]


@dataclass(frozen=True)
class Array:
    """A command to run once, or once for each number of a range.

    Attributes:
        name: placeholder for the number of an element, mostly JOB; None for a single command. It is replaced where it
            is a word of its own: in `x.JOB.log`, `out_JOB` and `JOB/x`, but not in `JOBS`, `myJOB` or `JOB_ID`.
        first: number of the first element.
        last: number of the last element.
        log: name of the log file, with the placeholder.
        command: program and arguments, with the placeholder.
    """

    name: str | None
    first: int
    last: int
    log: str
    command: tuple[str, ...]

    def job(self, index: int) -> Job:
        """Return an element, with its number in place of the placeholder."""
        if self.name is None:
            return Job(None, Path(self.log), self.command)
        words = (_placeholder(self.name).sub(str(index), word) for word in (self.log, *self.command))
        return Job(index, Path(next(words)), tuple(words))

    @property
    def indices(self) -> range:
        """The numbers of all elements."""
        return range(self.first, self.last + 1)

    @property
    def jobs(self) -> list[Job]:
        """All elements."""
        return [self.job(index) for index in self.indices]


def _placeholder(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![^\W_]){re.escape(name)}(?!\w)")


def parse_array(arguments: list[str]) -> Array:
    """Parse `[JOB=1:n] LOG COMMAND...`; JOB may be any name.

    Raises:
        InputError: if LOG or COMMAND is missing, the range is empty, or LOG is the same for all elements.
    """
    array = ARRAY.fullmatch(arguments[0]) if arguments else None
    log, *command = arguments[1:] if array else arguments or [""]
    if not command:
        raise InputError("expected [JOB=1:n] LOG COMMAND...")
    if log.startswith("-"):
        raise InputError(f"expected the log file, found {log!r}; put options first")
    if array is None:
        return Array(None, 1, 1, log, tuple(command))
    name, first, last = array[1], int(array[2]), int(array[3] or array[2])
    if not 1 <= first <= last:
        raise InputError(f"{arguments[0]}: expected {name}=FIRST:LAST with 1 <= FIRST <= LAST")
    if first < last and not _placeholder(name).search(log):
        raise InputError(f"{log}: all {last - first + 1} jobs would write to this log; put {name} into its name")
    return Array(name, first, last, log, tuple(command))


def raise_failures(jobs: list[Job], failed: list[Job], reasons: Mapping[Job, str] | None = None) -> None:
    """Raise an error with the last lines of the failed jobs' logs, if any job failed.

    Args:
        jobs: all jobs of the array.
        failed: the failed ones.
        reasons: one line for each job that the scheduler ended.

    Raises:
        FailedError: if a job failed.
    """
    if not failed:
        return
    if failed[0].index is None:
        heading = "the command failed"
    else:
        heading = f"{len(failed)} of {len(jobs)} jobs failed: {' '.join(str(job.index) for job in failed)}"
    lines = [heading, *(reasons[job] for job in failed if reasons and job in reasons)]
    lines += [f"--- {job.log}\n{_tail(job.log)}" for job in failed[:TAILS_SHOWN]]
    if len(failed) > TAILS_SHOWN:
        lines.append(f"--- and {len(failed) - TAILS_SHOWN} more logs")
    raise FailedError("\n".join(lines))


def _tail(log: Path) -> str:
    with log.open("rb") as stream:
        stream.seek(max(0, stream.seek(0, 2) - 16384))
        text = stream.read().decode("utf-8", errors="replace")
    return "\n".join(text.splitlines()[-TAIL_LINES:])
