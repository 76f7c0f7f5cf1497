"""Copies of files on a disk of this machine, for as long as they are read."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from distilmos.errors import FailedError, InputError


@contextmanager
def staged(files: Iterable[Path]) -> Iterator[dict[Path, Path]]:
    """Copy files to a new directory in $TMPDIR, which is removed at the end.

    Args:
        files: those named several times are copied once.

    Yields:
        file -> its copy.

    Raises:
        InputError: if TMPDIR is not set or no directory.
        FailedError: if they cannot be copied, for example for want of space.
    """
    root = os.environ.get("TMPDIR", "")
    if not Path(root).is_dir() or not root:
        raise InputError(f"TMPDIR: {root!r} is no directory: it shall be one on a disk of this machine")
    wanted = dict.fromkeys(files)
    with tempfile.TemporaryDirectory(prefix="distilmos-", dir=root, ignore_cleanup_errors=True) as directory:
        copies = {file: Path(directory) / f"{number}_{file.name}" for number, file in enumerate(wanted)}
        try:
            needed, free = sum(file.stat().st_size for file in copies), shutil.disk_usage(root).free
            if needed > free:
                raise FailedError(f"{root}: {needed / 1e9:.1f} GB are to be copied there, {free / 1e9:.1f} are free")
            for file, copy in copies.items():
                shutil.copyfile(file, copy)
        except OSError as error:
            raise FailedError(f"{root}: cannot copy the audio there: {error}") from None
        yield copies
