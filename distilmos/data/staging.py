"""Temporary copies of files on a local disk."""

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
    """Copy files to a new directory in $TMPDIR; remove it at the end of the block.

    Args:
        files: files to copy; a repeated file is copied once.

    Yields:
        file -> its copy.

    Raises:
        InputError: if TMPDIR is not set or not a directory.
        FailedError: if the files cannot be copied, for example for lack of space.
    """
    root = os.environ.get("TMPDIR", "")
    if not Path(root).is_dir() or not root:
        raise InputError(f"TMPDIR: {root!r} is not a directory; set TMPDIR to a local disk")
    wanted = dict.fromkeys(files)
    with tempfile.TemporaryDirectory(prefix="distilmos-", dir=root, ignore_cleanup_errors=True) as directory:
        copies = {file: Path(directory) / f"{number}_{file.name}" for number, file in enumerate(wanted)}
        try:
            needed, free = sum(file.stat().st_size for file in copies), shutil.disk_usage(root).free
            if needed > free:
                raise FailedError(f"{root}: the copies need {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")
            for file, copy in copies.items():
                shutil.copyfile(file, copy)
        except OSError as error:
            raise FailedError(f"{root}: cannot copy the audio to this directory: {error}") from None
        yield copies
