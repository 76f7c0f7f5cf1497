"""Recordings for prediction, from audio files, pipes, directories, lists and wav.scp files."""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np

from distilmos.data import ffmpeg
from distilmos.data.archive import split_location
from distilmos.data.audio import WHOLE, Span, stream_audio
from distilmos.data.checks import Checks
from distilmos.data.copies import Copy
from distilmos.data.lists import read_rows
from distilmos.data.schema import SEGMENTS, segment
from distilmos.data.tables import read_lines, scan_table
from distilmos.data.validate import segment_faults
from distilmos.errors import InputError, InputWarning, raise_faults

# Formats of libsndfile that have their own suffix; `audio_suffixes` adds those of ffmpeg.
_SUFFIXES = (".aif", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".rf64", ".sph", ".w64", ".wav")
LISTS = (".lst", ".txt")
DELIMITERS = {".csv": ",", ".tsv": "\t"}
STANDARD_INPUT = "-"
MAX_SUFFIXES_SHOWN = 8


@dataclass(frozen=True)
class Recording:
    """A recording to score, or a segment of one.

    Attributes:
        utterance: id from the segments or the wav.scp, otherwise the path as the user gave it.
        path: the audio file, or an archive; the name in messages if there is a copy.
        offset: byte offset of the recording in the archive.
        fault: why the recording cannot be read, if already known; empty otherwise.
        copy: holds the audio in place of `path`, if that is a pipe or an open file.
        channel: the channel to read, counted from 1; None for the mean of all.
        span: the part to score.
        where: start of errors: `file:line` of the list that names the recording, with the id if that is not the path;
            empty if the user names the recording.
    """

    utterance: str
    path: Path
    offset: int | None = None
    fault: str = ""
    copy: Copy | None = field(default=None, repr=False)
    channel: int | None = None
    span: Span = WHOLE
    where: str = ""

    @property
    def name(self) -> str:
        """The path for messages, with the id if that is not the path."""
        return self.utterance if self.utterance == str(self.path) else f"{self.path}: {self.utterance}"

    def stream(self, block_seconds: float, checks: Checks | None = None) -> Iterator[np.ndarray]:
        """Read the recording as 16 kHz mono; see `stream_audio`.

        Raises:
            InputError: if the recording cannot be read.
        """
        if self.fault:
            raise InputError(self.fault)
        path = self.path if self.copy is None else self.copy.path
        try:
            yield from stream_audio(path, block_seconds, self.offset, self.span, channel=self.channel, checks=checks)
        except InputError as error:
            reason = str(error).replace(str(path), str(self.path))
            raise type(error)(f"{self.where}: {reason}" if self.where else reason) from None


def audio_suffixes() -> tuple[str, ...]:
    """Return the suffixes of the audio files that can be read here, which depends on ffmpeg."""
    return (*_SUFFIXES, *ffmpeg.SUFFIXES) if ffmpeg.available() else _SUFFIXES


def find_recordings(inputs: Iterable[str], column: str | None = None) -> Iterator[Recording]:
    """Resolve the inputs of a user to recordings, in the order of the inputs.

    An input is an audio file; a directory, searched recursively for audio files (`audio_suffixes`) in order of their
    names; a Kaldi-style data directory (it has a wav.scp), of which only wav.scp and `segments` are read; a list of
    audio files (.txt, .lst; one path per line); a wav.scp, whose recordings are scored whole; a CSV or TSV file with a
    header; a pipe with the audio of one recording; or "-", which is standard input as a pipe. All inputs are checked
    before the first recording is returned. Directories are searched step by step, so that memory does not grow with
    the number of files. At the end of each, an InputWarning counts the files that were left out for their suffix.

    Args:
        inputs: the names of the inputs.
        column: the column of the CSV and TSV files that holds paths, relative to the directory of the file.

    Raises:
        InputError: if an input does not exist or is a faulty list, or if `column` is given without a CSV or TSV file.
    """
    names = list(inputs)
    if column is not None and not any(Path(name).suffix.lower() in DELIMITERS for name in names):
        raise InputError(f"column {column!r}: no input is a {' or '.join(DELIMITERS)} file")
    if names.count(STANDARD_INPUT) > 1:
        raise InputError(f"{STANDARD_INPUT}: standard input is given more than once")
    sources = [_source(name, column) for name in names]
    return (recording for source in sources for recording in source)


def _source(name: str, column: str | None) -> Iterable[Recording]:
    if not name:
        raise InputError("an input is an empty text, not a path")
    if name == STANDARD_INPUT:
        return [_standard_input()]
    path = Path(name)
    if path.is_dir():
        if (path / "wav.scp").exists():
            return _segments(path) if (path / SEGMENTS).exists() else _located(path / "wav.scp")
        suffixes = audio_suffixes()
        skipped: Counter[str] = Counter()
        if next(_audio_files(path, suffixes, skipped), None) is None:
            reason = f"; {_left_out(skipped)}" if skipped else ""
            raise InputError(f"{name}: directory without audio files ({', '.join(suffixes)}){reason}")
        return _search(path, suffixes)
    if not path.exists():
        raise InputError(f"{name}: no such file or directory")
    suffix = path.suffix.lower()
    if suffix == ".scp":
        return _located(path)
    if suffix in LISTS:
        return _lines(path, "\n".join(read_lines(path)).encode())
    if suffix in DELIMITERS:
        return _listed(path, column)
    return [Recording(name, path, copy=Copy(partial(path.open, "rb")) if path.is_fifo() else None)]


