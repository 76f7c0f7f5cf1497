"""Repair of data directories."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from distilmos.data.archive import split_location
from distilmos.data.audio import audio_seconds
from distilmos.data.datadir import DataDir, read_notes, read_scales, write_files
from distilmos.data.schema import (
    CONTROLS,
    FILES,
    MOS,
    RATINGS,
    SEGMENTS,
    VOTES,
    Scale,
    get_table,
    scale_of,
    table_names,
)
from distilmos.data.tables import read_lines
from distilmos.data.validate import scan_controls, scan_text, scan_votes, validate_data_dir
from distilmos.errors import InputError, raise_faults
from distilmos.files import replace_directory, temporary_name


def fix_data(directory: str | Path) -> list[str]:
    """Repair a data directory without guessing missing values.

    Sort the tables. Drop malformed lines, lines that repeat a key and lines about unknown utterances. Drop utterances
    without readable audio, without a system or, if others have one, without a score. Add missing durations. Recompute
    the scores of utterances that lost ratings, and all scores if there are ratings but no utt2mos. The old tables stay
    in `.backup` in the directory (`.backup.2` after the second repair, and so on).

    Returns:
        one line of text per dropped or added item, and per table that was only sorted; none without changes.

    Raises:
        InputError: if wav.scp or utt2sys is missing, no utterance is left, or other faults remain; or if the directory
            has segments, which cannot be repaired. The directory then stays unchanged.
    """
    directory = Path(directory)
    if (directory / SEGMENTS).exists():
        raise InputError(f"{directory / SEGMENTS}: cannot be repaired; run `distilmos dump-audio` first")
    changes: list[str] = []
    data = DataDir(directory, notes=read_notes(directory), scales=read_scales(directory))
    names = table_names(directory)
    for name in names:
        if (directory / name).exists() or name in ("wav.scp", "utt2sys"):
            table = scan_text(directory / name, data.scales)
            changes += [f"{fault}: dropped" for fault in table.faults]
            data.tables[name] = table.values
    if (directory / RATINGS).exists():
        data.rating_texts, fewer = _good_ratings(directory / RATINGS, scale_of(data.scales, MOS), changes)
        _correct_means(data, fewer, changes)
        if "utt2mos" not in data.tables and data.rating_texts:
            data.tables["utt2mos"] = {u: str(_mean(pairs)) for u, pairs in data.rating_texts.items()}
            changes.append(f"{directory / 'utt2mos'}: added from the means of the ratings")
    dropped: list[str] = []
    if (directory / VOTES).exists():
        data.vote_texts = scan_votes(directory / VOTES, data.tables["wav.scp"], data.tables, dropped, in_order=False)
    if (directory / CONTROLS).exists():
        data.control_texts = scan_controls(directory / CONTROLS, dropped, in_order=False)
    changes += [f"{fault}: dropped" for fault in dropped]
    data = _complete(data, changes)

    temporary = temporary_name(directory)
    present = [name for name in dict.fromkeys([*FILES, *names]) if (directory / name).exists()]
    try:
        # Other files stay, also backups of earlier repairs.
        top = str(directory)
        shutil.copytree(
            directory, temporary, symlinks=True, ignore=lambda where, _: present if str(where) == top else ()
        )
        write_files(replace(data, path=temporary))
        faults = validate_data_dir(temporary, rated="utt2mos" in data.tables)
        raise_faults([f.replace(str(temporary), str(directory)) for f in faults], f"{directory}: cannot be repaired")
        texts = {name: (directory / name).read_bytes() for name in present}
        new = {name: (temporary / name).read_bytes() for name in present if (temporary / name).exists()}
        changed = [name for name in texts if new.get(name) != texts[name]]
        if not changed and not changes:
            return []
        changes += [
            f"{directory / name}: sorted"
            for name in changed
            if not any(f"{directory / name}:" in change for change in changes)
        ]
        backup = _new_backup(temporary)
        for name in present:
            shutil.copyfile(directory / name, backup / name)
        replace_directory(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return changes


def _new_backup(directory: Path) -> Path:
    """Create `.backup` in a directory, or `.backup.2` and so on: no repair overwrites an older backup."""
    number = 1
    while (path := directory / (".backup" if number == 1 else f".backup.{number}")).exists():
        number += 1
    path.mkdir()
    return path


def _mean(pairs: list[tuple[str, str]]) -> float:
    return fmean(float(score) for _, score in pairs)


def _good_ratings(path: Path, scale: Scale, changes: list[str]) -> tuple[dict[str, list[tuple[str, str]]], set[str]]:
    """Return the valid ratings, one per listener and utterance, and the utterances that lost ratings."""
    ratings: dict[str, dict[str, str]] = {}
    fewer: set[str] = set()
    for number, line in enumerate(read_lines(path), start=1):
        fields = line.split()
        try:
            utterance, listener, score = fields
            scale.score(score)
        except (ValueError, InputError):
            changes.append(f"{path}:{number}: {line!r} is not 'utterance listener score': dropped")
            fewer.update(fields[:1])
            continue
        known = ratings.setdefault(utterance, {})
        if listener in known:
            changes.append(f"{path}:{number}: {utterance} has an earlier rating by {listener}: dropped")
            fewer.add(utterance)
        else:
            known[listener] = score
    return {utterance: list(scores.items()) for utterance, scores in ratings.items()}, fewer


def _correct_means(data: DataDir, fewer: set[str], changes: list[str]) -> None:
    """Recompute the scores of utterances that lost ratings; an utterance that lost all keeps its score."""
    means = data.tables.get("utt2mos", {})
    for utterance in sorted(fewer & means.keys() & data.rating_texts.keys()):
        mean = _mean(data.rating_texts[utterance])
        if mean != float(means[utterance]):
            path = data.path / "utt2mos"
            changes.append(
                f"{path}: {utterance}: set to {mean:g}, the mean of the remaining ratings; was {means[utterance]}"
            )
            means[utterance] = str(mean)


def _complete(data: DataDir, changes: list[str]) -> DataDir:
    """Return the data of the complete utterances; add missing durations."""
    needed = [name for name in ("utt2sys", "utt2mos") if data.tables.get(name)]
    durations = data.tables.setdefault("utt2dur", {})
    kept = []
    for utterance in data.utterances:
        lacking = [f"not in {name}" for name in needed if utterance not in data.tables[name]]
        path, offset = split_location(data.tables["wav.scp"][utterance])
        try:
            seconds = audio_seconds(path, offset)
        except InputError as error:
            lacking.append(str(error))
        if lacking:
            changes.append(f"{data.path / 'wav.scp'}: {utterance} dropped: {', '.join(lacking)}")
            continue
        kept.append(utterance)
        if utterance not in durations:
            durations[utterance] = str(seconds)
            changes.append(f"{data.path / 'utt2dur'}: {utterance} added")
    if not kept:
        raise InputError(f"{data.path}: no utterance is left; first reasons: " + "; ".join(changes[:3]))
    of_utterances = [name for name in data.tables if get_table(name).key == "utterance"]
    listed = {name: list(data.tables[name]) for name in of_utterances} | {RATINGS: list(data.rating_texts)}
    for name, utterances in listed.items():
        strays = [u for u in utterances if u not in data.tables["wav.scp"]]
        changes += [f"{data.path / name}: {u} dropped: not in wav.scp" for u in strays]
    return data.only(kept)
