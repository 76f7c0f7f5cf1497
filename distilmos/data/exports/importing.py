"""Import of the exports of a listening test into a data directory."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev

from distilmos.data.datadir import Utterance, require_replaceable, write_data_dir
from distilmos.data.exports.formats import Format, find_format
from distilmos.data.exports.places import Places
from distilmos.data.exports.rows import Rating, word
from distilmos.data.schema import MOS, MOS_SCALE, Control, Scale
from distilmos.errors import InputError, raise_faults
from distilmos.files import write_text

REPORT = "report.txt"
SHOWN = 5  # remarks in the printed summary; the report has all
# ITU-R BS.1534-3, section 4.1.2: a right answer is at least 90 of 100 for the hidden reference, and at most 90 for the
# mid-range anchor.
_GRADE = 0.9
_GIVEN = re.compile("listener[0-9]+")


@dataclass(frozen=True)
class Choices:
    """What the user chose.

    Attributes:
        scale: of the ratings; None: that of the format.
        system: its first group, or its whole match, in the path of a recording below the directory of the recordings is
            the system; None: the export names
            the system, or the folder of the recording does.
        reference: system that is the hidden reference; None: that of the format.
        anchor: system that is the mid-range anchor; None: that of the format.
        notes: one line to show with all results.
    """

    scale: Scale | None = None
    system: re.Pattern[str] | None = None
    reference: str | None = None
    anchor: str | None = None
    notes: str = ""


def import_ratings(
    exports: Sequence[Path], out: Path, places: Places, choices: Choices, form: Format | None = None
) -> str:
    """Write a data directory with the ratings of a listening test, whole or not at all, then report.txt in it.

    A listener whose name is not one word, has an @ as e-mail addresses do, or is such a name already, is called
    listener1, listener2, ... in the order of the exports. If a listener rates a recording again, the first rating
    counts. Ratings of the hidden reference and the mid-range anchor are answers to control questions, too; if these
    have no recording, they are nothing else.

    Args:
        exports: files of the same format.
        out: the directory to write.
        places: where the recordings are.
        choices: what the user chose.
        form: the format; None: it is recognised by the content.

    Returns:
        the report, with the first SHOWN remarks.

    Raises:
        InputError: naming every fault with file and line, and every stimulus whose recording is missing.
    """
    require_replaceable(out)
    form = form or find_format(exports[0])
    test = _Test(form, places, choices)
    for path in exports:
        test.add(path)
    test.check(choices)
    raise_faults(test.faults, f"importing {', '.join(map(str, exports))}")
    utterances = [_utterance(recording) for recording in test.recordings.values()]
    scales = [] if test.scale == MOS_SCALE else [test.scale]
    write_data_dir(out, utterances, choices.notes, scales, test.controls)
    facts = _facts(out, utterances, test)
    write_text(out / REPORT, "".join(f"{line}\n" for line in facts + test.remarks))
    more = [f"... and {len(test.remarks) - SHOWN} more in {out / REPORT}"] if len(test.remarks) > SHOWN else []
    return "\n".join(facts + test.remarks[:SHOWN] + more)


@dataclass
class _Recording:
    """A recording with its ratings: target -> listener (None for a mean) -> rating."""

    id: str
    path: Path
    system: str
    first: Rating
    ratings: dict[str, dict[str | None, Rating]] = field(default_factory=dict)


class _Test:
    """Collects what the exports of a listening test say of each recording."""

    def __init__(self, form: Format, places: Places, choices: Choices) -> None:
        self.scale = choices.scale or form.scale
        self.faults: list[str] = []
        self.remarks: list[str] = []
        self.recordings: dict[Path, _Recording] = {}
        self.controls: dict[str, list[Control]] = {}
        self._form, self._places, self._pattern = form, places, choices.system
        self._limits = {  # system -> kind, lowest and highest right answer
            choices.reference or form.reference: ("reference", self._grade(), self.scale.highest),
            choices.anchor or form.anchor: ("anchor", self.scale.lowest, self._grade()),
        }
        self._listeners: dict[str, str] = {}
        self._renamed = 0
        self._systems: set[str] = set()
        self._found: dict[tuple[Path, str], _Recording | None] = {}

    def _grade(self) -> float:
        return self.scale.lowest + _GRADE * self.scale.width

    def add(self, path: Path) -> None:
        """Read an export."""
        faults: list[str] = []
        export = self._form.read(path, self.scale, faults)
        if not faults and not export.ratings:
            faults.append(f"{path}: no rating")
        self.faults += faults
        self.remarks += export.remarks
        for answer in export.answers:
            self.controls.setdefault(self._listener(answer.listener, str(path)), []).append(answer.control)
        for rating in export.ratings:
            self._add(rating, path.parent)

    def check(self, choices: Choices) -> None:
        """Add a fault for each control that the user names and that no export has."""
        absent = [name for name in (choices.reference, choices.anchor) if name and name not in self._systems]
        self.faults += [f"no stimulus is of the system {name}" for name in absent]

    def _add(self, rating: Rating, base: Path) -> None:
        listener = None if rating.listener is None else self._listener(rating.listener, rating.where)
        key = (base, rating.stimulus)
        if key not in self._found:
            self._found[key] = self._recording(rating, base)
        recording = self._found[key]
        if recording is not None:
            first = recording.ratings.setdefault(rating.target, {}).setdefault(listener, rating)
            if rating.system and recording.first.system != rating.system and not self._pattern:
                where = recording.first.where
                self.faults.append(
                    f"{rating.where}: {recording.id} is of {rating.system}, in {where} of {recording.system}"
                )
            if first is not rating:
                by = f" by {listener}" if listener else ""
                self.remarks.append(f"{rating.where}: {rating.stimulus} has a score{by} in {first.where}, which counts")
                return
        system = rating.system or (recording.system if recording else "")
        self._systems.add(system)
        if system in self._limits and listener is not None and rating.target == MOS:
            kind, lowest, highest = self._limits[system]
            control = Control(kind, word(rating.stimulus), rating.score, lowest, highest)
            self.controls.setdefault(listener, []).append(control)

    def _recording(self, rating: Rating, base: Path) -> _Recording | None:
        """Return the recording of a stimulus; None if it needs none, or after adding a fault."""
        try:
            path = self._places.find(rating.stimulus, base)
        except InputError as error:
            self.faults.append(f"{rating.where}: {error}")
            return None
        if path is None and rating.system in (*self._limits, *self._form.created):
            use = "only check listeners" if rating.system in self._limits else "are left out"
            self.remarks.append(f"{rating.where}: {rating.stimulus} has no recording; its ratings {use}")
            return None
        if path is None:
            listed = self._places.listed.get(rating.stimulus)
            self.faults.append(f"{rating.where}: no recording of {rating.stimulus}{f' ({listed})' if listed else ''}")
            return None
        known = self.recordings.get(path)
        if known is not None:
            if rating.stimulus not in (known.first.stimulus, *self._places.listed):
                self.faults.append(f"{rating.where}: {rating.stimulus} and {known.first.stimulus} are both {path}")
            return known
        system = self._system(rating, path, base)
        if system is None:
            return None
        self.recordings[path] = _Recording(self._places.name(path, base), path, system, rating)
        return self.recordings[path]

    def _system(self, rating: Rating, path: Path, base: Path) -> str | None:
        if self._pattern is not None:
            path = self._places.below(path, base)
            match = self._pattern.search(path.as_posix())
            if match is None:
                self.faults.append(f"{rating.where}: the pattern of systems, {self._pattern.pattern}, is not in {path}")
                return None
            return word(match[1] if self._pattern.groups and match[1] else match[0])
        system = word(rating.system or self._places.folder(path))
        if not system:
            self.faults.append(f"{rating.where}: the system of {path} is unknown; give a pattern or folders of systems")
        return system or None

    def _listener(self, name: str, where: str) -> str:
        if name not in self._listeners:
            plain = len(name.split()) == 1 and "@" not in name and not _GIVEN.fullmatch(name)
            self._renamed += not plain
            self._listeners[name] = name if plain else f"listener{self._renamed}"
            if not plain:  # the name itself may be private
                self.remarks.append(f"{where}: this listener is called {self._listeners[name]}")
        return self._listeners[name]


def _utterance(recording: _Recording) -> Utterance:
    """Return a recording with single ratings of its MOS, and means of other targets."""
    main = recording.ratings.get(MOS, {})
    targets, votes = {}, {}
    for target, given in recording.ratings.items():
        scores = [rating.score for rating in given.values()]
        known = given[None].votes if None in given else (stdev(scores), len(scores)) if len(scores) > 1 else None
        if target != MOS:
            targets[target] = fmean(scores)
        if known and (target != MOS or None in given):
            votes[target] = known
    return Utterance(
        recording.id,
        recording.path,
        recording.system,
        mos=main[None].score if None in main else None,
        ratings=tuple((listener, rating.score) for listener, rating in main.items() if listener is not None),
        sentence=recording.first.sentence or None,
        targets=targets,
        votes=votes,
    )


def _facts(out: Path, utterances: Sequence[Utterance], test: _Test) -> list[str]:
    listeners = {listener for utterance in utterances for listener, _ in utterance.ratings}
    ratings = sum(len(utterance.ratings) for utterance in utterances)
    systems = {utterance.system for utterance in utterances}
    counts = (
        f"{len(utterances):,} utterances, {len(systems):,} systems, {len(listeners):,} listeners, {ratings:,} ratings"
    )
    facts = [f"{out}: {counts}, scale {test.scale}"]
    kinds = Counter((control.kind, control.right) for given in test.controls.values() for control in given)
    for kind in dict.fromkeys(kind for kind, _ in kinds):
        total = kinds[kind, True] + kinds[kind, False]
        facts.append(f"control questions, {kind}: {total:,} answers, {kinds[kind, False]:,} of them wrong")
    return facts
