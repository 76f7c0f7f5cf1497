"""The files of a data directory and the content of their lines, defined only here.

All are UTF-8 text. A table has one line per key, `key value`, sorted by key in the C locale. Any other table
`utt2TARGET` holds the mean scores of a further target, such as `utt2fluency`; it may lack utterances.

A data directory may also have

    scale    lowest score, highest score and name of what is rated. The first line is for utt2mos and the ratings; a
             further line is for the target that it names. A target without one has the range of the first line.
             Without the file: `1 5 MOS`.
    ratings  utterance, listener, score; several lines per utterance
    votes    utterance, target (mos for utt2mos), standard deviation and number of its ratings, if these are not known
    controls listener, kind, stimulus, answer, lowest and highest right answer: the answers of listeners to questions
             whose right answer is known; several lines per listener
    notes    one line to show with all results
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from distilmos.data.archive import split_location
from distilmos.data.audio import Span
from distilmos.data.tables import finite_number
from distilmos.errors import InputError

SEGMENTS = "segments"  # utterances that are parts of recordings
RATINGS = "ratings"  # utterance, listener, score
VOTES = "votes"  # utterance, target, standard deviation, number of ratings
CONTROLS = "controls"  # listener, kind, stimulus, answer, lowest and highest right answer
SCALE = "scale"  # lowest and highest score, name
NOTES = "notes"  # one line to show with all results, such as "The ratings are simulated."
MOS = "mos"  # the target of utt2mos, in `votes`
# Kinds of control questions: hidden reference and mid-range anchor of a MUSHRA test (ITU-R BS.1534), trapping question
# and gold standard question of a crowdsourced test (ITU-T P.808).
CONTROL_KINDS = ("reference", "anchor", "trapping", "gold")
# Of predictions, besides the scores; no target has such a name.
_COLUMNS = ("utterance", "calibrated", "seconds", "novelty", "error", "model")

Number = TypeVar("Number", float, np.ndarray)


@dataclass(frozen=True)
class Scale:
    """A rating scale.

    Attributes:
        lowest: lowest score.
        highest: highest score.
        name: name of what is rated, such as MOS or fluency.
    """

    lowest: float
    highest: float
    name: str

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: if the ends are not finite and ascending, or the name is empty.
        """
        if not (math.isfinite(self.width) and self.lowest < self.highest):
            raise ValueError(f"{self.span} is not a scale from the lowest to the highest score")
        if not self.name.strip() or "\n" in self.name or self.name in _COLUMNS:
            raise ValueError(f"{self.name!r} is not the name of what is rated")

    def __str__(self) -> str:
        """Return the line of the file `scale`."""
        lowest, highest = (str(int(end)) if end == int(end) else str(end) for end in (self.lowest, self.highest))
        return f"{lowest} {highest} {self.name}"

    @property
    def width(self) -> float:
        """Difference between the ends."""
        return self.highest - self.lowest

    @property
    def span(self) -> str:
        """The ends as text, such as `1 to 5`."""
        return f"{self.lowest:g} to {self.highest:g}"

    def same_range(self, other: Scale) -> bool:
        """Return whether both have the same ends."""
        return (self.lowest, self.highest) == (other.lowest, other.highest)

    def score(self, text: str) -> float:
        """Convert a score.

        Raises:
            InputError: if it is not a number on the scale.
        """
        value = finite_number(text)
        if not self.lowest <= value <= self.highest:
            raise InputError(f"{text} is not in {self.span}")
        return value

    def convert(self, score: Number, to: Scale) -> Number:
        """Map a score, or an array of scores, linearly to another scale; those of the same range stay bit-equal."""
        if self.same_range(to):
            return score
        return to.lowest + (score - self.lowest) * (to.width / self.width)


MOS_SCALE = Scale(1.0, 5.0, "MOS")  # absolute category rating (ITU-T P.800)


