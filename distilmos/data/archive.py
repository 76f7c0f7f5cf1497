"""Kaldi binary archives: written whole, merged from shards, and read without running commands.

Kaldi allows a shell command in an scp line (`utt sox x.wav -t wav - |`). Such a line is an error here; only
`distilmos dump-audio --execute-pipes` runs it (see `pipes`).
"""

from __future__ import annotations

import os
import re
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from distilmos.data.containers import View
from distilmos.data.tables import c_locale_key, scan_table, write_table
from distilmos.errors import InputError
from distilmos.files import atomic_path

_TWO_BYTE_AUTO = 3  # Kaldi's CompressionMethod kTwoByteAuto
BINARY = b"\0B"  # marker before a binary object
INTEGERS = b"\4"  # after BINARY: the size of an integer begins a vector of them, and stands before each
INTEGER = np.dtype([("size", "S1"), ("value", "<i4")])


def split_location(location: str) -> tuple[Path, int | None]:
    """Split an scp value, `path` or `archive:offset`, into a path and a byte offset (None for a plain file).

    Raises:
        InputError: for a pipe.
    """
    match = re.fullmatch(r"(.+):([0-9]+)", location)
    path = match[1] if match else location
    if path.lstrip().startswith("|") or path.rstrip().endswith("|"):
        raise InputError(f"{location!r} is a pipe, which only `distilmos dump-audio --execute-pipes` runs")
    return Path(path), int(match[2]) if match else None


def pipe_command(location: str) -> str | None:
    """Return the shell command of an scp value `command |`; None for a path. This does not run it."""
    location = location.strip()
    return location[:-1].strip() or None if location.endswith("|") and not location.startswith("|") else None


def read_scp(path: str | Path) -> dict[str, tuple[Path, int | None]]:
    """Read an scp file into utterance id -> (path, byte offset or None).

    Raises:
        InputError: naming each malformed line and each pipe.
    """
    return scan_table(path, split_location).checked()


class ArchiveWriter:
    """Writes arrays or `(rate, int16 samples)` audio to one ark under utterance ids; see `open_archive`."""

    def __init__(self, temporary: Path, final: Path, *, compress: bool) -> None:
        """Open `temporary` for writing; the locations refer to `final`."""
        import kaldiio

        self._final = final
        self._stream = temporary.open("wb")
        self._save = partial(kaldiio.save_ark, compression_method=_TWO_BYTE_AUTO if compress else None)
        self.locations: dict[str, str] = {}

    def write(self, utterance: str, value: np.ndarray | tuple[int, np.ndarray]) -> None:
        """Append one value: a float32 matrix, an int32 vector, or `(rate, int16 samples)`."""
        if utterance in self.locations:
            raise ValueError(f"{utterance} is written twice to {self._final}")
        offset = self._stream.tell() + len(utterance.encode("utf-8")) + 1
        self._save(self._stream, {utterance: value})
        self.locations[utterance] = f"{self._final}:{offset}"

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


@contextmanager
def open_archive(stem: str | Path, *, compress: bool = False) -> Iterator[ArchiveWriter]:
    """Open `stem.ark` and `stem.scp` for writing; both appear when the block ends without an exception.

    With `compress`, all values must be float matrices. They are stored in Kaldi's compressed form of two bytes per
    value, with errors of at most 1 / 131070 of the range of the matrix.

    The scp holds absolute paths, so that it is valid from any directory. It appears last: everything that it lists can
    then be read.
    """
    stem = Path(stem).absolute()
    ark = _with_suffix(stem, ".ark")
    with atomic_path(ark) as temporary:
        writer = ArchiveWriter(temporary, ark, compress=compress)
        try:
            yield writer
        finally:
            writer.close()
        _forget(stem)
    write_table(_with_suffix(stem, ".scp"), writer.locations)


def _with_suffix(stem: Path, suffix: str) -> Path:
    """Append a suffix to a stem, whose name may have a dot (`wav.1`)."""
    return stem.with_name(stem.name + suffix)


def _forget(stem: Path) -> None:
    """Remove an older scp, so that it never points into a newer ark, even if this process is killed."""
    _with_suffix(stem, ".scp").unlink(missing_ok=True)


