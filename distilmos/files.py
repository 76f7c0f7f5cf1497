"""Files that appear whole or not at all, and output to pipes, devices and open descriptors."""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, BinaryIO

from distilmos.errors import InputError

NAME_BYTES = 255  # longest file name on the usual Linux file systems
MAX_LINKS = 40  # symbolic links that Linux follows in a path


def followed(path: str | Path) -> Path:
    """Return the file or directory that the symbolic link `path` leads to; return other paths unchanged.

    Code that replaces a file or directory by renaming renames to this path; otherwise it would replace the link.
    """
    path = Path(path)
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def written_in_place(path: str | Path) -> bool:
    """Return whether to write into `path`, not to replace it: a pipe, a device or an open descriptor (/dev/stdout).

    Raises:
        InputError: if `path` can name no file, for example because its links form a loop.
        OSError: if `path` cannot be examined for another reason.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR):
            raise InputError(f"{path}: cannot be written: {error.strerror}") from None
        raise
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) or _descriptor(path) is not None


def _descriptor(path: Path) -> int | None:
    """Return N if `path` leads to the open descriptor N of this process, as /dev/stdout and /dev/fd/N do on Linux."""
    descriptors = Path(f"/proc/{os.getpid()}/fd")
    for _ in range(MAX_LINKS):
        path = Path(os.path.realpath(path.parent)) / path.name
        if path.parent == descriptors and path.name.isdecimal():
            return int(path.name)
        if not path.is_symlink():
            return None
        path = path.parent / path.readlink()
    return None


def _open_in_place(path: Path) -> BinaryIO:
    """Open what `written_in_place` is true of.

    A descriptor is duplicated: opening its path again would truncate a file that standard output is redirected to.
    """
    descriptor = _descriptor(path)
    return path.open("wb") if descriptor is None else os.fdopen(os.dup(descriptor), "wb")


def temporary_name(path: Path) -> Path:
    """Return a unique hidden name in the directory of `path`, or of its target if it is a symbolic link.

    The process id shows which process wrote the file. It is not enough to make the name unique: jobs on other machines
    or in containers that share the file system may have the same id.
    """
    path = followed(path)
    end = f".{os.getpid()}.{secrets.token_hex(8)}.tmp"
    start = os.fsencode(path.name)[: NAME_BYTES - 1 - len(end)].decode("utf-8", "ignore")
    return path.with_name(f".{start}{end}")


def leftovers(directory: Path, name: str = "*") -> list[Path]:
    """Return the temporary files of `name`, in a directory that no other process writes: killed ones have left them."""
    return list(directory.glob(f".{name}.*.tmp"))


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the directory of `path`; on success, flush the file to disk and rename it to `path`.

    On an exception, remove the temporary file and leave an existing `path` unchanged. Jobs that write the same path at
    the same time have a temporary file each; the last job to finish wins. A symbolic link stays; its target is
    replaced. If `path` is `written_in_place`, copy the temporary file, which is elsewhere, into it.
    """
    path = Path(path)
    if written_in_place(path):
        with TemporaryDirectory() as directory:
            temporary = Path(directory) / "new"
            yield temporary
            with temporary.open("rb") as source, _open_in_place(path) as target:
                shutil.copyfileobj(source, target)
        return
    path = followed(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        yield temporary
        with temporary.open("r+b") as stream:  # Windows flushes only what is open for writing
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    """Flush a rename in `directory` to disk, so that it survives a crash of the machine."""
    if os.name == "nt":  # Windows cannot open a directory
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replaced_directory(path: str | Path) -> Iterator[Path]:
    """Yield an empty directory in the parent of `path`; on success, replace `path` by it, with its content.

    On an exception, remove the new directory and leave an existing `path` unchanged. A symbolic link stays; the
    directory that it leads to is replaced.
    """
    path = followed(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as temporary:
        new = Path(temporary) / "new"
        new.mkdir()
        yield new
        replace_directory(new, path)


def replace_directory(new: Path, directory: Path) -> None:
    """Rename `new` to `directory`; remove an older directory only after the new one is in place.

    If `directory` is a symbolic link, the directory that it leads to is replaced.
    """
    directory = followed(directory)
    old = temporary_name(directory)
    if directory.exists():
        directory.rename(old)
    try:
        new.rename(directory)
    except BaseException:
        if old.exists():
            old.rename(directory)
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def exclusive(path: str | Path) -> Iterator[None]:
    """Run the block in one process at a time for `path`; others wait. The lock is `.NAME.lock` next to `path`."""
    import fcntl  # imported here: Windows, where prediction runs, does not have it

    path = followed(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    while True:
        with lock.open("wb") as stream:
            fcntl.lockf(stream, fcntl.LOCK_EX)
            # The previous holder has removed the file that we locked, and a third process may have made a new one.
            if not is_at(stream, lock):
                continue
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return


def is_at(stream: IO[Any], path: Path) -> bool:
    """Return whether the open file `stream` is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False


def is_file(path: str | Path) -> bool:
    """Return whether `path` is a regular file; no, if its name is too long or holds NUL, which raises in pathlib."""
    return os.path.isfile(path)  # noqa: PTH113


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, atomically.

    Bytes of file names that are not UTF-8 (surrogates in Python) become escapes, which JSON reads back.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON to `path`, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def without_nan(value: Any) -> Any:
    """Replace NaN and infinity, which JSON does not have, by None in a value of JSON's types."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
