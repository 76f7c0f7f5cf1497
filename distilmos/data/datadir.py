"""Kaldi-style data directories of rated speech, written whole and validated on reading. `schema` lists the files."""

from __future__ import annotations

import math
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from distilmos.data.archive import split_location
from distilmos.data.audio import Span, audio_seconds
from distilmos.data.schema import (
    CONTROLS,
    NOTES,
    RATINGS,
    SCALE,
    SEGMENTS,
    TABLES,
    VOTES,
    Control,
    Scale,
    control,
    get_table,
    scale_of,
    segment,
    target_table,
)
from distilmos.data.schema import MOS as MOS_TARGET
from distilmos.data.schema import votes as parse_votes
from distilmos.data.tables import c_locale_key, is_utf8, read_lines, write_table
from distilmos.data.validate import scan_data_dir, scan_scales, validate_data_dir
from distilmos.errors import InputError, raise_faults
from distilmos.files import replace_directory, temporary_name, write_text

# Table -> attribute of Utterance that fills it.
_COLUMNS = {"utt2sys": "system", "utt2mos": "mean_score", "utt2spk": "speaker", "utt2sent": "sentence", "text": "text"}


@dataclass(frozen=True)
class Utterance:
    """One recording, rated or not, as a recipe's data preparation describes it.

    Attributes:
        id: unique utterance id without white space.
        audio: path of an audio file.
        system: the system (or degradation condition) that produced it.
        mos: mean score; with None it is the mean of `ratings`, if there are any.
        ratings: (listener, score) pairs.
        speaker: speaker id, if known.
        sentence: id of the sentence, if known; the same for all its speakers.
        text: transcript, if known.
        group: group of the system, such as a type of degradation; the same for all its utterances.
        condition: condition of the system, if several systems repeat it; the same for all its utterances.
        seconds: duration of the audio, if known; otherwise its header is read.
        targets: further target -> its mean score, such as {"fluency": 7.2}.
        votes: target ("mos" for the mean score) -> standard deviation and number of its ratings, where single ratings
            are not known.
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
    condition: str | None = None
    seconds: float | None = None
    targets: Mapping[str, float] = field(default_factory=dict)
    votes: Mapping[str, tuple[float, int]] = field(default_factory=dict)

    @property
    def mean_score(self) -> float | None:
        """The mean score; None if there is none."""
        if self.mos is not None or not self.ratings:
            return self.mos
        return math.fsum(score for _, score in self.ratings) / len(self.ratings)


@dataclass
class DataDir:
    """A data directory in memory. Values stay text, so that a copy equals the original byte for byte.

    Attributes:
        path: the directory.
        tables: file name -> key -> value for the tables that exist; see `schema`.
        rating_texts: utterance -> (listener, score) pairs.
        notes: one line; may be empty.
        scales: lines of the file `scale`; none without it.
        vote_texts: utterance -> lines of the file `votes`, without the utterance.
        control_texts: listener -> lines of the file `controls`, without the listener.
    """

    path: Path
    tables: dict[str, dict[str, str]] = field(default_factory=dict)
    rating_texts: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    notes: str = ""
    scales: Sequence[Scale] = ()
    vote_texts: dict[str, list[str]] = field(default_factory=dict)
    control_texts: dict[str, list[str]] = field(default_factory=dict)

    @property
    def utterances(self) -> list[str]:
        """All utterance ids, sorted in the C locale."""
        return sorted(self.tables.get(SEGMENTS, self.tables["wav.scp"]), key=c_locale_key)

    @cached_property
    def segments(self) -> dict[str, tuple[str, Span]]:
        """Utterance -> its recording in wav.scp and its span; empty if utterances are whole recordings."""
        return {utterance: segment(text) for utterance, text in self.tables.get(SEGMENTS, {}).items()}

    @cached_property
    def wavs(self) -> dict[str, tuple[Path, int | None]]:
        """Utterance -> audio file or archive, and byte offset in the archive.

        Raises:
            InputError: if utterances are segments of recordings.
        """
        if SEGMENTS in self.tables:
            raise InputError(f"{self.path / SEGMENTS}: segments are not cut yet; run `distilmos dump-audio` first")
        return {utterance: split_location(location) for utterance, location in self.tables["wav.scp"].items()}

    @cached_property
    def _lines(self) -> dict[str, dict[str, int]]:
        # A valid table has one key per line.
        return {name: {key: line for line, key in enumerate(table, start=1)} for name, table in self.tables.items()}

    def where(self, name: str, key: str) -> str:
        """Return `file:line: key` of a table that was read, the start of a fault's line."""
        return f"{self.path / name}:{self._lines[name][key]}: {key}"

    @property
    def systems(self) -> dict[str, str]:
        """Utterance -> system under test."""
        return self.tables["utt2sys"]

    @cached_property
    def durations(self) -> dict[str, float]:
        """Utterance -> seconds."""
        return self._floats("utt2dur")

    @cached_property
    def mos(self) -> dict[str, float]:
        """Utterance -> mean opinion score; empty if nothing is rated."""
        return self._floats("utt2mos")

    @property
    def scale(self) -> Scale:
        """The scale of `mos` and `ratings`."""
        return scale_of(self.scales, MOS_TARGET)

    @cached_property
    def targets(self) -> dict[str, dict[str, float]]:
        """Further target -> utterance -> mean score; a target may lack utterances."""
        found = {get_table(name).target: name for name in self.tables if name not in TABLES}
        return {target: self._floats(name) for target, name in found.items()}

    def target(self, name: str) -> tuple[Scale, dict[str, float]]:
        """Return the scale and the scores (utterance -> mean score) of a target.

        Raises:
            InputError: if the data has no such target.
        """
        if name not in self.targets:
            known = f"its targets are {', '.join(self.targets)}" if self.targets else "it has none"
            raise InputError(f"{self.path}: has no target {name} (file utt2{name}); {known}")
        return scale_of(self.scales, name), self.targets[name]

    @cached_property
    def ratings(self) -> dict[str, list[tuple[str, float]]]:
        """Utterance -> (listener, score) pairs."""
        return {u: [(listener, float(text)) for listener, text in pairs] for u, pairs in self.rating_texts.items()}

    @cached_property
    def votes(self) -> dict[str, dict[str, tuple[float, int]]]:
        """Utterance -> target ("mos" for `mos`) -> standard deviation and number of its ratings."""
        parsed = {u: map(parse_votes, lines) for u, lines in self.vote_texts.items()}
        return {u: {target: (sd, number) for target, sd, number in each} for u, each in parsed.items()}

    @cached_property
    def controls(self) -> dict[str, list[Control]]:
        """Listener -> answers to control questions."""
        return {listener: list(map(control, lines)) for listener, lines in self.control_texts.items()}

    @property
    def groups(self) -> dict[str, str]:
        """System -> group; empty if unknown."""
        return self.tables.get("sys2group", {})

    @cached_property
    def conditions(self) -> dict[str, str]:
        """Utterance -> condition; systems that are copies of each other share one (sys2cond)."""
        table = self.tables.get("sys2cond", {})
        return {utterance: table.get(system, system) for utterance, system in self.systems.items()}

    @cached_property
    def system_mos(self) -> dict[str, float]:
        """System -> true MOS; empty if it is the mean of the utterances."""
        return self._floats("sys2mos")

    @property
    def corpora(self) -> dict[str, str]:
        """Utterance -> corpus; empty for a single corpus."""
        return self.tables.get("utt2corpus", {})

    def _floats(self, name: str) -> dict[str, float]:
        return {key: float(text) for key, text in self.tables.get(name, {}).items()}

    def only(self, utterances: Collection[str]) -> DataDir:
        """Return the part of the data that concerns `utterances`."""
        kept = {"utterance": set(utterances)}
        kept["recording"] = {self.segments[u][0] for u in kept["utterance"]} if self.segments else kept["utterance"]
        kept["system"] = {self.systems[utterance] for utterance in kept["utterance"] if utterance in self.systems}
        tables = {
            name: {key: value for key, value in table.items() if key in kept[get_table(name).key]}
            for name, table in self.tables.items()
        }
        ratings = {u: pairs for u, pairs in self.rating_texts.items() if u in kept["utterance"]}
        votes = {u: lines for u, lines in self.vote_texts.items() if u in kept["utterance"]}
        return replace(self, tables=tables, rating_texts=ratings, vote_texts=votes)