def _standard_input() -> Recording:
    if sys.stdin is None or sys.stdin.isatty():
        where = "closed" if sys.stdin is None else "a terminal"
        raise InputError(f"{STANDARD_INPUT}: standard input is {where}; it must hold the audio of one recording")
    descriptor = sys.stdin.fileno()
    return Recording(STANDARD_INPUT, Path(STANDARD_INPUT), copy=Copy(partial(open, descriptor, "rb", closefd=False)))


def _listed(path: Path, column: str | None) -> Iterator[Recording]:
    """Return the recordings of a CSV or TSV file, in its order."""
    if column is None:
        header = next(iter(read_lines(path)), "")
        raise InputError.at(path, 1, f"choose the column of paths (--column NAME); the header is {header!r}")
    faults: list[str] = []
    rows = read_rows(path, [column], faults, header=True, delimiter=DELIMITERS[path.suffix.lower()])
    raise_faults(faults, str(path))
    if not rows:
        raise InputError(f"{path}: has a header, but no recordings")
    return (Recording(row[column], path.parent / row[column], where=row.where) for row in rows)


def _lines(path: Path, text: bytes) -> Iterator[Recording]:
    """Yield the recordings of a list of paths, given its text. All at once, a million would take a gigabyte."""
    for number, line in enumerate(BytesIO(text), start=1):
        name = line.decode().strip()
        if name:
            yield Recording(name, Path(name), where=f"{path}:{number}")


def _located(scp: Path) -> Iterator[Recording]:
    wavs = scan_table(scp, _checked_location)
    found = wavs.checked()
    if not found:
        raise InputError(f"{scp}: empty")
    return (Recording(name, *split_location(text), where=wavs.where(name)) for name, text in found.items())


def _checked_location(text: str) -> str:
    """Return the location as it is: text takes less memory than what `split_location` returns."""
    split_location(text)
    return text


def _segments(directory: Path) -> Iterator[Recording]:
    """Return the segments of a data directory in the order of `segments`."""
    wavs = scan_table(directory / "wav.scp", split_location)
    segments = scan_table(directory / SEGMENTS, segment)
    faults = [*wavs.faults, *segments.faults] if segments.lines else [f"{segments.path}: empty"]
    faults += segment_faults(segments, {key: recording for key, (recording, _) in segments.values.items()}, wavs)
    raise_faults(faults, str(directory))
    return (
        Recording(utterance, *wavs.values[recording], span=span, where=segments.where(utterance))
        for utterance, (recording, span) in segments.values.items()
    )


def _search(directory: Path, suffixes: tuple[str, ...]) -> Iterator[Recording]:
    """Find audio files below a directory, then warn of those that were left out."""
    skipped: Counter[str] = Counter()
    yield from _audio_files(directory, suffixes, skipped)
    if skipped:
        warnings.warn(f"{directory}: {_left_out(skipped)}", InputWarning, stacklevel=2)


def _left_out(skipped: Counter[str]) -> str:
    """Return the text on files that are left out for their suffix, given the number of files of each suffix."""
    shown = [
        f"{count} {suffix or 'without suffix'}{' (needs ffmpeg)' if suffix in ffmpeg.SUFFIXES else ''}"
        for suffix, count in skipped.most_common(MAX_SUFFIXES_SHOWN)
    ]
    more = ["..."] if len(skipped) > len(shown) else []
    return f"{skipped.total()} files are left out for their suffix: {', '.join(shown + more)}"


def _audio_files(
    directory: Path, suffixes: tuple[str, ...], skipped: Counter[str], above: frozenset[Path] = frozenset()
) -> Iterator[Recording]:
    """Find audio files below a directory, sorted by name, without hidden files.

    Pipes and devices are left out too, since reading one might never end. A link that leads back to a parent directory
    is not followed (`above` holds the real paths of the parents). A directory that cannot be listed is yielded as a
    recording with a fault. Files with a suffix other than `suffixes` are counted in `skipped`.
    """
    above |= {directory.resolve()}
    try:
        # Names alone: 100,000 paths would take 40 MB.
        for name in sorted(entry.name for entry in directory.iterdir()):
            if name.startswith("."):
                continue
            entry = directory / name
            suffix = entry.suffix.lower()
            if entry.is_dir():
                if entry.resolve() not in above:
                    yield from _audio_files(entry, suffixes, skipped, above)
            elif entry.is_file() or not entry.exists():
                if suffix in suffixes:
                    yield Recording(str(entry), entry)
                else:
                    skipped[suffix] += 1
    except OSError as error:
        yield Recording(str(directory), directory, fault=f"{directory}: cannot be searched: {error.strerror}")
