"""Data directories built from other data directories: joined, subsets, splits."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from distilmos.data.datadir import DataDir, read_data_dir, replace_data_dirs, require_other
from distilmos.data.schema import MOS, MOS_SCALE, NAMES, SEGMENTS, Scale, control, get_table, scale_of, votes
from distilmos.data.tables import c_locale_key, read_lines
from distilmos.errors import InputError, raise_faults

SPLIT_BY = {"utterance": None, **NAMES}  # kind of name that no two parts share -> its table


def combine_data(out: str | Path, sources: Sequence[tuple[str, str | Path]]) -> int:
    """Join data directories.

    Args:
        out: the directory to write.
        sources: (label, directory) pairs. A label names the corpus of the utterances (utt2corpus) and becomes the
            prefix of their systems, listeners, speakers and sentences, because another corpus may use the same names.
            With an empty label, equal names mean the same. If the scales of a target differ, its scores are mapped
            linearly to 1..5.

    Returns:
        the number of utterances.

    Raises:
        InputError: if a directory is faulty, an utterance is in two of them, they disagree about a system or
            a recording, or only some of them have scores or segments.
    """
    found = [read_data_dir(directory, rated=False) for _, directory in sources]
    scales = _common_scales(found)
    parts = [(label, _on_scales(data, scales)) for (label, _), data in zip(sources, found, strict=True)]
    joined = DataDir(Path(out), scales=scales)
    faults: list[str] = []
    origin: dict[str, Path] = {}
    if len({bool(data.mos) for _, data in parts}) > 1:
        faults += [f"{data.path}: has no utt2mos, unlike the others" for _, data in parts if not data.mos]
    if len({bool(data.segments) for _, data in parts}) > 1:
        raise_faults(
            [
                f"{data.path / SEGMENTS}: other directories have whole recordings; run `distilmos dump-audio` first"
                for _, data in parts
                if data.segments
            ],
            f"combining to {out}",
        )
    for label, data in parts:
        if label:
            data = _labelled(data, label)
        for utterance in data.utterances:
            first = origin.setdefault(utterance, data.path)
            if first != data.path:
                faults.append(f"{data.path}: utterance {utterance} is also in {first}")
        for name, table in data.tables.items():
            known = joined.tables.setdefault(name, {})
            if get_table(name).key == "utterance" or (get_table(name).key == "recording" and not data.segments):
                known.update(table)
                continue
            for key, value in table.items():
                if known.setdefault(key, value) != value:
                    faults.append(f"{data.path / name}: {key} is {value}, elsewhere {known[key]}")
        joined.rating_texts.update(data.rating_texts)
        joined.vote_texts.update(data.vote_texts)
        for listener, lines in data.control_texts.items():
            joined.control_texts[listener] = joined.control_texts.get(listener, []) + lines
    raise_faults(faults, f"combining to {out}")
    joined.notes = " ".join(dict.fromkeys(data.notes for _, data in parts if data.notes))
    _complete_system_tables(joined)
    replace_data_dirs([joined], "writing")
    return len(origin)


def _common_scales(parts: Sequence[DataDir]) -> Sequence[Scale]:
    """Return scales for the join of data directories; none if no directory states its scale.

    Different ranges become 1..5. Different names become MOS if one of them is MOS, otherwise `score`.
    """
    if not any(data.scales for data in parts):
        return ()

    def common(target: str) -> Scale:
        each = [scale_of(data.scales, target) for data in parts if target == MOS or target in data.targets]
        names = {scale.name for scale in each}
        name = each[0].name if len(names) == 1 else MOS_SCALE.name if MOS_SCALE.name in names else "score"
        same = all(scale.same_range(each[0]) for scale in each)
        return replace(each[0] if same else MOS_SCALE, name=name)

    further = dict.fromkeys(target for data in parts for target in data.targets)
    return [common(MOS), *map(common, further)]


def _on_scales(data: DataDir, scales: Sequence[Scale]) -> DataDir:
    """Return `data` with its scores mapped to `scales`; scores that have them already stay the same text."""

    def mapped(target: str, text: str) -> str:
        own, new = scale_of(data.scales, target), scale_of(scales, target)
        return text if own.same_range(new) else f"{own.convert(float(text), new):.10g}"

    def mapped_votes(line: str) -> str:
        target, deviation, number = votes(line)
        own, new = scale_of(data.scales, target), scale_of(scales, target)
        return line if own.same_range(new) else f"{target} {deviation * new.width / own.width:.10g} {number}"

    def mapped_control(line: str) -> str:
        own, new = scale_of(data.scales, MOS), scale_of(scales, MOS)
        return line if own.same_range(new) else str(control(line).convert(own, new))

    tables = dict(data.tables)
    for name, table in data.tables.items():
        if target := get_table(name).target:
            tables[name] = {key: mapped(target, text) for key, text in table.items()}
    ratings = {u: [(name, mapped(MOS, text)) for name, text in pairs] for u, pairs in data.rating_texts.items()}
    lines = {u: list(map(mapped_votes, own)) for u, own in data.vote_texts.items()}
    answers = {name: list(map(mapped_control, own)) for name, own in data.control_texts.items()}
    return replace(data, tables=tables, rating_texts=ratings, scales=scales, vote_texts=lines, control_texts=answers)


def _labelled(data: DataDir, label: str) -> DataDir:
    """Return `data` as part of the corpus `label`: prefix all names that are unique only within a corpus."""

    def named(name: str) -> str:
        return f"{label}-{name}"

    tables = {}
    for name, table in data.tables.items():
        of_system, has_names = get_table(name).key == "system", bool(get_table(name).names)
        tables[name] = {
            named(key) if of_system else key: named(value) if has_names else value for key, value in table.items()
        }
    tables["utt2corpus"] = dict.fromkeys(data.utterances, label)
    ratings = {u: [(named(listener), score) for listener, score in pairs] for u, pairs in data.rating_texts.items()}
    answers = {named(listener): lines for listener, lines in data.control_texts.items()}
    return replace(data, tables=tables, rating_texts=ratings, control_texts=answers)


def _complete_system_tables(joined: DataDir) -> None:
    """Complete the tables of systems: a missing group becomes the corpus or `unknown`; an incomplete sys2mos goes."""
    systems = {system: utterance for utterance, system in joined.systems.items()}
    if joined.groups:
        for system, utterance in systems.items():
            joined.groups.setdefault(system, joined.corpora.get(utterance, "unknown"))
    # Without sys2mos, the true score of a system is the mean of its utterances.
    if not systems.keys() <= joined.tables.get("sys2mos", systems).keys():
        del joined.tables["sys2mos"]


def subset_data(out: str | Path, source: str | Path, wanted: Callable[[DataDir], Collection[str]]) -> int:
    """Write the utterances of a data directory that `wanted` selects; return their number.

    Raises:
        InputError: if the directory is faulty or nothing is selected, or if `out` is the source.
    """
    data = read_data_dir(source, rated=False)
    require_other(Path(out), data)
    selected = wanted(data)
    if not selected:
        raise InputError(f"{source}: no utterance is selected")
    replace_data_dirs([replace(data.only(selected), path=Path(out))], "writing")
    return len(selected)


def listed(path: str | Path, table: str | None) -> Callable[[DataDir], list[str]]:
    """Select the utterances that a list names, by id or by their value in `table` (utt2sys, ...).

    Raises (when called):
        InputError: naming each line that selects nothing.
    """

    def select(data: DataDir) -> list[str]:
        lines = {line.strip(): n for n, line in enumerate(read_lines(path), start=1) if line.strip()}
        keys = {u: data.tables[table].get(u) if table else u for u in data.utterances}
        known = set(keys.values())
        faults = [f"{path}:{n}: {name} does not exist" for name, n in lines.items() if name not in known]
        raise_faults(faults, str(path))
        return [u for u, key in keys.items() if key in lines]

    return select


def drawn(count: int, seed: int) -> Callable[[DataDir], list[str]]:
    """Select `count` utterances at random."""

    def select(data: DataDir) -> list[str]:
        if count > len(data.utterances):
            raise InputError(f"only {len(data.utterances)} utterances, not {count}")
        return random.Random(seed).sample(data.utterances, count)

    return select


def split_data(
    out: str | Path, source: str | Path, shares: Mapping[str, float], by: str, seed: int
) -> dict[str, tuple[int, int]]:
    """Split a data directory into parts that share no utterance, system, speaker or sentence.

    Shuffle the groups; give each to the part furthest below its share.

    Args:
        out: parent of the parts.
        source: data directory to split.
        shares: name of the part -> its share, in any unit.
        by: kind of name that no two parts share, a key of SPLIT_BY.
        seed: seed of the shuffle.

    Returns:
        part -> number of utterances and of systems.

    Raises:
        InputError: if the directory is faulty or lacks the table that `by` needs, or a part is empty or the source.
    """
    data = read_data_dir(source, rated=False)
    table = SPLIT_BY[by]
    if table is not None and table not in data.tables:
        raise InputError(f"{source}: has no {table} to split by")
    keys = data.tables[table] if table else {utterance: utterance for utterance in data.utterances}
    raise_faults([f"{source}: {u} is not in {table}" for u in data.utterances if u not in keys], f"splitting {source}")
    groups: dict[str, list[str]] = {}
    for utterance in data.utterances:
        groups.setdefault(keys[utterance], []).append(utterance)
    order = sorted(groups, key=c_locale_key)
    random.Random(seed).shuffle(order)
    parts: dict[str, list[str]] = {name: [] for name in shares}
    for group in order:
        furthest = min(shares, key=lambda name: len(parts[name]) / shares[name])
        parts[furthest] += groups[group]
    empty = [name for name, members in parts.items() if not members]
    raise_faults([f"{out}/{name}: no utterance" for name in empty], f"splitting {source}")
    found = [replace(data.only(members), path=Path(out) / name) for name, members in parts.items()]
    for part in found:
        require_other(part.path, data)
    replace_data_dirs(found, "writing")
    return {name: (len(members), len({data.systems[u] for u in members})) for name, members in parts.items()}
