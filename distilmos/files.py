"""Files that appear whole or not at all."""

from __future__ import annotations

import fcntl
import json
import math
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

NAME_BYTES = 255  # that the name of a file may have, on Linux' usual file systems


def temporary_name(path: Path) -> Path:
    """Return a hidden name beside `path` that nobody else writes to.

    The process id tells a reader whose it is. It does not make it unique: jobs on other machines, or in containers,
    that share the file system may have the same one.
    """
    end = f".{os.getpid()}.{secrets.token_hex(8)}.tmp"
    start = os.fsencode(path.name)[: NAME_BYTES - 1 - len(end)].decode("utf-8", "ignore")
    return path.with_name(f".{start}{end}")


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it is flushed to disk and renamed to `path`.

    On an exception the temporary file is removed and an existing `path` stays as it was. Of several jobs that write
    the same path at the same time each has its own temporary file; the last to end wins.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    """Make a rename in `directory` survive a crash of the machine."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replaced_directory(path: str | Path) -> Iterator[Path]:
    """Give an empty directory beside `path`; on success it takes the place of `path`, with all that it holds.

    On an exception it is removed and an existing `path` stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as temporary:
        new = Path(temporary) / "new"
        new.mkdir()
        yield new
        if path.exists():
            path.rename(Path(temporary) / "old")
        new.rename(path)


@contextmanager
def exclusive(path: str | Path) -> Iterator[None]:
    """Wait until no other process is in such a block for `path`; a file beside it, `.NAME.lock`, is there meanwhile."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    while True:
        with lock.open("wb") as stream:
            fcntl.lockf(stream, fcntl.LOCK_EX)
            # Whoever held it before us has removed it, and a third one may have made a new one.
            if not lock.exists() or lock.stat().st_ino != os.fstat(stream.fileno()).st_ino:
                continue
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON to `path`, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def without_nan(value: Any) -> Any:
    """Return a value of JSON's types with None for each number that is not finite, which JSON does not have."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
