"""Data directories made of data directories: joined, parts of them, split."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from distilmos.data.tables import c_locale_key, read_lines
from distilmos.data.tableset import Tables, read_tables, write_tables
from distilmos.errors import InputError, raise_faults

# Tables whose values are names that belong to a corpus.
LABELLED = ("utt2sys", "utt2spk", "utt2sent")
SPLIT_BY = {"utterance": None, "system": "utt2sys", "speaker": "utt2spk", "sentence": "utt2sent"}


def combine_data(out: str | Path, sources: Sequence[tuple[str, str | Path]]) -> int:
    """Join data directories.

    Args:
        out: the directory to write.
        sources: (label, directory) pairs. A label says which corpus the utterances are of (utt2corpus), and is put
            before the names of its systems, listeners, speakers and sentences, which another corpus may have too.
            Without labels (empty), equal names mean the same.

    Returns:
        the number of utterances.

    Raises:
        InputError: if a directory is faulty, an utterance is in two of them, they do not agree about a system, or only
            some of them have scores.
    """
    joined = Tables()
    faults: list[str] = []
    origin: dict[str, str] = {}
    notes: list[str] = []
    parts = [(label, str(directory), read_tables(directory)) for label, directory in sources]
    rated = {"utt2mos" in tables.utterance for _, _, tables in parts}
    if len(rated) > 1:
        without = [directory for _, directory, tables in parts if "utt2mos" not in tables.utterance]
        faults += [f"{directory}: has no utt2mos, while others have" for directory in without]
    for label, directory, tables in parts:
        if label:
            tables = _labelled(tables, label)
        for utterance in tables.utterances:
            first = origin.setdefault(utterance, directory)
            if first != directory:
                faults.append(f"{directory}: utterance {utterance} is in {first} too")
        for name, table in tables.utterance.items():
            joined.utterance.setdefault(name, {}).update(table)
        for name, table in tables.system.items():
            known = joined.system.setdefault(name, {})
            for system, value in table.items():
                if known.setdefault(system, value) != value:
                    faults.append(f"{directory}/{name}: {system} is {value}, elsewhere {known[system]}")
        joined.ratings.update(tables.ratings)
        notes += [tables.notes] if tables.notes and tables.notes not in notes else []
    raise_faults(faults, f"combining to {out}")
    joined.notes = " ".join(notes)
    _complete_system_tables(joined)
    write_tables(out, joined)
    return len(origin)


def _labelled(tables: Tables, label: str) -> Tables:
    def named(value: str) -> str:
        return f"{label}-{value}"

    by_utterance = {
        name: {u: named(value) for u, value in table.items()} if name in LABELLED else table
        for name, table in tables.utterance.items()
    }
    by_utterance["utt2corpus"] = dict.fromkeys(tables.utterances, label)
    by_system = {name: {named(s): value for s, value in table.items()} for name, table in tables.system.items()}
    ratings = {u: [(named(listener), score) for listener, score in pairs] for u, pairs in tables.ratings.items()}
    return Tables(by_utterance, by_system, ratings, tables.notes)


def _complete_system_tables(joined: Tables) -> None:
    """A table by system must have all of them: the group of a system without one is its corpus, or unknown."""
    systems = {system: u for u, system in joined.utterance["utt2sys"].items()}
    if groups := joined.system.get("sys2group"):
        corpora = joined.utterance.get("utt2corpus", {})
        for system, utterance in systems.items():
            groups.setdefault(system, corpora.get(utterance, "unknown"))
    # The true score of a system without one is the mean of its utterances, so that none needs to be listed.
    if joined.system.get("sys2mos", systems).keys() != systems.keys():
        del joined.system["sys2mos"]


def subset_data(out: str | Path, source: str | Path, wanted: Callable[[Tables], Collection[str]]) -> int:
    """Write the part of a data directory that `wanted` chooses; return the number of utterances.

    Raises:
        InputError: if the directory is faulty or nothing is chosen.
    """
    tables = read_tables(source)
    chosen = wanted(tables)
    if not chosen:
        raise InputError(f"{source}: no utterance is chosen")
    write_tables(out, tables.only(chosen))
    return len(chosen)


def listed(path: str | Path, table: str | None) -> Callable[[Tables], list[str]]:
    """Choose the utterances of a list: of their own ids, or with `table` (utt2sys, ...) of what that says of them.

    Raises (when called):
        InputError: naming each line that chooses nothing.
    """

    def choose(tables: Tables) -> list[str]:
        lines = {line.strip(): n for n, line in enumerate(read_lines(path), start=1) if line.strip()}
        keys = {u: tables.utterance[table].get(u) if table else u for u in tables.utterances}
        known = set(keys.values())
        raise_faults([f"{path}:{n}: {name} is not there" for name, n in lines.items() if name not in known], str(path))
        return [u for u, key in keys.items() if key in lines]

    return choose


def drawn(count: int, seed: int) -> Callable[[Tables], list[str]]:
    """Choose `count` utterances at random."""

    def choose(tables: Tables) -> list[str]:
        if count > len(tables.utterances):
            raise InputError(f"only {len(tables.utterances)} utterances, not {count}")
        return random.Random(seed).sample(tables.utterances, count)

    return choose


def split_data(
    out: str | Path, source: str | Path, shares: Mapping[str, float], by: str, seed: int
) -> dict[str, tuple[int, int]]:
    """Split a data directory into parts that share no utterance, system, speaker or sentence.

    What must stay together is shuffled, and dealt to the part that lacks most of its share.

    Args:
        out: parent of the parts.
        source: what to split.
        shares: name of the part -> its share, in any unit.
        by: key of SPLIT_BY.
        seed: of the order.

    Returns:
        part -> number of utterances, and of systems.

    Raises:
        InputError: if the directory is faulty, lacks the table that `by` needs, or a part stays empty.
    """
    tables = read_tables(source)
    table = SPLIT_BY[by]
    if table is not None and table not in tables.utterance:
        raise InputError(f"{source}: has no {table} to split by")
    groups: dict[str, list[str]] = {}
    for utterance in tables.utterances:
        groups.setdefault(tables.utterance[table][utterance] if table else utterance, []).append(utterance)
    order = sorted(groups, key=c_locale_key)
    random.Random(seed).shuffle(order)
    parts: dict[str, list[str]] = {name: [] for name in shares}
    for group in order:
        neediest = min(shares, key=lambda name: len(parts[name]) / shares[name])
        parts[neediest] += groups[group]
    empty = [name for name, members in parts.items() if not members]
    raise_faults([f"{out}/{name}: no utterance" for name in empty], f"splitting {source}")
    for name, members in parts.items():
        write_tables(Path(out) / name, tables.only(members))
    systems = tables.utterance["utt2sys"]
    return {name: (len(members), len({systems[u] for u in members})) for name, members in parts.items()}