def merge_archives(shards: list[Path], stem: str | Path) -> int:
    """Join archives written by parallel jobs into `stem.ark` and `stem.scp`, then remove the shards.

    Args:
        shards: stems of the shards (each has .ark and .scp); the utterances may be in any order.
        stem: stem of the result.

    Returns:
        the number of utterances.

    Raises:
        InputError: if a shard is missing, or an utterance is in two shards.
    """
    stem = Path(stem).absolute()
    ark = _with_suffix(stem, ".ark")
    locations: dict[str, str] = {}
    for path in (_with_suffix(shard, suffix) for shard in shards for suffix in (".scp", ".ark")):
        if not path.exists():
            raise InputError(f"{path}: no such file; its job failed or still runs")
    with atomic_path(ark) as temporary, temporary.open("wb") as joined:
        for shard in shards:
            start = joined.tell()
            for utterance, (path, offset) in read_scp(_with_suffix(shard, ".scp")).items():
                if utterance in locations:
                    raise InputError(f"{shard}.scp: {utterance} is also in another shard")
                if offset is None:
                    raise InputError(f"{shard}.scp: {utterance}: {path} has no byte offset")
                locations[utterance] = f"{ark}:{start + offset}"
            with _with_suffix(shard, ".ark").open("rb") as part:
                shutil.copyfileobj(part, joined, 1 << 20)
        _forget(stem)
    write_table(_with_suffix(stem, ".scp"), locations)
    for shard in shards:
        for suffix in (".ark", ".scp"):
            _with_suffix(shard, suffix).unlink()
    return len(locations)


def load_array(location: tuple[Path, int | None]) -> np.ndarray:
    """Read one matrix or vector from a binary archive.

    Raises:
        InputError: if the archive is missing or cut off, or holds no Kaldi matrix or vector at the location.
    """
    from kaldiio.matio import read_kaldi

    path, offset = location
    where = f"{path}: at byte {offset or 0}"
    try:
        # Open it here: kaldiio would run a path that ends in `|`, and load pickles from an archive.
        with path.open("rb") as stream:
            # A view reads no further than the end: a damaged length must not decide how much memory is asked for.
            part = View(stream, [range(offset or 0, stream.seek(0, os.SEEK_END))])
            head = part.read(7)
            if head[:2] != BINARY:
                raise InputError(f"{where}: not a binary Kaldi matrix or vector")
            # kaldiio reads integers one by one: thirty times slower, a minute for the tokens of BVCC.
            if head[2:3] == INTEGERS and len(head) == 7:
                length, left = int.from_bytes(head[3:], "little", signed=True), part.seek(0, os.SEEK_END) - len(head)
                if not 0 <= INTEGER.itemsize * length <= left:
                    raise InputError(f"{where}: cut off: {length} integers in {left} bytes")
                part.seek(len(head))
                integers = np.frombuffer(part.read(INTEGER.itemsize * length), INTEGER)
                if (integers["size"] != INTEGERS).any():
                    raise InputError(f"{where}: not a vector of integers of four bytes")
                return integers["value"].astype(np.int32)
            part.seek(0)
            value: Any = read_kaldi(part)
    except FileNotFoundError:
        raise InputError(f"{path}: no such archive") from None
    except (OSError, ValueError, AssertionError, struct.error) as error:
        raise InputError(f"{where}: unreadable: {error or 'cut off'}") from None
    if not isinstance(value, np.ndarray):
        raise InputError(f"{where}: not a matrix or vector")
    return value


def shard_of(keys: list[str], job: int, jobs: int) -> list[str]:
    """Return the keys of job `job` (1..jobs): contiguous in the C locale's order; sizes differ by at most one.

    With more jobs than keys, some jobs get no keys.

    Raises:
        InputError: unless 1 <= job <= jobs.
    """
    if not 1 <= job <= jobs:
        raise InputError(f"job {job} is not in 1..{jobs}")
    ordered = sorted(keys, key=c_locale_key)
    return ordered[len(ordered) * (job - 1) // jobs : len(ordered) * job // jobs]
