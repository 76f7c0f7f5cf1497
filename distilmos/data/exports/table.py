"""Delimited text with one rating, or one mean score, per line.

a plain list     listener, file, score; optional: system
MOS-Bench        wav_path, system_id, sample_id, and score with listener_id, or avg_score: the lists that the
                 egs/*/local/data_prep.py of SHEET write (https://github.com/unilight/sheet)
P.808 toolkit    workerid, file, vote, question_type: BATCH_votes_per_worker_*.csv and BATCH_all_votes_per_clip.csv of
                 its src/result_parser.py (`transform`; https://github.com/microsoft/P.808)
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from distilmos.data.exports.rows import Export, Rating
from distilmos.data.lists import Row, read_rows, score
from distilmos.data.recordings import DELIMITERS
from distilmos.data.schema import MOS, Scale
from distilmos.data.tables import read_lines
from distilmos.errors import InputError


@dataclass(frozen=True)
class Columns:
    """Names of the columns.

    Attributes:
        file: path, URL or name of the recording.
        score: the rating.
        listener: who gave it; None if scores are means.
        system: the system under test, where the list has this column.
        target: what was rated, where the list has this column; `mos` or the name of a further target, in any case.
    """

    file: str
    score: str
    listener: str | None
    system: str = "system"
    target: str | None = None

    @property
    def required(self) -> list[str]:
        """The columns that a list must have."""
        return [name for name in (self.listener, self.file, self.score) if name is not None]


PLAIN = Columns("file", "score", "listener")
MOS_BENCH = Columns("wav_path", "score", "listener_id", "system_id")
P808_VOTES = Columns("file", "vote", "workerid", "condition_num", "question_type")


def renamed(names: Mapping[str, str]) -> Columns:
    """Return the columns of a plain list that has other names for some of them.

    Args:
        names: listener, file, score or system -> name in the list.

    Raises:
        InputError: if a key is something else.
    """
    if unknown := [name for name in names if name not in ("listener", "file", "score", "system")]:
        raise InputError(f"{unknown[0]} is not a column of a plain list: listener, file, score, system")
    return replace(PLAIN, **names)


def _delimiter(path: Path) -> str:
    return DELIMITERS.get(path.suffix.lower(), ",")


def header(path: Path) -> list[str]:
    """Return the names in the first line of a list; none if it is not delimited text.

    Raises:
        InputError: if the file is missing or is not UTF-8.
    """
    lines = read_lines(path)
    try:
        return [name.strip() for name in next(csv.reader(lines[:1], delimiter=_delimiter(path)), [])]
    except csv.Error:
        return []


def read_mos_bench(path: Path, scale: Scale, faults: list[str]) -> Export:
    """Read a list of MOS-Bench; see `Reader`. Without `listener_id`, or if no line has one, scores are means."""
    names = header(path)
    rows = read_rows(path, [], [], header=True, delimiter=_delimiter(path), may_be_empty=True, line_breaks=True)
    columns = MOS_BENCH
    if not any(row.values.get("listener_id") for row in rows):
        columns = replace(columns, listener=None, score="avg_score" if "avg_score" in names else "score")
    return read_table(path, scale, faults, columns)


def read_table(path: Path, scale: Scale, faults: list[str], columns: Columns) -> Export:
    """Read a list; see `Reader`."""
    export = Export()
    required = columns.required
    rows = read_rows(
        path, required, faults, header=True, delimiter=_delimiter(path), may_be_empty=True, line_breaks=True
    )
    for row in rows:
        if empty := [name for name in required if not row[name]]:
            faults.append(f"{row.where}: no {', '.join(empty)}")
            continue
        value = score(row, columns.score, faults, scale=scale)
        if value is not None:
            listener = None if columns.listener is None else row[columns.listener]
            system = row.values.get(columns.system, "")
            export.ratings.append(
                Rating(row.where, row[columns.file], value, listener, system, _target(row, columns.target))
            )
    return export


def _target(row: Row, column: str | None) -> str:
    """Return the target of a rating. The P.808 toolkit calls them MOS, DMOS, CMOS, MOS_OVRL, MOS_SIG, ..."""
    name = (row.values.get(column, "") if column else "").lower().removeprefix("mos_")
    return MOS if name in ("", "ovrl") or name.endswith("mos") else name
