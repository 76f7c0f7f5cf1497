"""Head and foot of a job's log, the same for every backend."""

from __future__ import annotations

import os
import platform
import re
import shlex
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from distilmos.errors import InputError
from distilmos.runner.jobs import Job

_END = re.compile(r"^# Ended \S+ elapsed ([\d.]+) s, peak memory ([\d.]+) MB, exit status (\d+)$", re.MULTILINE)


class End(NamedTuple):
    """How a job ended: elapsed seconds, peak memory in bytes, and exit status."""

    seconds: float
    peak_bytes: float
    exit_status: int


def empty_log(log: Path) -> None:
    """Empty the log, so that a waiting job shows no old one; this also proves that it can be written.

    Raises:
        InputError: if it cannot be written.
    """
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
    except OSError as error:
        raise InputError(f"{log}: cannot write the log: {error.strerror}") from None


def begin_log(job: Job) -> None:
    """Append host, command, directory and start time; a job that is queued again continues in the same log."""
    heading = {
        "Host": platform.node(),
        "Command": shlex.join(job.command),
        "Directory": str(Path.cwd()),
        "Started": local_time(),
    }
    lines = "".join(f"# {name} {value}".replace("\n", "\n# ") + "\n" for name, value in heading.items())
    _append(job.log, lines)


def end_log(log: Path, exit_status: int, seconds: float, peak_bytes: int) -> None:
    """Append end time, elapsed time, peak memory and exit status.

    Args:
        log: file that `begin_log` has started.
        exit_status: as in a shell, 128 + N after signal N.
        seconds: elapsed time.
        peak_bytes: largest resident set of the job and of the child processes that it waited for.
    """
    measured = f"elapsed {seconds:.2f} s, peak memory {peak_bytes / 1e6:.1f} MB, exit status {exit_status}"
    note(log, f"Ended {local_time()} {measured}")


def read_end(log: Path) -> End | None:
    """Return what `end_log` wrote last; None if the job has not ended."""
    found = _END.findall(log.read_text(encoding="utf-8", errors="replace"))
    return End(float(found[-1][0]), 1e6 * float(found[-1][1]), int(found[-1][2])) if found else None


def note(log: Path, text: str) -> None:
    """Append a line of the runner, which starts with `#`."""
    with log.open("ab+") as stream:
        unfinished = stream.tell() > 0 and stream.seek(-1, os.SEEK_END) >= 0 and stream.read(1) != b"\n"
    _append(log, "\n" * unfinished + f"# {text}\n")


def local_time() -> str:
    """Return the local time with its offset from UTC."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _append(log: Path, text: str) -> None:
    with log.open("a", encoding="utf-8", errors="surrogateescape") as stream:
        stream.write(text)
