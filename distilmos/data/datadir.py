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
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from distilmos.data.archive import read_scp, split_location
from distilmos.data.audio import audio_seconds
from distilmos.data.tables import (
    ScannedTable,
    V,
    c_locale_key,
    finite_number,
    is_utf8,
    read_floats,
    read_lines,
    read_table,
    scan_table,
    write_table,
)
from distilmos.errors import InputError, raise_faults
from distilmos.files import temporary_name, write_text

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
    faults += [f"utterance {a.id} is given twice" for a, b in pairwise(ordered) if a.id == b.id]
    faults += [
        f"{u.id} {listener}: the rating is not a finite number: {score}"
        for u in ordered
        for listener, score in u.ratings
        if not math.isfinite(score)
    ]
    durations: dict[str, float] = {}
    for utterance in ordered:
        if not is_utf8(f"{utterance.id} {utterance.audio}"):
            faults.append(f"{utterance.id!r}: the name is not UTF-8 text: {str(utterance.audio)!r}")
            continue
        try:
            durations[utterance.id] = audio_seconds(utterance.audio)
        except InputError as error:
            faults.append(f"{utterance.id}: {error}")
    raise_faults(faults, f"preparing {directory}")

    temporary = temporary_name(directory)
    try:
        temporary.mkdir(parents=True)
        write_table(temporary / "wav.scp", {u.id: str(Path(u.audio).absolute()) for u in ordered})
        write_table(temporary / "utt2dur", durations)
        _write_column(temporary / "utt2sys", ordered, lambda u: u.system)
        _write_column(temporary / "utt2mos", ordered, _mean_score)
        _write_column(temporary / "utt2spk", ordered, lambda u: u.speaker)
        _write_column(temporary / "text", ordered, lambda u: u.text)
        lines = [f"{u.id} {listener} {_shortest(score)}\n" for u in ordered for listener, score in u.ratings]
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


def _shortest(score: float) -> str:
    """Write a whole rating without a decimal point, and any other so that it reads back exactly."""
    return str(int(score)) if score == int(score) else str(score)


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
    old = temporary_name(directory)
    if directory.exists():
        directory.rename(old)
    try:
        new.rename(directory)
    except BaseException:
        if old.exists():
            old.rename(directory)
        raise
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

    def scan(name: str, convert: Callable[[str], V], required: bool = False) -> ScannedTable[V] | None:
        path = directory / name
        if not required and not path.exists():
            return None
        try:
            table = scan_table(path, convert)
        except InputError as error:
            faults.append(str(error))
            return None
        faults.extend(table.faults + _order_faults(table))
        return table

    wavs = scan("wav.scp", split_location, required=True)
    systems = scan("utt2sys", str, required=True)
    durations = scan("utt2dur", finite_number, required=True)
    mos = scan("utt2mos", finite_number, required=rated)
    groups = scan("sys2group", str)
    if wavs:
        complete = [table for table in (systems, durations, mos) if table]
        partial = [table for table in (scan("utt2spk", str), scan("text", str)) if table]
        for table in [*complete, *partial]:
            faults.extend(f"{table.where(key)} is not in wav.scp" for key in table.lines if key not in wavs.lines)
        for table in complete:
            name = table.path.name
            faults.extend(f"{wavs.where(key)} is not in {name}" for key in wavs.lines if key not in table.lines)
        if not wavs.lines:
            faults.append(f"{wavs.path}: empty")
        missing = ((key, path) for key, (path, _) in wavs.values.items() if not path.is_file())
        faults.extend(f"{wavs.where(key)}: no such file: {path}" for key, path in missing)
    if systems:
        for key, system in systems.values.items():
            if len(system.split()) != 1:
                faults.append(f"{systems.where(key)}: the system {system!r} has white space")
            elif groups and system not in groups.lines:
                faults.append(f"{systems.where(key)}: {system} is not in sys2group")
    if durations:
        wrong = ((key, seconds) for key, seconds in durations.values.items() if seconds <= 0)
        faults.extend(f"{durations.where(key)}: not a positive duration: {seconds}" for key, seconds in wrong)
    if mos:
        outside = ((key, score) for key, score in mos.values.items() if not MOS_RANGE[0] <= score <= MOS_RANGE[1])
        faults.extend(f"{mos.where(key)}: {score} is not in 1..5" for key, score in outside)
    if (directory / "ratings").exists():
        faults.extend(_rating_faults(directory / "ratings", wavs.lines if wavs else None, mos.values if mos else {}))
    return faults


def _order_faults(table: ScannedTable) -> list[str]:
    """Name the first key that is out of order; the others mostly follow from it."""
    for before, after in pairwise(table.lines):
        if c_locale_key(before) > c_locale_key(after):
            return [f"{table.where(after)} is out of order (sort with LC_ALL=C)"]
    return []


def _rating_faults(path: Path, wavs: dict | None, mos: dict[str, float]) -> list[str]:
    try:
        ratings, first_lines, faults = _read_ratings(path)
    except InputError as error:
        return [str(error)]
    for utterance, scores in ratings.items():
        where = f"{path}:{first_lines[utterance]}: {utterance}"
        if wavs is not None and utterance not in wavs:
            faults.append(f"{where} is not in wav.scp")
        mean = math.fsum(score for _, score in scores) / len(scores)
        if utterance in mos and abs(mean - mos[utterance]) > MEAN_TOLERANCE:
            faults.append(f"{where}: the ratings' mean is {mean:.4f}, utt2mos has {mos[utterance]:.4f}")
    return faults


def _read_ratings(path: Path) -> tuple[dict[str, list[tuple[str, float]]], dict[str, int], list[str]]:
    """Return utterance -> (listener, score) pairs, utterance -> its first line, and the faulty lines (left out)."""
    ratings: dict[str, list[tuple[str, float]]] = {}
    first_lines: dict[str, int] = {}
    faults: list[str] = []
    seen: dict[tuple[str, str], int] = {}
    last = ""
    for line, text in enumerate(read_lines(path), start=1):
        fields = text.split()
        if len(fields) != 3:
            faults.append(f"{path}:{line}: expected 'utterance listener score', found {text!r}")
            continue
        utterance, listener, value = fields
        if c_locale_key(utterance) < c_locale_key(last):
            faults.append(f"{path}:{line}: {utterance} is out of order (sort with LC_ALL=C)")
        last = utterance
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
            first_lines.setdefault(utterance, line)
            ratings.setdefault(utterance, []).append((listener, score))
    return ratings, first_lines, faults
