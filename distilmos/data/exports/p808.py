"""Results of the P.808 toolkit (https://github.com/microsoft/P.808): answers of sessions, and votes per clip.

Columns as its src/result_parser.py reads and writes them. In the answers, as Amazon Mechanical Turk and the HIT app
export them, a line is a session:

    WorkerId                                  the listener
    AssignmentStatus                          optional; sessions that are Rejected are left out
    Answer.qN_url, Answer.qN                  clip and rating of question N (ACR)
    Answer.qN_ovrl, _sig, _bak, ...           the ratings instead, if several qualities are rated (P.835, P.804)
    Input.tp, Input.tp_ans                    trapping clip and the only right answer
    Input.gold_clips, Input.gold_clips_ans    gold standard clip and its answer, which may differ by 1
    Input.gold_url, Input.gold_ovrl_ans       the same in P.804 tests; the answer is base64 of URL_ANSWER. With `_2` at
                                              the end, a second one

BATCH_votes_per_clip.csv has file_url, n, MOS, std and 95%CI (MOS_OVRL, std_ovrl, ... of several qualities), and vote_1,
vote_2, ... in any order of the listeners; only mean, standard deviation and number are imported.
"""

from __future__ import annotations

import re
from base64 import b64decode
from pathlib import Path

from distilmos.data.exports.rows import Answer, Export, Rating, word
from distilmos.data.lists import Row, read_rows, score
from distilmos.data.schema import MOS, Control, Scale
from distilmos.data.tables import finite_number
from distilmos.errors import InputError

GOLD_TOLERANCE = 1  # `variance` in the toolkit's *_result_parser_template.cfg
MAIN = "ovrl"  # the quality that becomes the MOS, if several are rated
_CLIP = re.compile(r"answer\.(q[0-9]+)_url")
_QUALITIES = (MAIN, "sig", "bak", "noise", "col", "loud", "disc", "reverb")
# Column of the clip of a control question -> kind, column of the right answer, and accepted difference.
_CONTROLS = {
    "input.tp": ("trapping", "input.tp_ans", 0),
    "input.gold_clips": ("gold", "input.gold_clips_ans", GOLD_TOLERANCE),
    "input.gold_url": ("gold", "input.gold_ovrl_ans", GOLD_TOLERANCE),
    "input.gold_url_2": ("gold", "input.gold_ovrl_ans_2", GOLD_TOLERANCE),
}


def has_answers(header: list[str]) -> bool:
    """Return whether a header has the clips of sessions."""
    return any(_CLIP.fullmatch(name.lower()) for name in header)


def read_answers(path: Path, scale: Scale, faults: list[str]) -> Export:
    """Read the answers of sessions; see `Reader`. Sessions without any answer were not finished, and are left out."""
    export = Export()
    for line in read_rows(path, ["WorkerId"], faults, header=True, may_be_empty=True, line_breaks=True):
        # As in the toolkit: any case, and sliders (`_slide`) are answers.
        row = Row(
            line.path, line.line, {name.lower().replace("_slide", ""): text for name, text in line.values.items()}
        )
        questions = [match[1] for name in row.values if (match := _CLIP.fullmatch(name))]
        if not questions:
            faults.append(f"{path}:1: expected columns Answer.q1_url, Answer.q1, ..., found {', '.join(line.values)}")
            break
        if row.values.get("assignmentstatus", "").lower() == "rejected":
            export.remarks.append(f"{row.where}: the assignment was rejected")
            continue
        answered = [question for question in questions if row[f"answer.{question}_url"]]
        if not answered:
            export.remarks.append(f"{row.where}: no answer; the session was not finished")
        elif not row["workerid"]:
            faults.append(f"{row.where}: no WorkerId")
        else:
            for question in answered:
                _read_question(row, question, scale, faults, export)
    return export


def _read_question(row: Row, question: str, scale: Scale, faults: list[str], export: Export) -> None:
    """Add the ratings of a question, or the answer to a control question, to `export`."""
    listener, clip = row["workerid"], row[f"answer.{question}_url"]
    columns = {f"answer.{question}": MOS} if f"answer.{question}" in row.values else {}
    if not columns:
        qualities = [name for name in _QUALITIES if f"answer.{question}_{name}" in row.values]
        columns = {f"answer.{question}_{name}": MOS if name == MAIN else name for name in qualities}
    if not columns:
        faults.append(
            f"{row.where}: {question} has a clip, but no column Answer.{question} or Answer.{question}_{MAIN}"
        )
    for column, target in columns.items():
        if not row[column]:
            export.remarks.append(f"{row.where}: {column} is empty")
            continue
        value = score(row, column, faults, scale=scale)
        if value is None:
            continue
        asked = next((name for name in _CONTROLS if row.values.get(name) and row[name] in clip), None)
        if asked is None:
            export.ratings.append(Rating(row.where, clip, value, listener, target=target))
            continue
        kind, source, tolerance = _CONTROLS[asked]
        if target == MOS and (right := _right(row, row[asked], source, faults)) is not None:
            stimulus = word(clip.rsplit("/", 1)[-1])
            control = Control(kind, stimulus, value, right - tolerance, right + tolerance)
            export.answers.append(Answer(listener, control))


def _right(row: Row, clip: str, column: str, faults: list[str]) -> float | None:
    """Return the right answer to a control question; None if it is not known, or after adding a fault."""
    text = row.values.get(column, "")
    try:
        decoded = b64decode(text, validate=True).decode()
    except ValueError:  # also of text that is not UTF-8
        decoded = ""
    if decoded.startswith(f"{clip}_"):
        text = decoded.removeprefix(f"{clip}_")
    try:
        return finite_number(text) if text else None
    except InputError as error:
        faults.append(f"{row.where}: {column}: {error}")
        return None


def read_clips(path: Path, scale: Scale, faults: list[str]) -> Export:
    """Read BATCH_votes_per_clip.csv; see `Reader`. One quality per file; of several, the overall one is imported."""
    export = Export()
    for row in read_rows(path, ["file_url", "n"], faults, header=True, may_be_empty=True):
        mean = next((name for name in ("MOS", "MOS_OVRL") if name in row.values), None)
        if mean is None:
            faults.append(f"{path}:1: expected a column MOS or MOS_OVRL, found {', '.join(row.values)}")
            break
        value = score(row, mean, faults, scale=scale)
        if not row["file_url"]:
            faults.append(f"{row.where}: no file_url")
        elif value is not None:
            spread = row.values.get("std") or row.values.get("std_ovrl")
            try:
                votes = (finite_number(spread), int(finite_number(row["n"]))) if spread else None
            except InputError as error:
                faults.append(f"{row.where}: {error}")
                continue
            export.ratings.append(Rating(row.where, row["file_url"], value, None, votes=votes))
    return export
