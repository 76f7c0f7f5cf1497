"""Processes of a session, wherever they are in it: the jobs of a recipe have process groups of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def processes_of(session: int) -> Iterator[tuple[int, list[bytes]]]:
    """Yield id and words of the command of each process of a session that has not ended."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                yield int(path.name), (path / "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
