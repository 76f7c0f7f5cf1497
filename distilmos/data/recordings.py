"""Recordings for prediction, from audio files, directories, lists and wav.scp files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distilmos.data.archive import read_scp, split_location
from distilmos.data.audio import WHOLE, Span, stream_audio
from distilmos.data.schema import SEGMENTS, segment
from distilmos.data.tables import read_lines, scan_table
from distilmos.data.validate import segment_faults
from distilmos.errors import InputError, raise_faults

# Formats of libsndfile that have their own suffix.
SUFFIXES = (".aif", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".rf64", ".sph", ".w64", ".wav")
LISTS = (".lst", ".txt")


@dataclass(frozen=True)
class Recording:
    """A recording to score, or a segment of one.

    Attributes:
        utterance: id from the segments or the wav.scp, otherwise the path as the user gave it.
        path: the audio file, or an archive.
        offset: byte offset of the recording in the archive.
        fault: why the recording cannot be read, if already known; empty otherwise.
        span: the part to score.
        where: `file:line: utterance` of a segment, for errors; empty for a whole recording.
    """

    utterance: str
    path: Path
    offset: int | None = None
    fault: str = ""
    span: Span = WHOLE
    where: str = ""

    def stream(self, block_seconds: float) -> Iterator[np.ndarray]:
        """Read the recording as 16 kHz mono; see `stream_audio`.

        Raises:
            InputError: if the recording cannot be read.
        """
        if self.fault:
            raise InputError(self.fault)
        try:
            yield from stream_audio(self.path, block_seconds, self.offset, self.span)
        except InputError as error:
            raise InputError(f"{self.where}: {error}" if self.where else str(error)) from None


def find_recordings(inputs: Iterable[str]) -> Iterator[Recording]:
    """Resolve the inputs of a user to recordings, in the order of the inputs.

    An input is an audio file; a directory, searched recursively for audio files (SUFFIXES) in order of their names; a
    Kaldi-style data directory (it has a wav.scp), of which only wav.scp and `segments` are read; a list of audio files
    (.txt, .lst; one path per line); or a wav.scp, whose recordings are scored whole.
    All inputs are checked before the first recording is returned. Directories are searched step by step, so that memory
    does not grow with the number of files.

    Raises:
        InputError: if an input does not exist or is a faulty list.
    """
    sources = [_source(name) for name in inputs]
    return (recording for source in sources for recording in source)


def _source(name: str) -> Iterable[Recording]:
    path = Path(name)
    if path.is_dir():
        if (path / "wav.scp").exists():
            return _segments(path) if (path / SEGMENTS).exists() else _located(read_scp(path / "wav.scp"))
        if next(_audio_files(path), None) is None:
            raise InputError(f"{name}: directory without audio files ({', '.join(SUFFIXES)})")
        return _audio_files(path)
    if not path.exists():
        raise InputError(f"{name}: no such file or directory")
    if path.suffix == ".scp":
        return _located(read_scp(path))
    if path.suffix in LISTS:
        return [Recording(line, Path(line)) for line in map(str.strip, read_lines(path)) if line]
    return [Recording(name, path)]


def _located(wavs: dict[str, tuple[Path, int | None]]) -> list[Recording]:
    return [Recording(utterance, path, offset) for utterance, (path, offset) in wavs.items()]


def _segments(directory: Path) -> list[Recording]:
    """Return the segments of a data directory in the order of `segments`."""
    wavs = scan_table(directory / "wav.scp", split_location)
    segments = scan_table(directory / SEGMENTS, segment)
    faults = [*wavs.faults, *segments.faults] if segments.lines else [f"{segments.path}: empty"]
    faults += segment_faults(segments, {key: recording for key, (recording, _) in segments.values.items()}, wavs)
    raise_faults(faults, str(directory))
    return [
        Recording(utterance, *wavs.values[recording], span=span, where=segments.where(utterance))
        for utterance, (recording, span) in segments.values.items()
    ]


def _audio_files(directory: Path, above: frozenset[Path] = frozenset()) -> Iterator[Recording]:
    """Find audio files below a directory, sorted by name, without hidden files.

    Pipes and devices are left out too, since reading one might never end. A link that leads back to a parent directory
    is not followed (`above` holds the real paths of the parents). A directory that cannot be listed is yielded as a
    recording with a fault.
    """
    try:
        entries = [entry for entry in sorted(directory.iterdir()) if not entry.name.startswith(".")]
        directories = {entry for entry in entries if entry.is_dir()}
        special = {entry for entry in entries if entry.exists() and not entry.is_file()} - directories
    except OSError as error:
        yield Recording(str(directory), directory, fault=f"{directory}: cannot be searched: {error.strerror}")
        return
    above |= {directory.resolve()}
    for entry in entries:
        if entry in directories:
            if entry.resolve() not in above:
                yield from _audio_files(entry, above)
        elif entry.suffix.lower() in SUFFIXES and entry not in special:
            yield Recording(str(entry), entry)
