"""Kaldi-style data directories of rated speech: written whole, validated, read.

Files (UTF-8, one line an entry, sorted by utterance id in the C locale):

    wav.scp   utt  audio path, or archive:offset
    utt2sys   utt  system under test
    utt2mos   utt  mean opinion score                 (absent where nothing is rated)
    ratings   utt  listener  score                    (where known; several lines an utterance)
    utt2dur   utt  seconds
    utt2spk   utt  speaker                            (optional)
    utt2sent  utt  sentence, what is said              (optional)
    text      utt  transcript                         (optional)
    utt2corpus utt corpus                             (where several are joined)
    sys2group system  group, such as a degradation type  (optional)
    sys2mos   system  its true MOS, where that is not the mean of its utterances here  (optional)
    notes     one line that whoever shows results of this set must show too, such as "The ratings are simulated."
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Mapping
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
        sentence: id of what is said, where known; the same for all who say it.
        text: transcript, where known.
        group: what kind of system this is, such as the type of degradation; the same for all of a system.
        seconds: duration of the audio, where its header has been read already.
    """

    id: str
    audio: str | Path
    system: str
    mos: float | None = None
    ratings: tuple[tuple[str, float], ...] = ()
    speaker: str | None = None
    sentence: str | None = None
    text: str | None = None
    group: str | None = None
    seconds: float | None = None

    @property
    def mean_score(self) -> float | None:
        """The mean score; None where there is none."""
        if self.mos is not None or not self.ratings:
            return self.mos
        return math.fsum(score for _, score in self.ratings) / len(self.ratings)


@dataclass
class DataDir:
    """A data directory in memory; every mapping is keyed by utterance id, but `groups` and `system_mos` by system."""

    path: Path
    wavs: dict[str, tuple[Path, int | None]]
    systems: dict[str, str]
    durations: dict[str, float]
    mos: dict[str, float] = field(default_factory=dict)
    ratings: dict[str, list[tuple[str, float]]] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    system_mos: dict[str, float] = field(default_factory=dict)
    corpora: dict[str, str] = field(default_factory=dict)
    notes: str = ""

    @property
    def utterances(self) -> list[str]:
        """All utterance ids, sorted in the C locale."""
        return sorted(self.wavs, key=c_locale_key)


def write_data_dir(directory: str | Path, utterances: Iterable[Utterance], notes: str = "") -> int:
    """Write one data directory, as `write_data_dirs` does; return the number of utterances."""
    directory = Path(directory)
    return write_data_dirs(directory.parent, {directory.name: utterances}, notes)[directory.name]


def write_data_dirs(
    parent: str | Path,
    sets: Mapping[str, Iterable[Utterance]],
    notes: str = "",
    system_mos: Mapping[str, float] | None = None,
) -> dict[str, int]:
    """Write the data directories of a corpus, replacing older ones; all of them or, if anything is wrong, none.

    Args:
        parent: for example data.
        sets: name of the directory below `parent` -> its utterances in any order.
        notes: one line for the file `notes` of each; none is written if it is empty.
        system_mos: true MOS of systems for sys2mos; must have all systems of all sets. None leaves sys2mos out.

    Returns:
        name -> number of utterances.

    Raises:
        InputError: naming every fault that `validate_data_dir` finds, and every unreadable recording. All
            directories are then left as they were.
    """
    parent = Path(parent)
    ordered = {name: sorted(members, key=lambda u: c_locale_key(u.id)) for name, members in sets.items()}
    directories = {name: parent / name for name in sets}
    faults: list[str] = []
    durations = {name: _durations(directories[name], ordered[name], faults) for name in sets}
    raise_faults(faults, f"preparing {', '.join(map(str, directories.values()))}")

    temporary = {name: temporary_name(directory) for name, directory in directories.items()}
    try:
        for name, new in temporary.items():
            _write_tables(new, ordered[name], durations[name], notes)
            if system_mos is not None:
                systems = {u.system for u in ordered[name]} & system_mos.keys()
                write_table(new / "sys2mos", {system: system_mos[system] for system in systems})
            found = validate_data_dir(new, rated=(new / "utt2mos").exists())
            faults += [fault.replace(str(new), str(directories[name])) for fault in found]
        raise_faults(faults, f"preparing {', '.join(map(str, directories.values()))}")
        for name, new in temporary.items():
            replace_directory(new, directories[name])
    finally:
        for new in temporary.values():
            shutil.rmtree(new, ignore_errors=True)
    return {name: len(members) for name, members in ordered.items()}


