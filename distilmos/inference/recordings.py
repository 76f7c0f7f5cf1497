"""What a user names for prediction, one recording after the other: files, directories, lists, wav.scp."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from distilmos.data.archive import read_scp
from distilmos.data.datadir import read_data_dir
from distilmos.data.tables import read_lines
from distilmos.errors import InputError

# What libsndfile reads, as far as its files have suffixes of their own.
SUFFIXES = (".aif", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".rf64", ".sph", ".w64", ".wav")
LISTS = (".lst", ".txt")


@dataclass(frozen=True)
class Recording:
    """A recording to score.

    Attributes:
        utterance: its id: that of a wav.scp, otherwise its path as the user named it.
        path: the audio file, or an archive.
        offset: byte offset of the recording in the archive.
    """

    utterance: str
    path: Path
    offset: int | None = None


def find_recordings(inputs: Iterable[str]) -> Iterator[Recording]:
    """Resolve what a user names to recordings, in the order of the inputs.

    An input is an audio file; a directory, searched for audio files (SUFFIXES) with what is below it, by name; a data
    directory of Kaldi's kind (it has a wav.scp); a list of audio files (.txt or .lst, one path a line); or a wav.scp.
    All inputs are looked at before the first recording comes; what is in a directory is found as it goes on, so that
    memory does not grow with the number of files.

    Raises:
        InputError: if an input does not exist, or is a faulty list.
    """
    sources = [_source(name) for name in inputs]
    return (recording for source in sources for recording in source)


def _source(name: str) -> Iterable[Recording]:
    path = Path(name)
    if path.is_dir():
        if (path / "wav.scp").exists():
            return _located(read_data_dir(path, rated=False).wavs)
        if next(_audio_files(path), None) is None:
            raise InputError(f"{name}: a directory without audio files ({', '.join(SUFFIXES)})")
        return (Recording(str(file), file) for file in _audio_files(path))
    if not path.exists():
        raise InputError(f"{name}: no such file or directory")
    if path.suffix == ".scp":
        return _located(read_scp(path))
    if path.suffix in LISTS:
        return [Recording(line, Path(line)) for line in map(str.strip, read_lines(path)) if line]
    return [Recording(name, path)]


def _located(wavs: dict[str, tuple[Path, int | None]]) -> list[Recording]:
    return [Recording(utterance, path, offset) for utterance, (path, offset) in wavs.items()]


def _audio_files(directory: Path) -> Iterator[Path]:
    """Find audio files below a directory, sorted by name; hidden ones are left out, as ls does."""
    for entry in sorted(directory.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _audio_files(entry)
        elif entry.suffix.lower() in SUFFIXES:
            yield entry
