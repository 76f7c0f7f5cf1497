"""Read the recordings of an analysis, with their MOS and labels, from one or several data directories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from distilmos.data.datadir import DataDir, read_data_dir
from distilmos.data.schema import NAMES, Scale
from distilmos.data.tables import c_locale_key, read_table
from distilmos.errors import InputError, raise_faults

# Names of schema.NAMES that are labels to probe for; the system is what is left out in the cross-validation.
LABELS = ("speaker", "sentence")
GROUP = "group"  # group of the system from sys2group, such as the type of degradation


@dataclass(frozen=True)
class Material:
    """Recordings of all data directories together.

    Attributes:
        paths: the data directories.
        wavs: utterance -> location of the audio.
        durations: utterance -> seconds.
        conditions: utterance -> condition: its system under test, or the condition that the system repeats (sys2cond).
        own_groups: utterance -> group of its system (sys2group), without the utterances of repeated conditions.
        mos: utterance -> MOS; empty unless all recordings are rated.
        scale: the scale of `mos`.
        labels: name -> utterance -> label; a table may cover only some of the utterances.
        requested: names of the labels that the user gave, as opposed to those found in the data directories.
        notes: notes that must stand next to results on these recordings.
    """

    paths: list[Path]
    wavs: dict[str, tuple[Path, int | None]]
    durations: dict[str, float]
    conditions: dict[str, str]
    own_groups: dict[str, str]
    mos: dict[str, float]
    scale: Scale
    labels: dict[str, dict[str, str]]
    requested: frozenset[str]
    notes: str


def read_material(directories: Sequence[Path], tables: Mapping[str, Path], *, rated: bool = False) -> Material:
    """Read data directories of stage 1, the labels that they hold, and further tables of labels.

    Args:
        directories: data directories without common utterance ids.
        tables: name -> table with lines `utterance label`. A table replaces the labels of the same name that the
            directories hold.
        rated: whether all directories must be rated.

    Raises:
        InputError: if a directory or table is faulty, an utterance is in two directories, the scales of directories
            differ, or a table has no label for any utterance.
    """
    sets = [read_data_dir(directory, rated=rated) for directory in dict.fromkeys(directories)]
    scale = sets[0].scale
    others = [f"{data.path}: {data.scale}" for data in sets if data.scale != scale]
    raise_faults(others, f"the scales differ from that of {sets[0].path}, {scale}")
    if scale.name in tables:
        raise InputError(f"{tables[scale.name]}: {scale.name} stands for utt2mos; choose another name for the labels")
    places: dict[str, Path] = {}
    faults = []
    for data in sets:
        for utterance in data.utterances:
            if places.setdefault(utterance, data.path) != data.path:
                faults.append(f"{data.path / 'wav.scp'}: utterance {utterance} is also in {places[utterance]}")
    raise_faults(faults, "the data directories share utterances")
    labels: dict[str, dict[str, str]] = {}
    for data in sets:
        for name, found in _own_labels(data).items():
            labels.setdefault(name, {}).update(found)
    for name, path in tables.items():
        table = read_table(path)
        labels[name] = {utterance: label for utterance, label in table.items() if utterance in places}
        if not labels[name]:
            raise InputError(f"{path}: has no label for any utterance of {', '.join(map(str, directories))}")
    all_rated = all(data.mos for data in sets)
    conditions = {u: condition for data in sets for u, condition in data.conditions.items()}
    return Material(
        paths=[data.path for data in sets],
        wavs={u: location for data in sets for u, location in data.wavs.items()},
        durations={u: seconds for data in sets for u, seconds in data.durations.items()},
        conditions=conditions,
        own_groups=_own_groups(sets, conditions),
        mos={u: score for data in sets for u, score in data.mos.items()} if all_rated else {},
        scale=scale,
        labels=dict(sorted(labels.items(), key=lambda item: c_locale_key(item[0]))),
        requested=frozenset(tables),
        notes=" ".join(dict.fromkeys(data.notes for data in sets if data.notes)),
    )


def _own_groups(sets: Sequence[DataDir], conditions: Mapping[str, str]) -> dict[str, str]:
    systems: dict[str, set[str]] = {}
    for data in sets:
        for utterance, system in data.systems.items():
            systems.setdefault(conditions[utterance], set()).add(system)
    return {
        utterance: data.groups[system]
        for data in sets
        for utterance, system in data.systems.items()
        if system in data.groups and len(systems[conditions[utterance]]) == 1
    }


def _own_labels(data: DataDir) -> dict[str, dict[str, str]]:
    found = {name: data.tables[NAMES[name]] for name in LABELS if NAMES[name] in data.tables}
    if data.groups:
        found[GROUP] = {utterance: data.groups[system] for utterance, system in data.systems.items()}
    return found
