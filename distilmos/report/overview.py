"""Build the overview of all test sets and the comparison with published scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilmos.data.lists import read_rows
from distilmos.data.tables import finite_number
from distilmos.errors import InputError, raise_faults
from distilmos.markdown import number
from distilmos.metrics import LEVELS, METRICS
from distilmos.report.experiment import Experiment, ScoredSet
from distilmos.scoring.results import rated_targets, scale_in

COLUMNS = ("set", "level", "metric", "value", "model", "trained_on", "source")
NOT_STATED = "not stated"
NOT_RUN = "not run"


@dataclass(frozen=True)
class Published:
    """A published score.

    Attributes:
        set: test set, the name of results/<set>.
        level: one of LEVELS, or NOT_STATED.
        metric: one of METRICS.
        value: value of the metric.
        model: model that reached it.
        trained_on: training corpus of the model.
        source: publication.
    """

    set: str
    level: str
    metric: str
    value: float
    model: str
    trained_on: str
    source: str


def read_published(path: str | Path) -> list[Published]:
    """Read a tab-separated table with the columns COLUMNS.

    Raises:
        InputError: if a line is faulty; names each of them.
    """
    faults: list[str] = []
    scores = []
    for row in read_rows(path, COLUMNS, faults, header=True, delimiter="\t"):
        if row["level"] not in (*LEVELS, NOT_STATED) or row["metric"] not in METRICS:
            faults.append(f"{row.where}: unknown level {row['level']!r} or metric {row['metric']!r}")
            continue
        try:
            value = finite_number(row["value"])
        except InputError as error:
            faults.append(f"{row.where}: {error}")
            continue
        texts = {name: row[name] for name in COLUMNS if name != "value"}
        scores.append(Published(value=value, **texts))
    raise_faults(faults, str(path))
    return scores


def overview_table(experiment: Experiment, names: Sequence[str]) -> dict[str, Any]:
    """Return a table with one row for each test set.

    Args:
        experiment: experiment with its scored sets.
        names: expected test sets in the order of the table; other scored sets follow them.
    """
    scored = {entry.name: entry for entry in experiment.sets}
    # Notes that hold for all sets stand above the table; others stand next to the name of their set.
    notes = {entry.metrics["notes"] for entry in scored.values()}
    common = notes.pop() if len(notes) == 1 else ""
    rows = []
    for name in dict.fromkeys([*names, *scored]):
        if name not in scored:
            rows.append([name, *[NOT_RUN] * (2 * len(METRICS))])
            continue
        metrics = scored[name].metrics
        label = name if common or not metrics["notes"] else f"{name} ({metrics['notes']})"
        for target in rated_targets(metrics):
            values = [number(target[level][metric]["value"]) for level in LEVELS for metric in METRICS]
            rows.append([f"{label}, {scale_in(target).name}" if "targets" in metrics else label, *values])
        if not rated_targets(metrics):
            rows.append([label, *["no ratings"] * (2 * len(METRICS))])
    header = ["test set", *(f"{level} {metric}" for level in LEVELS for metric in METRICS)]
    return {"title": "All test sets", "header": header, "rows": rows, "notes": common}


def published_table(experiment: Experiment, published: Sequence[Published]) -> dict[str, Any]:
    """Return a table with one row for each published score, next to the score of this experiment."""
    scored = {entry.name: entry for entry in experiment.sets}
    header = ["published model", "test set", "level", "metric", "value", "this experiment"]
    rows = []
    for other in published:
        own = _own(scored.get(other.set), other)
        model = f"{other.model}, trained on {other.trained_on} ({other.source})"
        rows.append([model, other.set, other.level, other.metric, number(other.value), own])
    return {"title": "Comparison with published scores", "header": header, "rows": rows, "notes": ""}


def _own(scored: ScoredSet | None, other: Published) -> str:
    """Return the score of this experiment; of both levels if the publication does not state the level."""
    if scored is None or not scored.rows:
        return NOT_RUN
    levels = LEVELS if other.level == NOT_STATED else (other.level,)
    values = [number(scored.metrics[level][other.metric]["value"]) for level in levels]
    return " / ".join(values)
