"""The formats of exports, and how to recognise them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from distilmos.data.exports import beaqlejs, p808, table, urgent, webmushra
from distilmos.data.exports.rows import Reader
from distilmos.data.schema import MOS_SCALE, Scale
from distilmos.data.tables import read_lines
from distilmos.errors import InputError

MUSHRA_SCALE = Scale(0.0, 100.0, "MUSHRA")  # continuous quality scale (ITU-R BS.1534)


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        read: reads an export.
        recognises: whether a file has this format, by its first character and the names in its first line.
        expected: what the first line shows, for messages.
        scale: scale of the ratings, unless the user names another.
        reference: name of the system that is the hidden reference.
        anchor: name of the system that is the mid-range anchor.
        created: systems of which no recording may exist.
    """

    read: Reader
    recognises: Callable[[str, list[str]], bool]
    expected: str
    scale: Scale = MOS_SCALE
    reference: str | None = None
    anchor: str | None = None
    created: tuple[str, ...] = ()


def _with(*names: str) -> Callable[[str, list[str]], bool]:
    return lambda first, header: set(names) <= set(header)


def _columns(columns: table.Columns) -> Format:
    return Format(
        partial(table.read_table, columns=columns), _with(*columns.required), ", ".join(columns.required) + ", ..."
    )


FORMATS = {
    "webmushra": Format(
        webmushra.read_mushra,
        _with("session_test_id", "rating_stimulus"),
        "session_test_id, ..., trial_id, rating_stimulus, rating_score, ...",
        MUSHRA_SCALE,
        webmushra.REFERENCE,
        webmushra.MID_ANCHOR,
        (webmushra.REFERENCE, *webmushra.CREATED),
    ),
    "webmushra-likert": Format(
        webmushra.read_likert,
        lambda first, header: "stimuli" in header and any(map(webmushra.LIKERT_SCORES.fullmatch, header)),
        "session_test_id, ..., trial_id, stimuli_rating, stimuli, ...",
    ),
    "beaqlejs": Format(
        beaqlejs.read_beaqlejs,
        lambda first, header: first == "[",
        "a JSON list with TestID, rating and filename",
        MUSHRA_SCALE,
        beaqlejs.REFERENCE,
    ),
    "p808": Format(
        p808.read_answers, lambda first, header: p808.has_answers(header), "WorkerId, ..., Answer.q1_url, ..."
    ),
    "p808-votes": _columns(table.P808_VOTES),
    "p808-clips": Format(p808.read_clips, _with("file_url", "n"), "file_url, n, MOS, std, ..."),
    "mos-bench": Format(table.read_mos_bench, _with("wav_path", "system_id"), "wav_path, system_id, ..., score, ..."),
    "urgent": Format(urgent.read_urgent, lambda first, header: first == "{", "JSON lines with audio_path and metrics"),
    "plain": _columns(table.PLAIN),
}


def plain_format(names: Mapping[str, str]) -> Format:
    """Return the format of a plain list with other names of columns; see `table.renamed`."""
    return _columns(table.renamed(names))


def find_format(path: Path) -> Format:
    """Recognise the format of an export by its content.

    Raises:
        InputError: if the file is missing, is not UTF-8, or has none of FORMATS.
    """
    start = next((line.strip() for line in read_lines(path) if line.strip()), "")
    names = table.header(path)
    for known in FORMATS.values():
        if known.recognises(start[:1], names):
            return known
    expected = "".join(f"\n  {name}: {known.expected}" for name, known in FORMATS.items())
    raise InputError(f"{path}:1: found {start[:200]!r}; expected the start of an export:{expected}")