def scale_line(text: str) -> Scale:
    """Convert a line of the file `scale`.

    Raises:
        InputError: unless it is `lowest highest name`, with the numbers in this order.
    """
    fields = text.split(maxsplit=2)
    if len(fields) != 3:
        raise InputError(f"expected 'lowest highest name', found {text!r}")
    try:
        return Scale(finite_number(fields[0]), finite_number(fields[1]), fields[2].strip())
    except ValueError as error:
        raise InputError(str(error)) from None


def scale_of(scales: Sequence[Scale], target: str) -> Scale:
    """Return the scale of a target in the scales of a data directory, of which the first is that of utt2mos."""
    main = scales[0] if scales else MOS_SCALE
    if target == MOS:
        return main
    return next((scale for scale in scales[1:] if scale.name == target), replace(main, name=target))


def votes(text: str) -> tuple[str, float, int]:
    """Convert the text after the utterance in `votes`, `target standard_deviation number`.

    Raises:
        InputError: if it is something else.
    """
    fields = text.split()
    if len(fields) != 3:
        raise InputError(f"expected 'utterance target standard_deviation number', found {text!r} after the utterance")
    deviation = finite_number(fields[1])
    if deviation < 0 or not re.fullmatch(r"[1-9][0-9]{0,8}", fields[2]):
        raise InputError(f"not a standard deviation and a number of ratings: {fields[1]} {fields[2]}")
    return fields[0], deviation, int(fields[2])


@dataclass(frozen=True)
class Control:
    """The answer of a listener to a control question.

    Attributes:
        kind: one of CONTROL_KINDS.
        stimulus: name of what was rated, one word.
        answer: the score that the listener gave.
        lowest: lowest right answer.
        highest: highest right answer.
    """

    kind: str
    stimulus: str
    answer: float
    lowest: float
    highest: float

    def __str__(self) -> str:
        """Return the line of the file `controls`, without the listener."""
        numbers = (self.answer, self.lowest, self.highest)
        return " ".join([self.kind, self.stimulus, *(f"{number:.10g}" for number in numbers)])

    @property
    def right(self) -> bool:
        """Whether the answer is right."""
        return self.lowest <= self.answer <= self.highest

    def convert(self, scale: Scale, to: Scale) -> Control:
        """Map the scores to another scale."""
        answer, lowest, highest = (scale.convert(score, to) for score in (self.answer, self.lowest, self.highest))
        return replace(self, answer=answer, lowest=lowest, highest=highest)


def control(text: str) -> Control:
    """Convert the text after the listener in `controls`.

    Raises:
        InputError: if it is something else.
    """
    fields = text.split()
    if len(fields) != 5:
        raise InputError(f"expected 'listener kind stimulus answer lowest highest', found {text!r} after the listener")
    if fields[0] not in CONTROL_KINDS:
        raise InputError(f"{fields[0]} is not a kind of control question: {', '.join(CONTROL_KINDS)}")
    answer, lowest, highest = map(finite_number, fields[2:])
    if lowest > highest:
        raise InputError(f"the lowest right answer, {fields[3]}, is above the highest, {fields[4]}")
    return Control(fields[0], fields[1], answer, lowest, highest)


def seconds(text: str) -> float:
    """Convert a duration.

    Raises:
        InputError: if it is not a positive number.
    """
    value = finite_number(text)
    if value <= 0:
        raise InputError(f"not a positive duration: {text}")
    return value