def _durations(directory: Path, ordered: list[Utterance], faults: list[str]) -> dict[str, float]:
    """Return utterance -> seconds, and add to `faults` what no table can hold and what is no audio."""
    bad = [utterance.id for utterance in ordered if len(utterance.id.split()) != 1]
    faults += [f"{directory}: utterance id {name!r} is empty or has white space" for name in bad]
    faults += [f"{directory}: utterance {a.id} is given twice" for a, b in pairwise(ordered) if a.id == b.id]
    faults += [
        f"{directory}: {u.id} {listener}: the rating is not a finite number: {score}"
        for u in ordered
        for listener, score in u.ratings
        if not math.isfinite(score)
    ]
    durations: dict[str, float] = {}
    for utterance in ordered:
        if not is_utf8(f"{utterance.id} {utterance.audio}"):
            faults.append(f"{directory}: {utterance.id!r}: the name is not UTF-8 text: {str(utterance.audio)!r}")
            continue
        try:
            seconds = utterance.seconds
            durations[utterance.id] = audio_seconds(utterance.audio) if seconds is None else seconds
        except InputError as error:
            faults.append(f"{directory}: {utterance.id}: {error}")
    return durations


def _write_tables(directory: Path, ordered: list[Utterance], durations: dict[str, float], notes: str) -> None:
    """Make the files of a data directory."""
    directory.mkdir(parents=True)
    write_table(directory / "wav.scp", {u.id: str(Path(u.audio).absolute()) for u in ordered})
    write_table(directory / "utt2dur", durations)
    _write_column(directory / "utt2sys", ordered, lambda u: u.system)
    _write_column(directory / "utt2mos", ordered, lambda u: u.mean_score)
    _write_column(directory / "utt2spk", ordered, lambda u: u.speaker)
    _write_column(directory / "utt2sent", ordered, lambda u: u.sentence)
    _write_column(directory / "text", ordered, lambda u: u.text)
    lines = [f"{u.id} {listener} {_shortest(score)}\n" for u in ordered for listener, score in u.ratings]
    if lines:
        write_text(directory / "ratings", "".join(lines))
    groups = {u.system: u.group for u in ordered if u.group is not None}
    if groups:
        write_table(directory / "sys2group", groups)
    if notes:
        write_text(directory / "notes", notes + "\n")


def _shortest(score: float) -> str:
    """Write a whole rating without a decimal point, and any other so that it reads back exactly."""
    return str(int(score)) if score == int(score) else str(score)


def _write_column(path: Path, utterances: list[Utterance], value: Callable[[Utterance], str | float | None]) -> None:
    """Write one optional table; no file where no utterance has a value."""
    column = {u.id: v for u in utterances if (v := value(u)) is not None}
    if column:
        write_table(path, column)


def replace_directory(new: Path, directory: Path) -> None:
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
        corpora=read_table(directory / "utt2corpus") if (directory / "utt2corpus").exists() else {},
        system_mos=read_floats(directory / "sys2mos") if (directory / "sys2mos").exists() else {},
        notes=read_notes(directory),
    )


def read_notes(directory: Path) -> str:
    """Return the notes of a data directory; nothing where it has none."""
    return " ".join(read_lines(directory / "notes")).strip() if (directory / "notes").exists() else ""


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
    corpora = scan("utt2corpus", str)
    groups = scan("sys2group", str)
    system_mos = scan("sys2mos", finite_number)
    if wavs:
        complete = [table for table in (systems, durations, mos, corpora) if table]
        partial = [table for table in (scan("utt2spk", str), scan("utt2sent", str), scan("text", str)) if table]
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
            else:
                absent = [t.path.name for t in (groups, system_mos) if t and system not in t.lines]
                faults.extend(f"{systems.where(key)}: {system} is not in {name}" for name in absent)
    if durations:
        wrong = ((key, seconds) for key, seconds in durations.values.items() if seconds <= 0)
        faults.extend(f"{durations.where(key)}: not a positive duration: {seconds}" for key, seconds in wrong)
    for scores in filter(None, (mos, system_mos)):
        outside = ((key, score) for key, score in scores.values.items() if not MOS_RANGE[0] <= score <= MOS_RANGE[1])
        faults.extend(f"{scores.where(key)}: {score} is not in 1..5" for key, score in outside)
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