def read_data_dir(
    directory: str | Path, *, rated: bool = True, pipes: bool = False, audio_only: bool = False
) -> DataDir:
    """Read a data directory; any fault is an error.

    Args:
        directory: its path.
        rated: whether utt2mos must exist.
        pipes: whether wav.scp may hold commands.
        audio_only: whether wav.scp is the only table that must exist.

    Raises:
        InputError: naming every fault that `validate_data_dir` finds.
    """
    directory = Path(directory)
    found = scan_data_dir(directory, rated=rated, pipes=pipes, audio_only=audio_only)
    raise_faults(found.faults, f"{directory} is not a valid data directory")
    tables = {name: table.values for name, table in found.tables.items()}
    notes = read_notes(directory)
    return DataDir(directory, tables, found.ratings.values, notes, found.scales, found.votes, found.controls)


def read_notes(directory: Path) -> str:
    """Return the notes of a data directory; empty if it has none."""
    return " ".join(read_lines(directory / NOTES)).strip() if (directory / NOTES).exists() else ""


def read_scales(directory: str | Path) -> list[Scale]:
    """Return the scales in the file `scale` of a directory; none without the file.

    Raises:
        InputError: naming each faulty line.
    """
    faults: list[str] = []
    scales = scan_scales(Path(directory), faults)
    raise_faults(faults, f"{directory}: scale")
    return scales


