"""Recordings for prediction, from audio files, directories, lists and wav.scp files."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distilmos.data import ffmpeg
from distilmos.data.archive import read_scp
from distilmos.data.audio import stream_audio
from distilmos.data.checks import Checks
from distilmos.data.datadir import read_data_dir
from distilmos.data.tables import read_lines
from distilmos.errors import InputError, InputWarning

# Formats of libsndfile that have their own suffix; `audio_suffixes` adds those of ffmpeg.
_SUFFIXES = (".aif", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".rf64", ".sph", ".w64", ".wav")
LISTS = (".lst", ".txt")
MAX_SUFFIXES_SHOWN = 8


@dataclass(frozen=True)
class Recording:
    """A recording to score.

    Attributes:
        utterance: id from the wav.scp, otherwise the path as the user gave it.
        path: the audio file, or an archive.
        offset: byte offset of the recording in the archive.
        fault: why the recording cannot be read, if already known; empty otherwise.
        channel: the channel to read, counted from 1; None for the mean of all.
    """

    utterance: str
    path: Path
    offset: int | None = None
    fault: str = ""
    channel: int | None = None

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
        yield from stream_audio(self.path, block_seconds, self.offset, channel=self.channel, checks=checks)


def audio_suffixes() -> tuple[str, ...]:
    """Return the suffixes of the audio files that can be read here, which depends on ffmpeg."""
    return (*_SUFFIXES, *ffmpeg.SUFFIXES) if ffmpeg.available() else _SUFFIXES


def find_recordings(inputs: Iterable[str]) -> Iterator[Recording]:
    """Resolve the inputs of a user to recordings, in the order of the inputs.

    An input is an audio file; a directory, searched recursively for audio files (`audio_suffixes`) in order of their
    names; a Kaldi-style data directory (it has a wav.scp); a list of audio files (.txt, .lst; one path per line); or a
    wav.scp. All inputs are checked before the first recording is returned. Directories are searched step by step, so
    that memory does not grow with the number of files. At the end of each, an InputWarning counts the files that were
    left out for their suffix.

    Raises:
        InputError: if an input does not exist or is a faulty list.
    """
    sources = [_source(name) for name in inputs]
    return (recording for source in sources for recording in source)


def _source(name: str) -> Iterable[Recording]:
    path = Path(name)
    if path.is_dir():
        if (path / "wav.scp").exists():
            return _located(read_data_dir(path, rated=False).wavs)
        suffixes = audio_suffixes()
        skipped: Counter[str] = Counter()
        if next(_audio_files(path, suffixes, skipped), None) is None:
            reason = f"; {_left_out(skipped)}" if skipped else ""
            raise InputError(f"{name}: directory without audio files ({', '.join(suffixes)}){reason}")
        return _search(path, suffixes)
    if not path.exists():
        raise InputError(f"{name}: no such file or directory")
    if path.suffix == ".scp":
        return _located(read_scp(path))
    if path.suffix in LISTS:
        return [Recording(line, Path(line)) for line in map(str.strip, read_lines(path)) if line]
    return [Recording(name, path)]


def _located(wavs: dict[str, tuple[Path, int | None]]) -> list[Recording]:
    return [Recording(utterance, path, offset) for utterance, (path, offset) in wavs.items()]


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
    try:
        entries = [entry for entry in sorted(directory.iterdir()) if not entry.name.startswith(".")]
        directories = {entry for entry in entries if entry.is_dir()}
        special = {entry for entry in entries if entry.exists() and not entry.is_file()} - directories
    except OSError as error:
        yield Recording(str(directory), directory, fault=f"{directory}: cannot be searched: {error.strerror}")
        return
    above |= {directory.resolve()}
    for entry in entries:
        suffix = entry.suffix.lower()
        if entry in directories:
            if entry.resolve() not in above:
                yield from _audio_files(entry, suffixes, skipped, above)
        elif entry not in special:
            if suffix in suffixes:
                yield Recording(str(entry), entry)
            else:
                skipped[suffix] += 1
