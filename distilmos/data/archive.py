"""Kaldi binary archives: written whole, merged from shards, and read without ever running a command.

Kaldi allows a shell command in an scp line (`utt sox x.wav -t wav - |`). Nothing here executes files, so such a line is
refused with a message; `distilmos dump-audio` takes real audio files instead.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from distilmos.data.tables import c_locale_key, read_table, write_table
from distilmos.errors import InputError
from distilmos.files import atomic_path


def split_location(location: str, where: str) -> tuple[Path, int | None]:
    """Split an scp value into a path and a byte offset (None for a plain file).

    Args:
        location: `path` or `archive:offset`.
        where: file and line, for the message.

    Raises:
        InputError: for a pipe.
    """
    if location.startswith("|") or location.endswith("|"):
        raise InputError(f"{where}: commands in scp files are not run: {location!r}")
    path, separator, offset = location.rpartition(":")
    if separator and offset.isdigit():
        return Path(path), int(offset)
    return Path(location), None


def read_scp(path: str | Path) -> dict[str, tuple[Path, int | None]]:
    """Read an scp file into utterance id -> (path, byte offset or None).

    Raises:
        InputError: for a malformed line or a pipe.
    """
    return {
        key: split_location(value, f"{path}:{line}")
        for line, (key, value) in enumerate(read_table(path).items(), start=1)
    }


class ArchiveWriter:
    """Writes arrays (or `(rate, int16 samples)` audio) under utterance ids into one ark; see `open_archive`."""

    def __init__(self, temporary: Path, final: Path) -> None:
        """Write to `temporary`; the locations refer to `final`."""
        import kaldiio

        self._final = final
        self._stream = temporary.open("wb")
        self._save = kaldiio.save_ark
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
def open_archive(stem: str | Path) -> Iterator[ArchiveWriter]:
    """Open `stem.ark` and `stem.scp` for writing; both appear when the block ends without an exception.

    The scp holds absolute paths, so that it is readable from any directory, and appears last: whoever sees it can
    read all that it lists.
    """
    stem = Path(stem).absolute()
    ark = stem.with_name(stem.name + ".ark")
    with atomic_path(ark) as temporary:
        writer = ArchiveWriter(temporary, ark)
        try:
            yield writer
        finally:
            writer.close()
    write_table(stem.with_name(stem.name + ".scp"), writer.locations)


def merge_archives(shards: list[Path], stem: str | Path) -> int:
    """Join archives written by parallel jobs into `stem.ark` and `stem.scp`, then remove the shards.

    Args:
        shards: the stems of the shards (each with .ark and .scp), in any order of utterances.
        stem: the stem of the result.

    Returns:
        the number of utterances.

    Raises:
        InputError: if a shard is missing or two hold the same utterance.
    """
    stem = Path(stem).absolute()
    ark = stem.with_name(stem.name + ".ark")
    locations: dict[str, str] = {}
    with atomic_path(ark) as temporary, temporary.open("wb") as joined:
        for shard in shards:
            start = joined.tell()
            for utterance, (path, offset) in read_scp(shard.with_name(shard.name + ".scp")).items():
                if utterance in locations:
                    raise InputError(f"{shard}.scp: {utterance} is in another shard too")
                if offset is None:
                    raise InputError(f"{shard}.scp: {utterance}: {path} has no byte offset")
                locations[utterance] = f"{ark}:{start + offset}"
            with shard.with_name(shard.name + ".ark").open("rb") as part:
                shutil.copyfileobj(part, joined, 1 << 20)
    write_table(stem.with_name(stem.name + ".scp"), locations)
    for shard in shards:
        for suffix in (".ark", ".scp"):
            shard.with_name(shard.name + suffix).unlink()
    return len(locations)


def load_array(location: tuple[Path, int | None]) -> np.ndarray:
    """Read one matrix or vector of an archive.

    Raises:
        InputError: if the archive is missing or cut off.
    """
    import kaldiio

    path, offset = location
    try:
        value: Any = kaldiio.load_mat(f"{path}:{offset or 0}")
    except FileNotFoundError:
        raise InputError(f"{path}: no such archive") from None
    except Exception as error:
        raise InputError(f"{path}: unreadable at byte {offset}: {error}") from None
    if not isinstance(value, np.ndarray):
        raise InputError(f"{path}: not a matrix or vector at byte {offset}")
    return value


def shard_of(keys: list[str], job: int, jobs: int) -> list[str]:
    """Return the share of job `job` (1..jobs): contiguous in the C locale's order, sizes differ by at most one.

    A share may be empty when there are more jobs than keys.

    Raises:
        InputError: unless 1 <= job <= jobs.
    """
    if not 1 <= job <= jobs:
        raise InputError(f"job {job} is not in 1..{jobs}")
    ordered = sorted(keys, key=c_locale_key)
    return ordered[len(ordered) * (job - 1) // jobs : len(ordered) * job // jobs]