def write_scales(directory: Path, scales: Iterable[Scale]) -> None:
    """Write the file `scale` of a directory; `read_scales` reads it."""
    write_text(directory / SCALE, "".join(f"{scale}\n" for scale in scales))


def write_data_dir(
    directory: str | Path,
    utterances: Iterable[Utterance],
    notes: str = "",
    scales: Sequence[Scale] = (),
    controls: Mapping[str, Iterable[Control]] | None = None,
) -> int:
    """Write one data directory, as `write_data_dirs` does; return the number of utterances."""
    directory = Path(directory)
    sets = {directory.name: utterances}
    return write_data_dirs(directory.parent, sets, notes, scales=scales, controls=controls)[directory.name]


def write_data_dirs(
    parent: str | Path,
    sets: Mapping[str, Iterable[Utterance]],
    notes: str = "",
    system_mos: Mapping[str, float] | None = None,
    scales: Sequence[Scale] = (),
    controls: Mapping[str, Iterable[Control]] | None = None,
) -> dict[str, int]:
    """Write the data directories of a corpus in place of older ones: all of them or, on any fault, none.

    Args:
        parent: parent of the directories, for example data.
        sets: name of a directory in `parent` -> its utterances in any order.
        notes: one line for the file `notes` of each directory; if empty, the file is not written.
        system_mos: system -> true MOS, for sys2mos; must have all systems of all sets. None: no sys2mos.
        scales: the scale of mean scores and ratings, then those of further targets with another range; none for MOS
            from 1 to 5.
        controls: listener -> answers to control questions, for each directory.

    Returns:
        name -> number of utterances.

    Raises:
        InputError: naming every fault that `validate_data_dir` finds, and every unreadable recording. All
            directories then stay unchanged.
    """
    parent = Path(parent)
    ordered = {name: sorted(members, key=lambda u: c_locale_key(u.id)) for name, members in sets.items()}
    faults: list[str] = []
    durations = {name: _durations(parent / name, members, faults) for name, members in ordered.items()}
    if system_mos is not None:
        faults += [
            f"{parent / name}: system {system} is not in sys2mos"
            for name, members in ordered.items()
            for system in dict.fromkeys(u.system for u in members)
            if system not in system_mos
        ]
    raise_faults(faults, f"preparing {', '.join(str(parent / name) for name in sets)}")
    answers = {listener: list(map(str, given)) for listener, given in (controls or {}).items()}
    directories = [
        replace(
            _from_utterances(parent / name, members, durations[name], notes, system_mos),
            scales=scales,
            control_texts=answers,
        )
        for name, members in ordered.items()
    ]
    replace_data_dirs(directories, "preparing")
    return {name: len(members) for name, members in ordered.items()}


def _durations(directory: Path, ordered: list[Utterance], faults: list[str]) -> dict[str, float]:
    """Return utterance -> seconds; add values that a table cannot hold and unreadable recordings to `faults`."""
    bad = [utterance.id for utterance in ordered if len(utterance.id.split()) != 1]
    faults += [f"{directory}: utterance id {name!r} is empty or has white space" for name in bad]
    faults += [f"{directory}: utterance {a.id} occurs twice" for a, b in pairwise(ordered) if a.id == b.id]
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


