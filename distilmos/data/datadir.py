"""Kaldi-style data directories of rated speech: written whole, validated, read.

Files (UTF-8, one line an entry, sorted by utterance id in the C locale):

    wav.scp   utt  audio path, or archive:offset
    utt2sys   utt  system under test
    utt2mos   utt  mean opinion score                 (absent where nothing is rated)
    ratings   utt  listener  score                    (where known; several lines an utterance)
    utt2dur   utt  seconds
    utt2spk   utt  speaker                            (optional)
    text      utt  transcript                         (optional)
    sys2group system  group, such as a degradation type  (optional)
    notes     one line that whoever shows results of this set must show too, such as "The ratings are simulated."
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from distilmos.data.archive import read_scp
from distilmos.data.audio import audio_seconds
from distilmos.data.tables import c_locale_key, read_floats, read_lines, read_table, write_table
from distilmos.errors import InputError, raise_faults
from distilmos.files import write_text

MOS_RANGE = (1.0, 5.0)  # absolute category rating (ITU-T P.800)
# A mean of ratings in utt2mos may have been rounded by the corpus.
MEAN_TOLERANCE = 0.01


@dataclass(frozen=True)
class Utterance:
    """One rated (or unrated) recording, as a recipe's data preparation knows it.

    Attributes:
        id: unique utterance id without white space.
        audio: path of an audio file.
        system: the system (or degradation condition) that made it.
        mos: mean score; None takes the mean of `ratings`, and no score where there are no ratings either.
        ratings: (listener, score) pairs.
        speaker: speaker id, where known.
        text: transcript, where known.
        group: what kind of system this is, such as the type of degradation; the same for all of a system.
    """

    id: str
    audio: str | Path
    system: str
    mos: float | None = None
    ratings: tuple[tuple[str, float], ...] = ()
    speaker: str | None = None
    text: str | None = None
    group: str | None = None


@dataclass
class DataDir:
    """A data directory in memory; every mapping is keyed by utterance id, but `groups` by system."""

    path: Path
    wavs: dict[str, tuple[Path, int | None]]
    systems: dict[str, str]
    durations: dict[str, float]
    mos: dict[str, float] = field(default_factory=dict)
    ratings: dict[str, list[tuple[str, float]]] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    notes: str = ""

    @property
    def utterances(self) -> list[str]:
        """All utterance ids, sorted in the C locale."""
        return sorted(self.wavs, key=c_locale_key)


def write_data_dir(directory: str | Path, utterances: Iterable[Utterance], notes: str = "") -> int:
    """Write a data directory, replacing an older one as a whole.

    Args:
        directory: for example data/train.
        utterances: in any order.
        notes: one line for the file `notes`; none is written if it is empty.

    Returns:
        the number of utterances.

    Raises:
        InputError: naming every fault that `validate_data_dir` finds, and every unreadable recording. The
            directory is then left as it was.
    """
    directory = Path(directory)
    ordered = sorted(utterances, key=lambda utterance: c_locale_key(utterance.id))
    faults = [f"utterance id {u.id!r} is empty or has white space" for u in ordered if len(u.id.split()) != 1]
    faults += [f"utterance {a.id} is given twice" for a, b in zip(ordered, ordered[1:], strict=False) if a.id == b.id]
    durations: dict[str, float] = {}
    for utterance in ordered:
        try:
            durations[utterance.id] = audio_seconds(utterance.audio)
        except InputError as error:
            faults.append(f"{utterance.id}: {error}")
    raise_faults(faults, f"preparing {directory}")

    temporary = directory.with_name(f".{directory.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        write_table(temporary / "wav.scp", {u.id: str(Path(u.audio).absolute()) for u in ordered})
        write_table(temporary / "utt2dur", durations)
        _write_column(temporary / "utt2sys", ordered, lambda u: u.system)
        _write_column(temporary / "utt2mos", ordered, _mean_score)
        _write_column(temporary / "utt2spk", ordered, lambda u: u.speaker)
        _write_column(temporary / "text", ordered, lambda u: u.text)
        lines = [f"{u.id} {listener} {score:g}\n" for u in ordered for listener, score in u.ratings]
        if lines:
            write_text(temporary / "ratings", "".join(lines))
        groups = {u.system: u.group for u in ordered if u.group is not None}
        if groups:
            write_table(temporary / "sys2group", groups)
        if notes:
            write_text(temporary / "notes", notes + "\n")
        rated = (temporary / "utt2mos").exists()
        faults = [fault.replace(str(temporary), str(directory)) for fault in validate_data_dir(temporary, rated=rated)]
        raise_faults(faults, f"preparing {directory}")
        _replace_directory(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return len(ordered)


def _mean_score(utterance: Utterance) -> float | None:
    if utterance.mos is not None or not utterance.ratings:
        return utterance.mos
    return math.fsum(score for _, score in utterance.ratings) / len(utterance.ratings)


def _write_column(
    path: Path, utterances: list[Utterance], value: Callable[[Utterance], str | float | None]
) -> None:
    """Write one optional table; no file where no utterance has a value."""
    column = {u.id: v for u in utterances if (v := value(u)) is not None}
    if column:
        write_table(path, column)


def _replace_directory(new: Path, directory: Path) -> None:
    """Rename `new` to `directory`; an older one disappears only once the new one is ready."""
    old = directory.with_name(f".{directory.name}.{os.getpid()}.old")
    if directory.exists():
        directory.rename(old)
    new.rename(directory)
    shutil.rmtree(old, ignore_errors=True)


def read_data_dir(directory: str | Path, *, rated: bool = True) -> DataDir:
    """Read a data directory that has no fault.

    Args:
        directory: its path.
        rated: whether utt2mos must be there.

    Raises:
        InputError: naming every fault that `validate_data_dir` finds.
    """
    directory = Path(directory)
    raise_faults(validate_data_dir(directory, rated=rated), f"{directory} is not a valid data directory")
    return DataDir(
        path=directory,
        wavs=read_scp(directory / "wav.scp"),
        systems=read_table(directory / "utt2sys"),
        durations=read_floats(directory / "utt2dur"),
        mos=read_floats(directory / "utt2mos") if (directory / "utt2mos").exists() else {},
        ratings=_read_ratings(directory / "ratings")[0] if (directory / "ratings").exists() else {},
        groups=read_table(directory / "sys2group") if (directory / "sys2group").exists() else {},
        notes=" ".join(read_lines(directory / "notes")).strip() if (directory / "notes").exists() else "",
    )


def validate_data_dir(directory: str | Path, *, rated: bool = True) -> list[str]:
    """Return every fault of a data directory, one line each with file and line; empty if it is valid.

    Args:
        directory: its path.
        rated: whether utt2mos must be there.
    """
    directory = Path(directory)
    if not directory.is_dir():
        return [f"{directory}: no such directory"]
    faults: list[str] = []

    def checked(name: str, read: Callable[[Path], dict], required: bool) -> dict:
        path = directory / name
        if not required and not path.exists():
            return {}
        try:
            table = read(path)
        except InputError as error:
            faults.append(str(error))
            return {}
        faults.extend(_order_faults(path, list(table)))
        return table

    wavs = checked("wav.scp", read_scp, required=True)
    tables = {
        "utt2sys": checked("utt2sys", read_table, required=True),
        "utt2dur": checked("utt2dur", read_floats, required=True),
        "utt2mos": checked("utt2mos", read_floats, required=rated),
        "utt2spk": checked("utt2spk", read_table, required=False),
        "text": checked("text", read_table, required=False),
    }
    checked("sys2group", read_table, required=False)
    for line, (utterance, (path, _)) in enumerate(wavs.items(), start=1):
        if not path.is_file():
            faults.append(f"{directory / 'wav.scp'}:{line}: {utterance}: no such file: {path}")
    for name, table in tables.items():
        if table and wavs:
            faults.extend(_coverage_faults(directory / name, table, wavs))
    for line, (utterance, seconds) in enumerate(tables["utt2dur"].items(), start=1):
        if seconds <= 0:
            faults.append(f"{directory / 'utt2dur'}:{line}: {utterance}: not a positive duration: {seconds}")
    for line, (utterance, score) in enumerate(tables["utt2mos"].items(), start=1):
        if not MOS_RANGE[0] <= score <= MOS_RANGE[1]:
            faults.append(f"{directory / 'utt2mos'}:{line}: {utterance}: {score} is not in 1..5")
    if (directory / "ratings").exists():
        faults.extend(_rating_faults(directory, wavs, tables["utt2mos"]))
    return faults


def _order_faults(path: Path, keys: list[str]) -> list[str]:
    for line, (before, after) in enumerate(zip(keys, keys[1:], strict=False), start=2):
        if c_locale_key(before) > c_locale_key(after):
            return [f"{path}:{line}: {after} is out of order (sort with LC_ALL=C)"]
    return []


def _coverage_faults(path: Path, table: dict, wavs: dict) -> list[str]:
    extra = [f"{path}:{n}: {key} is not in wav.scp" for n, key in enumerate(table, start=1) if key not in wavs]
    if path.name in ("utt2spk", "text"):
        return extra
    lines = enumerate(wavs, start=1)
    return extra + [f"{path.with_name('wav.scp')}:{n}: {key} is not in {path.name}" for n, key in lines if key not in table]


def _rating_faults(directory: Path, wavs: dict, mos: dict[str, float]) -> list[str]:
    path = directory / "ratings"
    try:
        ratings, faults = _read_ratings(path)
    except InputError as error:
        return [str(error)]
    for utterance, scores in ratings.items():
        if utterance not in wavs:
            faults.append(f"{path}: {utterance} is not in wav.scp")
        mean = math.fsum(score for _, score in scores) / len(scores)
        if utterance in mos and abs(mean - mos[utterance]) > MEAN_TOLERANCE:
            faults.append(f"{path}: {utterance}: the ratings' mean is {mean:.4f}, utt2mos has {mos[utterance]:.4f}")
    return faults


def _read_ratings(path: Path) -> tuple[dict[str, list[tuple[str, float]]], list[str]]:
    """Return utterance -> (listener, score) pairs, and the faulty lines (left out)."""
    ratings: dict[str, list[tuple[str, float]]] = {}
    faults: list[str] = []
    seen: dict[tuple[str, str], int] = {}
    for line, text in enumerate(read_lines(path), start=1):
        fields = text.split()
        if len(fields) != 3:
            faults.append(f"{path}:{line}: expected 'utterance listener score', found {text!r}")
            continue
        utterance, listener, value = fields
        try:
            score = float(value)
        except ValueError:
            score = math.nan
        if not MOS_RANGE[0] <= score <= MOS_RANGE[1]:
            faults.append(f"{path}:{line}: {utterance} {listener}: {value!r} is not a score in 1..5")
        elif (utterance, listener) in seen:
            faults.append(f"{path}:{line}: {utterance} {listener} is already in line {seen[utterance, listener]}")
        else:
            seen[utterance, listener] = line
            ratings.setdefault(utterance, []).append((listener, score))
    return ratings, faults
