"""Repair of data directories."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from statistics import fmean

from distilmos.data.archive import split_location
from distilmos.data.audio import audio_seconds
from distilmos.data.datadir import MOS_RANGE, read_notes, replace_directory, validate_data_dir
from distilmos.data.tables import finite_number, read_lines, scan_table
from distilmos.data.tableset import BY_SYSTEM, BY_UTTERANCE, Tables, write_files
from distilmos.errors import InputError, raise_faults
from distilmos.files import temporary_name


def fix_data(directory: str | Path) -> list[str]:
    """Repair a data directory as far as it can be done without guessing.

    Sorts the tables; drops lines that are malformed or repeat a key, utterances that lack readable audio, a system or
    (where others have one) a score, and what belongs to none of the others; adds missing durations, and computes the
    scores of utterances that have lost ratings anew, and all of them if there are ratings but no utt2mos. The tables as
    they were are kept in `.backup` in the directory (`.backup.2` at the second repair, and so on).

    Returns:
        one line for each thing that was dropped or added, and for each table that was only sorted; none if nothing had
        to be done.

    Raises:
        InputError: if wav.scp or utt2sys is missing, no utterance is left, or there are other faults. The directory is
            left as it was then.
    """
    directory = Path(directory)
    changes: list[str] = []
    tables = Tables(notes=read_notes(directory))
    for names, found in ((BY_UTTERANCE, tables.utterance), (BY_SYSTEM, tables.system)):
        for name in names:
            if (directory / name).exists() or name in ("wav.scp", "utt2sys"):
                found[name] = _good_lines(directory / name, CHECKS.get(name, str), changes)
    if (directory / "ratings").exists():
        tables.ratings, fewer = _good_ratings(directory / "ratings", changes)
        _correct_means(tables, fewer, directory / "utt2mos", changes)
        if "utt2mos" not in tables.utterance and tables.ratings:
            tables.utterance["utt2mos"] = {u: str(_mean(pairs)) for u, pairs in tables.ratings.items()}
            changes.append(f"{directory / 'utt2mos'}: added, the means of the ratings")
    tables = _complete(tables, directory, changes)

    temporary = temporary_name(directory)
    present = [name for name in (*BY_UTTERANCE, *BY_SYSTEM, "ratings", "notes") if (directory / name).exists()]
    try:
        # Whatever else is there, backups of earlier repairs among it, stays.
        top = str(directory)
        shutil.copytree(
            directory, temporary, symlinks=True, ignore=lambda where, _: present if str(where) == top else ()
        )
        write_files(temporary, tables)
        faults = validate_data_dir(temporary, rated="utt2mos" in tables.utterance)
        raise_faults([f.replace(str(temporary), str(directory)) for f in faults], f"{directory}: cannot be repaired")
        texts = {name: (directory / name).read_bytes() for name in present}
        new = {name: (temporary / name).read_bytes() for name in present if (temporary / name).exists()}
        changed = [name for name in texts if new.get(name) != texts[name]]
        if not changed and not changes:
            return []
        changes += [
            f"{directory / name}: written anew, sorted"
            for name in changed
            if not any(f"{directory / name}:" in c for c in changes)
        ]
        backup = _new_backup(temporary)
        for name in present:
            shutil.copyfile(directory / name, backup / name)
        replace_directory(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return changes


def _new_backup(directory: Path) -> Path:
    """Make `.backup` in a directory, or `.backup.2` and so on: what a first repair kept must survive the second."""
    number = 1
    while (path := directory / (".backup" if number == 1 else f".backup.{number}")).exists():
        number += 1
    path.mkdir()
    return path


def _mos(text: str) -> float:
    value = finite_number(text)
    if not MOS_RANGE[0] <= value <= MOS_RANGE[1]:
        raise InputError(f"{text} is not in 1..5")
    return value


def _mean(pairs: list[tuple[str, str]]) -> float:
    return fmean(float(score) for _, score in pairs)


# What the value of a table must be convertible to.
CHECKS: dict[str, Callable[[str], object]] = {
    "wav.scp": split_location,
    "utt2dur": finite_number,
    "utt2mos": _mos,
    "sys2mos": _mos,
}


def _good_lines(path: Path, convert: Callable[[str], object], changes: list[str]) -> dict[str, str]:
    """Return the lines of a table that are good, the first one of each key."""

    def checked(text: str) -> str:
        convert(text)
        return text

    table = scan_table(path, checked)
    changes += [f"{fault}: dropped" for fault in table.faults]
    return table.values


def _good_ratings(path: Path, changes: list[str]) -> tuple[dict[str, list[tuple[str, str]]], set[str]]:
    """Return the ratings that are good, the first one of each listener for an utterance, and who has lost some."""
    ratings: dict[str, dict[str, str]] = {}
    fewer: set[str] = set()
    for number, line in enumerate(read_lines(path), start=1):
        fields = line.split()
        try:
            utterance, listener, score = fields
            _mos(score)
        except (ValueError, InputError):
            changes.append(f"{path}:{number}: {line!r} is not 'utterance listener score': dropped")
            fewer.update(fields[:1])
            continue
        if ratings.setdefault(utterance, {}).setdefault(listener, score) is not score:
            changes.append(f"{path}:{number}: {utterance} has a rating of {listener} already: dropped")
            fewer.add(utterance)
    return {utterance: list(scores.items()) for utterance, scores in ratings.items()}, fewer


def _correct_means(tables: Tables, fewer: set[str], path: Path, changes: list[str]) -> None:
    """Compute the scores of utterances that have lost ratings anew; one that has none left keeps its score."""
    means = tables.utterance.get("utt2mos", {})
    for utterance in sorted(fewer & means.keys() & tables.ratings.keys()):
        mean = _mean(tables.ratings[utterance])
        if mean != float(means[utterance]):
            changes.append(f"{path}: {utterance} has {mean:g} now, the mean of what is left, before {means[utterance]}")
            means[utterance] = str(mean)


def _complete(tables: Tables, directory: Path, changes: list[str]) -> Tables:
    """Return what concerns the utterances that have all they need; add their durations where there are none."""
    needed = [name for name in ("utt2sys", "utt2mos") if tables.utterance.get(name)]
    durations = tables.utterance.setdefault("utt2dur", {})
    kept = []
    for utterance in tables.utterances:
        lacking = [f"not in {name}" for name in needed if utterance not in tables.utterance[name]]
        path, offset = split_location(tables.utterance["wav.scp"][utterance])
        try:
            seconds = audio_seconds(path, offset)
        except InputError as error:
            lacking.append(str(error))
        if lacking:
            changes.append(f"{directory / 'wav.scp'}: {utterance} dropped: {', '.join(lacking)}")
            continue
        kept.append(utterance)
        if utterance not in durations or not float(durations[utterance]) > 0:
            durations[utterance] = str(seconds)
            changes.append(f"{directory / 'utt2dur'}: {utterance} added")
    if not kept:
        raise InputError(f"{directory}: no utterance is left; the first reasons: " + "; ".join(changes[:3]))
    named: dict[str, Collection[str]] = {**tables.utterance, "ratings": tables.ratings}
    for name, utterances in named.items():
        strays = [u for u in utterances if u not in tables.utterance["wav.scp"]]
        changes += [f"{directory / name}: {u} dropped: not in wav.scp" for u in strays]
    return tables.only(kept)
