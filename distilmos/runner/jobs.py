"""The elements of an array job, and the report of those that failed."""

from __future__ import annotations

import re
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


def parse_jobs(arguments: list[str]) -> list[Job]:
    """Read `[JOB=1:n] LOG COMMAND...`; JOB, or whatever the name is, is replaced in LOG and in every argument.

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
        return [Job(None, Path(log), tuple(command))]
    name, first, last = array[1], int(array[2]), int(array[3] or array[2])
    if not 1 <= first <= last:
        raise InputError(f"{arguments[0]}: expected {name}=FIRST:LAST with 1 <= FIRST <= LAST")
    if name not in log and first < last:
        raise InputError(f"{log}: the log file's name lacks {name}, so all {last - first + 1} jobs would write to it")
    return [
        Job(index, Path(log.replace(name, str(index))), tuple(word.replace(name, str(index)) for word in command))
        for index in range(first, last + 1)
    ]


def raise_failures(jobs: list[Job], failed: list[Job]) -> None:
    """Report failed jobs with the last lines of their logs.

    Args:
        jobs: all jobs of the array.
        failed: those that failed.

    Raises:
        FailedError: if there is any.
    """
    if not failed:
        return
    if failed[0].index is None:
        heading = "the command failed"
    else:
        heading = f"{len(failed)} of {len(jobs)} jobs failed: {' '.join(str(job.index) for job in failed)}"
    tails = [f"--- {job.log}\n{_tail(job.log)}" for job in failed[:TAILS_SHOWN]]
    if len(failed) > TAILS_SHOWN:
        tails.append(f"--- and {len(failed) - TAILS_SHOWN} more logs")
    raise FailedError("\n".join([heading, *tails]))


def _tail(log: Path) -> str:
    with log.open("rb") as stream:
        stream.seek(max(0, stream.seek(0, 2) - 16384))
        text = stream.read().decode("utf-8", errors="replace")
    return "\n".join(text.splitlines()[-TAIL_LINES:])
