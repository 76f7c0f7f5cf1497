"""Plain speech: all recordings below a directory, without ratings."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from distilmos.data.recordings import find_recordings
from distilmos.data.tables import is_utf8
from distilmos.errors import InputError


@dataclass(frozen=True)
class PlainRecording:
    """A recording of plain speech.

    Attributes:
        id: utterance id, made from the path below the directory.
        path: of the audio file.
        folder: first folder of the path below the directory; the name of the directory if there is none.
    """

    id: str
    path: Path
    folder: str

    def one_in(self, count: int, number: int = 0) -> bool:
        """Return whether the recording is in share `number` of `count` equal shares.

        A hash of the id decides, so that a recording keeps its share when others are added.
        """
        return int(hashlib.sha256(self.id.encode()).hexdigest(), 16) % count == number


def find_plain_speech(root: Path) -> Iterator[PlainRecording]:
    """Find the recordings below `root`, sorted by name.

    Raises:
        InputError: if `root` is not a directory of audio files, or a file name is not UTF-8.
    """
    if not root.is_dir() or (root / "wav.scp").exists():
        raise InputError(f"{root}: not a directory of audio files")
    for recording in find_recordings([str(root)]):
        if not is_utf8(str(recording.path)):
            raise InputError(f"{root}: {str(recording.path)!a}: the name is not UTF-8")
        below = recording.path.relative_to(root).with_suffix("")
        folder = below.parts[0] if len(below.parts) > 1 else root.resolve().name
        yield PlainRecording("-".join(below.parts), recording.path, folder)
