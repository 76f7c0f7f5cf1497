"""The files of a data directory and the content of their lines, defined only here.

All are UTF-8 text. A table has one line per key, `key value`, sorted by key in the C locale. Besides the tables, a data
directory may have `ratings` (utterance, listener, score; several lines per utterance) and `notes` (one line).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from distilmos.data.archive import split_location
from distilmos.data.audio import Span
from distilmos.data.tables import finite_number
from distilmos.errors import InputError

MOS_RANGE = (1.0, 5.0)  # absolute category rating (ITU-T P.800)
SEGMENTS = "segments"  # utterances that are parts of recordings
RATINGS = "ratings"  # utterance, listener, score
NOTES = "notes"  # one line to show with all results, such as "The ratings are simulated."


def score(text: str) -> float:
    """Convert a score.

    Raises:
        InputError: if it is not a number in MOS_RANGE.
    """
    value = finite_number(text)
    if not MOS_RANGE[0] <= value <= MOS_RANGE[1]:
        raise InputError(f"{text} is not in 1..5")
    return value


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
        convert: converts the text of a value; raises InputError if it cannot.
        required: every data directory has this table.
        complete: the table has every key. Tables of systems may also have systems without utterances.
        names: kind of name that the values are, if names are unique only within a corpus; empty otherwise.
    """

    name: str
    key: Literal["utterance", "recording", "system"]
    meaning: str
    convert: Callable[[str], object] = str
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
        Table("utt2mos", "utterance", "mean opinion score; absent if nothing is rated", score, complete=True),
        Table("utt2spk", "utterance", "speaker", names="speaker"),
        Table("utt2sent", "utterance", "id of the spoken sentence", names="sentence"),
        Table("text", "utterance", "transcript"),
        Table("utt2corpus", "utterance", "corpus, in a set joined from several", complete=True),
        Table("sys2group", "system", "group of the system, such as a type of degradation", complete=True),
        Table(
            "sys2cond", "system", "condition that the system repeats; otherwise the system itself", names="condition"
        ),
        Table("sys2mos", "system", "true MOS; otherwise the mean of its utterances in the set", score, complete=True),
    )
}
FILES = (*TABLES, RATINGS, NOTES)
# Kind of name -> table that gives it to utterances: "speaker" -> "utt2spk", ...
NAMES = {table.names: table.name for table in TABLES.values() if table.names and table.key == "utterance"}
