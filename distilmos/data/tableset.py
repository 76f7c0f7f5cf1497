"""The tables of a data directory as text, to make other data directories of."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from distilmos.data.datadir import read_notes, replace_directory, validate_data_dir
from distilmos.data.tables import c_locale_key, read_lines, scan_table, write_table
from distilmos.errors import raise_faults
from distilmos.files import temporary_name, write_text

REQUIRED = ("wav.scp", "utt2sys", "utt2dur")
BY_UTTERANCE = (*REQUIRED, "utt2mos", "utt2spk", "utt2sent", "text", "utt2corpus")
BY_SYSTEM = ("sys2group", "sys2mos")


@dataclass
class Tables:
    """The files of a data directory as text.

    Attributes:
        utterance: table -> utterance -> value, without the tables that are not there.
        system: the same by system.
        ratings: utterance -> (listener, score) pairs.
        notes: one line, or nothing.
    """

    utterance: dict[str, dict[str, str]] = field(default_factory=dict)
    system: dict[str, dict[str, str]] = field(default_factory=dict)
    ratings: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    notes: str = ""

    @property
    def utterances(self) -> list[str]:
        """Ids in the C locale's order."""
        return sorted(self.utterance["wav.scp"], key=c_locale_key)

    def only(self, utterances: Collection[str]) -> Tables:
        """Return what concerns `utterances`."""
        kept = set(utterances)
        by_utterance = {
            name: {u: value for u, value in table.items() if u in kept} for name, table in self.utterance.items()
        }
        systems = set(by_utterance["utt2sys"].values())
        by_system = {name: {s: v for s, v in table.items() if s in systems} for name, table in self.system.items()}
        return Tables(by_utterance, by_system, {u: r for u, r in self.ratings.items() if u in kept}, self.notes)


def read_tables(directory: str | Path) -> Tables:
    """Read a data directory that has no fault; a set may be without ratings.

    Raises:
        InputError: naming every fault.
    """
    directory = Path(directory)
    faults = validate_data_dir(directory, rated=(directory / "utt2mos").exists())
    raise_faults(faults, f"{directory} is not a valid data directory")
    tables = Tables(notes=read_notes(directory))
    for names, found in ((BY_UTTERANCE, tables.utterance), (BY_SYSTEM, tables.system)):
        for name in names:
            if (directory / name).exists():
                found[name] = scan_table(directory / name, str).checked()
    if (directory / "ratings").exists():
        for line in read_lines(directory / "ratings"):
            utterance, listener, score = line.split()
            tables.ratings.setdefault(utterance, []).append((listener, score))
    return tables


def write_tables(directory: str | Path, tables: Tables) -> None:
    """Write a data directory, replacing an older one as a whole.

    Raises:
        InputError: naming every fault that the directory would have. It is left as it was then.
    """
    directory = Path(directory)
    temporary = temporary_name(directory)
    try:
        write_files(temporary, tables)
        faults = validate_data_dir(temporary, rated="utt2mos" in tables.utterance)
        raise_faults([fault.replace(str(temporary), str(directory)) for fault in faults], f"writing {directory}")
        replace_directory(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_files(directory: Path, tables: Tables) -> None:
    """Write the tables to `directory`, which may exist, unchecked."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, table in (tables.utterance | tables.system).items():
        if table or name in REQUIRED:
            write_table(directory / name, table)
    if tables.ratings:
        ordered = sorted(tables.ratings, key=c_locale_key)
        lines = [f"{u} {listener} {score}\n" for u in ordered for listener, score in tables.ratings[u]]
        write_text(directory / "ratings", "".join(lines))
    if tables.notes:
        write_text(directory / "notes", tables.notes + "\n")