def segment(text: str) -> tuple[str, Span]:
    """Convert a segment, `recording start end` in seconds; an end of -1, as in Kaldi, is the end of the recording.

    Raises:
        InputError: unless 0 <= start < end.
    """
    fields = text.split()
    if len(fields) != 3:
        raise InputError(f"expected 'recording start end' after the utterance, found {text!r}")
    recording, start, end = fields[0], finite_number(fields[1]), finite_number(fields[2])
    end = math.inf if end == -1 else end
    if not 0 <= start < end:
        raise InputError(f"not a span of time: {fields[1]} to {fields[2]}")
    return recording, (start, end)


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        name: name of the file.
        key: kind of the key. A recording is an utterance if there are no `segments`.
        meaning: meaning of the value.
        convert: converts the text of a value; raises InputError if it cannot. Scores must also be on the scale.
        target: the target whose scores these are; empty for other tables.
        required: every data directory has this table.
        complete: the table has every key. Tables of systems may also have systems without utterances.
        names: kind of name that the values are, if names are unique only within a corpus; empty otherwise.
    """

    name: str
    key: Literal["utterance", "recording", "system"]
    meaning: str
    convert: Callable[[str], object] = str
    target: str = ""
    required: bool = False
    complete: bool = False
    names: str = ""


TABLES = {
    table.name: table
    for table in (
        Table("wav.scp", "recording", "path of the audio, or archive:offset", split_location, required=True),
        Table(SEGMENTS, "utterance", "recording, and start and end in seconds", segment, complete=True),
        Table("utt2sys", "utterance", "system under test", required=True, complete=True, names="system"),
        Table("utt2dur", "utterance", "duration in seconds", seconds, required=True, complete=True),
        Table("utt2mos", "utterance", "mean score; absent if nothing is rated", finite_number, MOS, complete=True),
        Table("utt2spk", "utterance", "speaker", names="speaker"),
        Table("utt2sent", "utterance", "id of the spoken sentence", names="sentence"),
        Table("text", "utterance", "transcript"),
        Table("utt2corpus", "utterance", "corpus, in a set joined from several", complete=True),
        Table("sys2group", "system", "group of the system, such as a type of degradation", complete=True),
        Table(
            "sys2cond", "system", "condition that the system repeats; otherwise the system itself", names="condition"
        ),
        Table(
            "sys2mos",
            "system",
            "true score; otherwise the mean of its utterances",
            finite_number,
            MOS,
            complete=True,
        ),
    )
}
FILES = (*TABLES, SCALE, RATINGS, VOTES, CONTROLS, NOTES)  # besides the tables of further targets
# Tables that Kaldi and ESPnet write into data directories; they are not targets.
_OTHER_TABLES = {
    f"utt2{name}"
    for name in ("category", "gender", "lang", "lid", "num_frames", "num_samples", "sid", "uniq", "utt", "vad", "warp")
}
_TARGET = re.compile(r"utt2[A-Za-z]\w*")
TARGET_NAMES = "letters, digits and _, and not the name of another table (sys, spk, dur, sent, corpus, mos, ...)"


def target_table(target: str) -> Table:
    """Return the table of a further target.

    Raises:
        InputError: if the target cannot have this name.
    """
    name = f"utt2{target}"
    if not _TARGET.fullmatch(name) or name in TABLES or name in _OTHER_TABLES or target in _COLUMNS:
        raise InputError(f"{target!r} is not the name of a target: {TARGET_NAMES}")
    return Table(name, "utterance", f"mean score of {target}", finite_number, target)


def find_table(name: str) -> Table | None:
    """Return the table that is kept in the file `name`; None if it is not a file of a data directory."""
    if name in TABLES or not name.startswith("utt2"):
        return TABLES.get(name)
    try:
        return target_table(name.removeprefix("utt2"))
    except InputError:
        return None


def get_table(name: str) -> Table:
    """Return a table that exists."""
    table = find_table(name)
    assert table is not None
    return table


def is_target(name: str) -> bool:
    """Return whether utt2NAME is the table of a further target."""
    table = find_table(f"utt2{name}")
    return table is not None and table.name not in TABLES


def table_names(directory: Path) -> list[str]:
    """Return the names of all tables that a data directory may hold: those of TABLES, then its further targets."""
    found = sorted(path.name for path in directory.glob("utt2*"))
    return [*TABLES, *(name for name in found if is_target(name.removeprefix("utt2")))]


# Kind of name -> table that gives it to utterances: "speaker" -> "utt2spk", ...
NAMES = {table.names: table.name for table in TABLES.values() if table.names and table.key == "utterance"}
