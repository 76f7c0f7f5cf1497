"""Validation of data directories: finds all faults, with file and line."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from distilmos.data.archive import pipe_command, split_location
from distilmos.data.schema import (
    CONTROLS,
    MOS,
    MOS_SCALE,
    RATINGS,
    SCALE,
    SEGMENTS,
    VOTES,
    Scale,
    control,
    get_table,
    is_target,
    scale_line,
    scale_of,
    segment,
    table_names,
    votes,
)
from distilmos.data.tables import ScannedTable, c_locale_key, read_lines, scan_table, split_key
from distilmos.errors import InputError
from distilmos.files import is_file

# Corpora round the means of their ratings. On another scale than 1..5, it is as much wider as the scale.
MEAN_TOLERANCE = 0.01


ANY_SCALE = Scale(-1e9, 1e9, MOS_SCALE.name)


@dataclass
class ScannedRatings:
    """The file `ratings`.

    Attributes:
        values: utterance -> (listener, score as text) pairs of the valid lines.
        lines: utterance -> number of its first valid line.
        faults: one line of text for each bad line.
    """

    values: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


@dataclass
class ScannedDir:
    """The files of a data directory with all faults.

    Attributes:
        tables: file name -> table for the tables that exist and are text.
        scales: valid lines of the file `scale`; none without it.
        ratings: empty if the file does not exist.
        votes: utterance -> valid lines of the file `votes`, without the utterance.
        controls: listener -> valid lines of the file `controls`, without the listener.
        faults: one line of text each.
    """

    tables: dict[str, ScannedTable[str]] = field(default_factory=dict)
    scales: list[Scale] = field(default_factory=list)
    ratings: ScannedRatings = field(default_factory=ScannedRatings)
    votes: dict[str, list[str]] = field(default_factory=dict)
    controls: dict[str, list[str]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def validate_data_dir(directory: str | Path, *, rated: bool = True, pipes: bool = False) -> list[str]:
    """Return every fault of a data directory, one line of text each with file and line; none if it is valid.

    Args:
        directory: its path.
        rated: whether utt2mos must exist.
        pipes: whether wav.scp may hold commands. They do not run.
    """
    return scan_data_dir(directory, rated=rated, pipes=pipes).faults


def scan_data_dir(
    directory: str | Path, *, rated: bool = True, pipes: bool = False, audio_only: bool = False
) -> ScannedDir:
    """Read all files of a data directory and collect their faults.

    Args:
        directory: its path.
        rated: as for `validate_data_dir`.
        pipes: as for `validate_data_dir`.
        audio_only: whether wav.scp is the only table that must exist.
    """
    directory = Path(directory)
    found = ScannedDir()
    if not directory.is_dir():
        found.faults.append(f"{directory}: no such directory")
        return found
    found.scales = scan_scales(directory, found.faults)
    # A faulty scale must not make faults of all scores.
    scales = [ANY_SCALE] if found.faults else found.scales
    for name in table_names(directory):
        table, path = get_table(name), directory / name
        required = name == "wav.scp" if audio_only else table.required
        if not (required or path.exists() or (name == "utt2mos" and rated)):
            continue
        try:
            found.tables[name] = scan_text(path, scales, pipes=pipes)
        except InputError as error:
            found.faults.append(str(error))
            continue
        found.faults += found.tables[name].faults + _order_faults(found.tables[name])
    if (directory / RATINGS).exists():
        try:
            found.ratings = scan_ratings(directory / RATINGS, scale_of(scales, MOS))
        except InputError as error:
            found.faults.append(str(error))
    if (directory / VOTES).exists():
        listed = found.tables.get(SEGMENTS, found.tables.get("wav.scp"))
        found.votes = scan_votes(directory / VOTES, listed.lines if listed else None, found.tables, found.faults)
    if (directory / CONTROLS).exists():
        found.controls = scan_controls(directory / CONTROLS, found.faults)
    found.faults += [*_utterance_faults(found.tables), *_system_faults(found.tables)]
    found.faults += [*found.ratings.faults, *_rating_faults(directory / RATINGS, found)]
    return found


def scan_scales(directory: Path, faults: list[str]) -> list[Scale]:
    """Return the valid lines of the file `scale`, if it exists; add its faults to `faults`."""
    path = directory / SCALE
    scales: list[Scale] = []
    if not path.exists():
        return scales
    try:
        lines = read_lines(path)
    except InputError as error:
        faults.append(str(error))
        return scales
    for number, line in enumerate(lines, start=1):
        try:
            scale = scale_line(line)
            if number > 1 and not (is_target(scale.name) and (directory / f"utt2{scale.name}").is_file()):
                raise InputError(f"{scale.name} is not a target: there is no utt2{scale.name}")
            if number > 1 and scale.name in [known.name for known in scales[1:]]:
                raise InputError(f"{scale.name} already has a scale")
        except InputError as error:
            faults.append(f"{path}:{number}: {error}")
            continue
        scales.append(scale)
    if not lines:
        faults.append(f"{path}: empty")
    return scales


def scan_votes(
    path: Path, utterances: Collection[str] | None, tables: Collection[str], faults: list[str], *, in_order: bool = True
) -> dict[str, list[str]]:
    """Read the file `votes`.

    Args:
        path: the file.
        utterances: those of the data directory; None if they are unknown.
        tables: names of the tables of the data directory.
        faults: takes one line of text for each bad line.
        in_order: whether a line that is out of order is a fault; it is valid all the same.

    Returns:
        utterance -> its valid lines, without the utterance.
    """
    seen: set[tuple[str, str]] = set()

    def check(utterance: str, rest: str) -> None:
        target = votes(rest)[0]
        if utterances is not None and utterance not in utterances:
            raise InputError(f"{utterance} is not an utterance of the data directory")
        if not (target == MOS or is_target(target)) or f"utt2{target}" not in tables:
            raise InputError(f"{target} is not a target: there is no utt2{target}")
        if (utterance, target) in seen:
            raise InputError(f"{utterance} {target} is listed twice")
        seen.add((utterance, target))

    return _scan_lines(path, check, faults, in_order)


def scan_controls(path: Path, faults: list[str], *, in_order: bool = True) -> dict[str, list[str]]:
    """Read the file `controls`.

    Args:
        path: the file.
        faults: takes one line of text for each bad line.
        in_order: whether a line that is out of order is a fault; it is valid all the same.

    Returns:
        listener -> its valid lines, without the listener.
    """
    return _scan_lines(path, lambda _, rest: control(rest), faults, in_order)


def _scan_lines(
    path: Path, check: Callable[[str, str], object], faults: list[str], in_order: bool
) -> dict[str, list[str]]:
    """Read a file that may have several lines for a name.

    Args:
        path: the file.
        check: takes the name and the rest of a line; raises InputError if the line is bad.
        faults: takes one line of text for each bad line.
        in_order: whether a line that is out of order is a fault; it is valid all the same.

    Returns:
        name -> its valid lines, without the name.
    """
    lines: dict[str, list[str]] = {}
    last = ""
    try:
        texts = read_lines(path)
    except InputError as error:
        faults.append(str(error))
        return lines
    for number, text in enumerate(texts, start=1):
        name, rest = split_key(text)
        try:
            check(name, rest)
        except InputError as error:
            faults.append(f"{path}:{number}: {error}")
            continue
        if in_order and c_locale_key(name) < c_locale_key(last):
            faults.append(f"{path}:{number}: {name} is out of order (sort with LC_ALL=C)")
        last = name
        lines.setdefault(name, []).append(rest)
    return lines


def scan_text(path: Path, scales: Sequence[Scale], *, pipes: bool = False) -> ScannedTable[str]:
    """Read a table as text; values that the schema does not allow are faults, except, with `pipes`, pipes.

    Args:
        path: the file.
        scales: of the data directory; scores must be on them.
        pipes: whether wav.scp may hold commands.

    Raises:
        InputError: if the file is missing or is not UTF-8.
    """
    table = get_table(path.name)
    convert = scale_of(scales, table.target).score if table.target else table.convert

    def checked(text: str) -> str:
        if not (pipes and path.name == "wav.scp" and pipe_command(text)):
            convert(text)
        return text

    return scan_table(path, checked)


def _order_faults(table: ScannedTable) -> list[str]:
    """Return a fault for the first key that is out of order; later ones are mostly consequences."""
    for before, after in pairwise(table.lines):
        if c_locale_key(before) > c_locale_key(after):
            return [f"{table.where(after)} is out of order (sort with LC_ALL=C)"]
    return []


def _utterance_faults(tables: Mapping[str, ScannedTable[str]]) -> Iterable[str]:
    """Compare the utterances of all tables with segments or wav.scp, and check that the audio files exist."""
    wavs = tables.get("wav.scp")
    if wavs is None:
        return
    segments = tables.get(SEGMENTS)
    listed = wavs if segments is None else segments
    if not listed.lines:
        yield f"{listed.path}: empty"
    for name, table in tables.items():
        if get_table(name).key != "utterance":
            continue
        yield from (
            f"{table.where(key)} is not in {listed.path.name}" for key in table.lines if key not in listed.lines
        )
        if get_table(name).complete:
            yield from (f"{listed.where(key)} is not in {name}" for key in listed.lines if key not in table.lines)
    if segments is not None:
        yield from segment_faults(segments, {key: segment(text)[0] for key, text in segments.values.items()}, wavs)
    for key, location in wavs.values.items():
        if pipe_command(location):
            continue
        path, _ = split_location(location)
        if not is_file(path):
            yield f"{wavs.where(key)}: no such file: {path}"


def segment_faults(
    segments: ScannedTable[Any], recordings: Mapping[str, str], wavs: ScannedTable[Any]
) -> Iterable[str]:
    """Return a fault for each segment (utterance -> recording) whose recording is not in wav.scp."""
    for utterance, recording in recordings.items():
        if recording not in wavs.lines:
            yield f"{segments.where(utterance)}: {recording} is not in {wavs.path.name}"


def _system_faults(tables: Mapping[str, ScannedTable[str]]) -> Iterable[str]:
    """Check that the tables of systems have the systems of all utterances."""
    systems = tables.get("utt2sys")
    if systems is None:
        return
    known = {name: table for name, table in tables.items() if get_table(name).key == "system"}
    for key, system in systems.values.items():
        if len(system.split()) != 1:
            yield f"{systems.where(key)}: the system {system!r} has white space"
            continue
        yield from (
            f"{systems.where(key)}: {system} is not in {name}"
            for name, table in known.items()
            if get_table(name).complete and system not in table.lines
        )


def scan_ratings(path: Path, scale: Scale = MOS_SCALE) -> ScannedRatings:
    """Read the file `ratings`, whose scores must be on `scale`.

    Raises:
        InputError: if it is not UTF-8.
    """
    found = ScannedRatings()
    seen: dict[tuple[str, str], int] = {}
    last = ""
    for line, text in enumerate(read_lines(path), start=1):
        fields = text.split()
        if len(fields) != 3:
            found.faults.append(f"{path}:{line}: expected 'utterance listener score', found {text!r}")
            continue
        utterance, listener, value = fields
        where = f"{path}:{line}: {utterance}"
        if c_locale_key(utterance) < c_locale_key(last):
            found.faults.append(f"{where} is out of order (sort with LC_ALL=C)")
        last = utterance
        try:
            scale.score(value)
        except InputError as error:
            found.faults.append(f"{where} {listener}: {error}")
            continue
        first = seen.setdefault((utterance, listener), line)
        if first != line:
            found.faults.append(f"{where} {listener} is already in line {first}")
            continue
        found.lines.setdefault(utterance, line)
        found.values.setdefault(utterance, []).append((listener, value))
    return found


def _rating_faults(path: Path, found: ScannedDir) -> Iterable[str]:
    """Compare the ratings with wav.scp, and their means with utt2mos."""
    listed, mos = found.tables.get(SEGMENTS, found.tables.get("wav.scp")), found.tables.get("utt2mos")
    tolerance = MEAN_TOLERANCE * scale_of(found.scales, MOS).width / MOS_SCALE.width
    for utterance, pairs in found.ratings.values.items():
        where = f"{path}:{found.ratings.lines[utterance]}: {utterance}"
        if listed is not None and utterance not in listed.lines:
            yield f"{where} is not in {listed.path.name}"
        if mos is None or utterance not in mos.values:
            continue
        mean, stated = math.fsum(float(value) for _, value in pairs) / len(pairs), float(mos.values[utterance])
        if abs(mean - stated) > tolerance:
            yield f"{where}: the mean of the ratings is {mean:.4f}, utt2mos has {stated:.4f}"
