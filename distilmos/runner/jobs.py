"""The elements of an array job, and the report of those that failed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from distilmos.errors import FailedError, InputError

ARRAY = re.compile(r"([A-Za-z_]\w*)=(\d+)(?::(\d+))?")
TAIL_LINES = 10
# Elements of one array mostly fail for one reason: the first few logs tell it.
TAILS_SHOWN = 5


@dataclass(frozen=True)
class Job:
    """One command with its log.

    Attributes:
        index: number of the element; None for a single command.
        log: file that gets stdout and stderr.
        command: program and arguments, which reach it unchanged: no shell is in between.
    """

    index: int | None
    log: Path
    command: tuple[str, ...]


@dataclass(frozen=True)
class Array:
    """What `distilmos run` was asked for: a command, or the same one for a range of numbers.

    Attributes:
        name: what stands for the number of an element, mostly JOB; None for a single command.
        first: number of the first element.
        last: number of the last one.
        log: the log file's name, with the placeholder.
        command: program and arguments, with the placeholder.
    """

    name: str | None
    first: int
    last: int
    log: str
    command: tuple[str, ...]

    def job(self, index: int) -> Job:
        """Return an element: the placeholder is replaced in the log's name and in every argument."""
        if self.name is None:
            return Job(None, Path(self.log), self.command)
        words = (word.replace(self.name, str(index)) for word in (self.log, *self.command))
        return Job(index, Path(next(words)), tuple(words))

    @property
    def indices(self) -> range:
        """The numbers of all elements."""
        return range(self.first, self.last + 1)

    @property
    def jobs(self) -> list[Job]:
        """All elements."""
        return [self.job(index) for index in self.indices]


def parse_array(arguments: list[str]) -> Array:
    """Read `[JOB=1:n] LOG COMMAND...`; JOB, or whatever the name is, stands for the number of the element.

    Raises:
        InputError: if LOG or COMMAND is missing, the range is empty, or LOG is the same for all elements.
    """
    array = ARRAY.fullmatch(arguments[0]) if arguments else None
    log, *command = arguments[1:] if array else arguments or [""]
    if not command:
        raise InputError("expected [JOB=1:n] LOG COMMAND...")
    if log.startswith("-"):
        raise InputError(f"expected the log file, found the option {log!r}: options come first")
    if array is None:
        return Array(None, 1, 1, log, tuple(command))
    name, first, last = array[1], int(array[2]), int(array[3] or array[2])
    if not 1 <= first <= last:
        raise InputError(f"{arguments[0]}: expected {name}=FIRST:LAST with 1 <= FIRST <= LAST")
    if name not in log and first < last:
        raise InputError(f"{log}: the log file's name lacks {name}, so all {last - first + 1} jobs would write to it")
    return Array(name, first, last, log, tuple(command))


def raise_failures(jobs: list[Job], failed: list[Job], reasons: Mapping[Job, str] | None = None) -> None:
    """Report failed jobs with the last lines of their logs.

    Args:
        jobs: all jobs of the array.
        failed: those that failed.
        reasons: one line for each of those whose command did not end by itself.

    Raises:
        FailedError: if there is any.
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
