"""The recordings of the stimuli of a listening test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from distilmos.data.exports import webmushra
from distilmos.data.lists import read_rows
from distilmos.data.recordings import DELIMITERS, audio_suffixes, find_recordings
from distilmos.data.tables import is_utf8
from distilmos.errors import InputError, raise_faults
from distilmos.files import is_file


class Places:
    """Knows where the recordings of stimuli are."""

    def __init__(self, directory: Path | None, listed: Mapping[str, str]) -> None:
        """Search the directory.

        Args:
            directory: the directory of the recordings; None if stimuli are paths.
            listed: stimulus -> path or name of its recording, where that is not the stimulus itself.

        Raises:
            InputError: if it is not a directory.
        """
        self.listed = listed
        self._directory = directory
        self._found: dict[str, list[Path]] = {}
        if directory is None:
            return
        if not directory.is_dir():
            raise InputError(f"{directory}: not a directory of recordings")
        for recording in find_recordings([str(directory)]):
            if is_utf8(str(recording.path)):
                for name in {recording.path.name, recording.path.stem}:
                    self._found.setdefault(name, []).append(recording.path)

    def find(self, stimulus: str, base: Path) -> Path | None:
        """Return the recording of a stimulus; None if there is none.

        It is the path in the directory that the stimulus gives. If a list gives this path, the directory may also be
        one of its parents, and nothing else is meant. Otherwise, if the stimulus is a path or URL of an audio file, it
        has the same name, with any suffix; of several, the one with the most equal parent directories is meant. A
        stimulus that is just a name, or TRIAL/NAME, is the recording TRIAL/NAME, TRIAL_NAME or TRIAL-NAME with any
        suffix.

        Args:
            stimulus: path, URL or name.
            base: the directory of the export, which paths are relative to without a directory of recordings.

        Raises:
            InputError: if several recordings could be meant.
        """
        name = self.listed.get(stimulus, stimulus)
        parts = _parts(name)
        path = (self._directory or base) / ("/".join(parts) if "://" in name else name)
        if is_file(path):
            return path
        if not parts:
            return None
        if stimulus in self.listed and len(parts) > 1:
            ends = [path for path in self._found.get(parts[-1], []) if _ends_with(parts, self.below(path, base).parts)]
            return max(ends, key=lambda path: len(path.parts), default=None)
        last = PurePosixPath(parts[-1])
        if last.suffix.lower() in audio_suffixes():
            found = self._found.get(last.name) or self._found.get(last.stem, [])
        else:
            found = [path for path in self._found.get(parts[-1], []) if _equal(path, parts) == len(parts) - 1]
            found = found or self._found.get("_".join(parts)) or self._found.get("-".join(parts)) or []
        most = max((_equal(path, parts) for path in found), default=0)
        closest = [path for path in found if _equal(path, parts) == most]
        if len(closest) > 1:
            raise InputError(f"{stimulus} may be {closest[0]} or {closest[1]}; say which in a list of recordings")
        return closest[0] if closest else None

    def name(self, recording: Path, base: Path) -> str:
        """Return an utterance id: the path below the directory, without suffix, joined by hyphens."""
        return "-".join(self.below(recording, base).with_suffix("").parts)

    def below(self, recording: Path, base: Path) -> Path:
        """Return the path of a recording below the directory; its name alone if it is elsewhere."""
        root = self._directory or base
        return recording.relative_to(root) if recording.is_relative_to(root) else Path(recording.name)

    def folder(self, recording: Path) -> str:
        """Return the first folder of the path below the directory; empty if there is none."""
        if self._directory is None or not recording.is_relative_to(self._directory):
            return ""
        return next(iter(recording.relative_to(self._directory).parts[:-1]), "")


def _ends_with(parts: Sequence[str], last: Sequence[str]) -> bool:
    return list(parts[-len(last) :]) == list(last)


def _parts(name: str) -> list[str]:
    """Return the components of a path, without the host and the query of a URL."""
    path = unquote(urlsplit(name).path) if "://" in name else name
    return [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]


def _equal(path: Path, parts: Sequence[str]) -> int:
    """Return how many parent directories of a path, from the last one on, equal those of a stimulus."""
    pairs = zip(reversed(path.parts[:-1]), reversed(parts[:-1]), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def read_places(path: Path) -> dict[str, str]:
    """Read which recording each stimulus is, from a CSV or TSV file (stimulus, file) or webMUSHRA's configuration.

    Raises:
        InputError: if it is neither, or naming each faulty line.
    """
    if path.suffix.lower() in (".yaml", ".yml"):
        return webmushra.read_config(path)
    if path.suffix.lower() not in DELIMITERS:
        raise InputError(f"{path}: expected a list of recordings (.csv, .tsv) or a configuration of webMUSHRA (.yaml)")
    faults: list[str] = []
    columns = ["stimulus", "file"]
    rows = read_rows(path, columns, faults, header=True, delimiter=DELIMITERS[path.suffix.lower()])
    raise_faults(faults, str(path))
    return {row["stimulus"]: row["file"] for row in rows}
