"""The file references.json of a results directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from distilmos.data.tables import read_json
from distilmos.files import write_json
from distilmos.metrics import METRICS
from distilmos.scoring.pairs import Pairs
from distilmos.scoring.results import Measure

RESULT = "references.json"
LENGTH = "length of the recording"
NOTE = (
    "Rows with a colon are what the scores of the model are to be compared with. Other utterances of the condition: "
    "their mean, without the utterance itself; about what perfect knowledge of the conditions gives, or less if they "
    "have few utterances. Listener ceiling: how well one listener, or half of them, predict the others, mean over "
    "random orders; and the LCC of a perfect prediction. Ridge regression: on mean and standard deviation over time of "
    "one layer, fitted to the training set; a cross-validation there chose the layer."
)


class _Reference(BaseModel):
    target: str
    name: str
    levels: dict[str, dict[str, Measure]]
    pairs: Pairs = {}


class _References(BaseModel):
    rows: list[_Reference]


def write_result(results: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write references.json.

    Args:
        results: results directory.
        rows: one for each reference: `target`, the name of what is rated; `name`; `levels`: level -> measure ->
            `value`, `low` and `high`, only the measures that it has; `pairs`: level -> see `pair_accuracy`.
    """
    write_json(results / RESULT, {"rows": list(rows)})


def read_result(results: Path) -> list[dict[str, Any]]:
    """Read the rows of references.json, see `write_result`; none without the file.

    Raises:
        InputError: if the file is faulty.
    """
    if not (results / RESULT).exists():
        return []
    found: _References = read_json(results / RESULT, _References)
    return [row.model_dump(exclude_unset=True) for row in found.rows]


def reference_rows(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Mapping[str, Any] | None]]]:
    """Return label and an entry for each of METRICS of the rows of a table of scores, grouped by target and level."""
    several = len({row["target"] for row in rows}) > 1
    keys = dict.fromkeys((row["target"], level) for row in rows for level in row["levels"])
    return [
        (f"{target}, {level}: {row['name']}" if several else f"{level}: {row['name']}", list(map(levels.get, METRICS)))
        for target, level in keys
        for row in rows
        if row["target"] == target and (levels := row["levels"].get(level))
    ]
