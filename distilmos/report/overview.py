"""All test sets at a glance, and beside them what others have published."""

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

COLUMNS = ("set", "level", "metric", "value", "model", "trained_on", "source")
NOT_STATED = "not stated"
NOT_RUN = "not run"


@dataclass(frozen=True)
class Published:
    """A figure of another report.

    Attributes:
        set: test set, as results/<set> is called.
        level: one of LEVELS, or NOT_STATED.
        metric: one of METRICS.
        value: of the metric.
        model: whose it is.
        trained_on: corpus.
        source: where it is from.
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
        InputError: naming each line that is not as it should be.
    """
    faults: list[str] = []
    figures = []
    for row in read_rows(path, COLUMNS, faults, header=True, delimiter="\t"):
        if row["level"] not in (*LEVELS, NOT_STATED) or row["metric"] not in METRICS:
            faults.append(f"{row.where}: no level and metric {row['level']!r}, {row['metric']!r}")
            continue
        try:
            value = finite_number(row["value"])
        except InputError as error:
            faults.append(f"{row.where}: {error}")
            continue
        texts = {name: row[name] for name in COLUMNS if name != "value"}
        figures.append(Published(value=value, **texts))
    raise_faults(faults, str(path))
    return figures


def overview_table(experiment: Experiment, names: Sequence[str]) -> dict[str, Any]:
    """Return a table with one row for each test set.

    Args:
        experiment: with its scored sets.
        names: of all sets that should be there, in the order of the table; further scored ones come behind them.
    """
    scored = {entry.name: entry for entry in experiment.sets}
    # What must be said of all sets is said once; what must be said of some, beside their names.
    notes = {entry.metrics["notes"] for entry in scored.values()}
    common = notes.pop() if len(notes) == 1 else ""
    rows = []
    for name in dict.fromkeys([*names, *scored]):
        if name not in scored:
            rows.append([name, *[NOT_RUN] * (2 * len(METRICS))])
            continue
        metrics = scored[name].metrics
        label = name if common or not metrics["notes"] else f"{name} ({metrics['notes']})"
        if scored[name].rows:
            values = [number(metrics[level][metric]["value"]) for level in LEVELS for metric in METRICS]
        else:
            values = ["no ratings"] * (2 * len(METRICS))
        rows.append([label, *values])
    header = ["test set", *(f"{level} {metric}" for level in LEVELS for metric in METRICS)]
    return {"title": "All test sets", "header": header, "rows": rows, "notes": common}


def published_table(experiment: Experiment, published: Sequence[Published]) -> dict[str, Any]:
    """Return a table with one row for each published figure, and this experiment's own beside it."""
    scored = {entry.name: entry for entry in experiment.sets}
    header = ["published", "test set", "level", "metric", "value", "this experiment"]
    rows = []
    for figure in published:
        own = _own(scored.get(figure.set), figure)
        whose = f"{figure.model}, trained on {figure.trained_on} ({figure.source})"
        rows.append([whose, figure.set, figure.level, figure.metric, number(figure.value), own])
    return {"title": "Beside published figures", "header": header, "rows": rows, "notes": ""}


def _own(scored: ScoredSet | None, figure: Published) -> str:
    """Return this experiment's value; those of both levels where the published one's is not stated."""
    if scored is None or not scored.rows:
        return NOT_RUN
    levels = LEVELS if figure.level == NOT_STATED else (figure.level,)
    values = [number(scored.metrics[level][figure.metric]["value"]) for level in levels]
    return " / ".join(values)
