"""webMUSHRA (https://github.com/audiolabs/webMUSHRA): mushra.csv, and lss.csv and lms.csv of its Likert pages.

The columns are those that its service/write.php writes: `session_test_id`, one column for each question about the
participant, `session_uuid` (since 2020), `trial_id`, and

    mushra.csv        rating_stimulus, rating_score, rating_time, rating_comment
    lss.csv, lms.csv  stimuli_rating (of several questions stimuli_rating1, ...), stimuli, rating_time

A stimulus is the name of a condition in the configuration of the test (C1, C2, ...), the hidden `reference`, or an
anchor that the browser makes (`anchor35`, `anchor70`; lib/webmushra/audio/MushraAudioControl.js).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from distilmos.data.exports.rows import Export, Rating, word
from distilmos.data.exports.table import header
from distilmos.data.lists import Row, read_rows, score
from distilmos.data.schema import MOS, Scale
from distilmos.data.tables import read_yaml
from distilmos.errors import InputError

REFERENCE = "reference"
MID_ANCHOR = "anchor70"  # low-pass at 7 kHz, the mid-range anchor of BS.1534
CREATED = ("anchor35", MID_ANCHOR)  # the browser may make these, so that no recording of them exists
_TEST, _SESSION, _TRIAL = "session_test_id", "session_uuid", "trial_id"
LIKERT_SCORES = re.compile("stimuli_rating[0-9]*")


def read_mushra(path: Path, scale: Scale, faults: list[str]) -> Export:
    """Read mushra.csv; see `Reader`."""
    return _read(path, scale, faults, "rating_stimulus", {"rating_score": MOS}, versions=True)


def read_likert(path: Path, scale: Scale, faults: list[str]) -> Export:
    """Read lss.csv or lms.csv. Of several questions, the first one is the MOS, the others are targets question2, ..."""
    names = [name for name in header(path) if LIKERT_SCORES.fullmatch(name)]
    targets = {name: f"question{number}" if number > 1 else MOS for number, name in enumerate(names, 1)}
    return _read(path, scale, faults, "stimuli", targets or {"stimuli_rating": MOS})


def _read(
    path: Path, scale: Scale, faults: list[str], stimulus: str, scores: Mapping[str, str], versions: bool = False
) -> Export:
    """Read a file whose columns `scores` hold the ratings of targets; with `versions`, a trial is a sentence."""
    columns = [_TEST, _TRIAL, stimulus, *scores]
    export = Export()
    for row in read_rows(path, columns, faults, header=True, may_be_empty=True, line_breaks=True):
        listener = _listener(row)
        empty = [name for name in (_TRIAL, stimulus) if not row[name]] + ([] if listener else ["participant"])
        if empty:
            faults.append(f"{row.where}: no {', '.join(empty)}")
            continue
        name = f"{row[_TRIAL]}/{row[stimulus]}"
        sentence = word(row[_TRIAL]) if versions else ""
        for column, target in scores.items():
            value = score(row, column, faults, scale=scale)
            if value is not None:
                rating = Rating(row.where, name, value, listener, row[stimulus], target, sentence=sentence)
                export.ratings.append(rating)
    return export


def _listener(row: Row) -> str:
    """Return the session, or, in a file of an older version, the answers about the participant."""
    if row.values.get(_SESSION):
        return row[_SESSION]
    columns = list(row.values)
    return "_".join(filter(None, (row[name] for name in columns[columns.index(_TEST) + 1 : columns.index(_TRIAL)])))


def read_config(path: Path) -> dict[str, str]:
    """Read the configuration of a test (YAML).

    Returns:
        `trial/stimulus` -> path of its recording, as the configuration gives it.

    Raises:
        InputError: if it is not YAML or has no page with stimuli.
    """
    found: dict[str, str] = {}
    waiting = [read_yaml(path).get("pages")]
    while waiting:
        page = waiting.pop()
        if isinstance(page, list):  # pages in random order are lists in the list
            waiting += page
        elif isinstance(page, dict) and isinstance(page.get("stimuli"), dict):
            files = {**page["stimuli"], REFERENCE: page.get("reference")}
            found |= {f"{page.get('id')}/{name}": str(file) for name, file in files.items() if file is not None}
    if not found:
        raise InputError(f"{path}: expected a configuration of webMUSHRA, found no page with stimuli")
    return found