def _from_utterances(
    directory: Path,
    utterances: list[Utterance],
    durations: Mapping[str, float],
    notes: str,
    system_mos: Mapping[str, float] | None,
) -> DataDir:
    tables = {
        "wav.scp": {u.id: str(Path(u.audio).absolute()) for u in utterances},
        "utt2dur": {u.id: str(durations[u.id]) for u in utterances},
        "sys2group": {u.system: u.group for u in utterances if u.group is not None},
        "sys2cond": {u.system: u.condition for u in utterances if u.condition is not None},
    }
    for name, attribute in _COLUMNS.items():
        values = ((u.id, getattr(u, attribute)) for u in utterances)
        tables[name] = {utterance: str(value) for utterance, value in values if value is not None}
    for target in dict.fromkeys(target for u in utterances for target in u.targets):
        scores = {u.id: str(u.targets[target]) for u in utterances if target in u.targets}
        tables[target_table(target).name] = scores
    if system_mos is not None:
        tables["sys2mos"] = {u.system: str(system_mos[u.system]) for u in utterances}
    ratings = {u.id: [(listener, _shortest(score)) for listener, score in u.ratings] for u in utterances if u.ratings}
    votes = {
        u.id: [f"{target} {deviation} {number}" for target, (deviation, number) in u.votes.items()]
        for u in utterances
        if u.votes
    }
    # A table without values is not written.
    written = {name: table for name, table in tables.items() if table}
    return DataDir(directory, written, ratings, notes, vote_texts=votes)


def _shortest(score: float) -> str:
    """Format a whole rating without a decimal point, and any other so that it reads back exactly."""
    return str(int(score)) if score == int(score) else str(score)


def replace_data_dirs(directories: Iterable[DataDir], doing: str) -> None:
    """Write data directories to their paths in place of older ones: all of them or, on any fault, none.

    Args:
        directories: what to write.
        doing: a verb for the heading of the faults, such as "preparing".

    Raises:
        InputError: naming every fault of the new data, or if one of the directories holds something else. All
            directories then stay unchanged.
    """
    directories = list(directories)
    for data in directories:
        require_replaceable(data.path)
    temporary = {data.path: (temporary_name(data.path), data) for data in directories}
    faults: list[str] = []
    try:
        for path, (new, data) in temporary.items():
            write_files(replace(data, path=new))
            found = validate_data_dir(new, rated="utt2mos" in data.tables)
            faults += [fault.replace(str(new), str(path)) for fault in found]
        raise_faults(faults, f"{doing} {', '.join(map(str, temporary))}")
        for path, (new, _) in temporary.items():
            replace_directory(new, path)
    finally:
        for new, _ in temporary.values():
            shutil.rmtree(new, ignore_errors=True)


def require_replaceable(directory: Path) -> None:
    """Refuse to replace a directory that holds something else than a data directory, such as the recordings.

    Raises:
        InputError: if it is a file, the current directory, or has entries but no wav.scp.
    """
    if not directory.name or (directory.exists() and not directory.is_dir()):
        raise InputError(f"{directory}: cannot become a data directory; name a new one")
    if directory.is_dir() and any(directory.iterdir()) and not (directory / "wav.scp").exists():
        raise InputError(f"{directory}: exists and is not a data directory; its files would be lost; name a new one")


def require_other(out: Path, source: DataDir) -> None:
    """Refuse to replace a data directory by what is left of it.

    Raises:
        InputError: if `out` is the directory `source`.
    """
    if out.resolve() == source.path.resolve():
        raise InputError(f"{out}: is the source, which would lose what is left out; name another directory")


def write_files(data: DataDir, leave_out: Collection[str] = ()) -> None:
    """Write the files of a data directory except the tables `leave_out`, without checks. The directory may exist."""
    directory = data.path
    directory.mkdir(parents=True, exist_ok=True)
    for name in dict.fromkeys([*TABLES, *data.tables]):
        if name not in leave_out and (get_table(name).required or data.tables.get(name)):
            write_table(directory / name, data.tables.get(name, {}))
    if data.scales:
        rated = [s for s in data.scales[1:] if data.tables.get(target_table(s.name).name)]
        write_scales(directory, [data.scales[0], *rated])
    if data.rating_texts:
        ordered = sorted(data.rating_texts, key=c_locale_key)
        lines = [f"{u} {listener} {score}\n" for u in ordered for listener, score in data.rating_texts[u]]
        write_text(directory / RATINGS, "".join(lines))
    if data.vote_texts:
        ordered = sorted(data.vote_texts, key=c_locale_key)
        write_text(directory / VOTES, "".join(f"{u} {line}\n" for u in ordered for line in data.vote_texts[u]))
    if data.control_texts:
        ordered = sorted(data.control_texts, key=c_locale_key)
        write_text(
            directory / CONTROLS, "".join(f"{name} {line}\n" for name in ordered for line in data.control_texts[name])
        )
    if data.notes:
        write_text(directory / NOTES, data.notes + "\n")
