"""All test sets at a glance, and beside them what others have published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilmos.data.lists import read_rows
from distilmos.data.tables import finite_number
from distilmos.errors import InputError, raise_faults
from distilmos.metrics import LEVELS, METRICS
from distilmos.report.experiment import Experiment, ScoredSet
from distilmos.scoring.tables import number

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
    rows = []
    for name in dict.fromkeys([*names, *scored]):
        if name not in scored:
            rows.append([name, *[NOT_RUN] * (2 * len(METRICS))])
        elif not scored[name].rows:
            rows.append([name, *["no ratings"] * (2 * len(METRICS))])
        else:
            metrics = scored[name].metrics
            rows.append([name, *(number(metrics[level][metric]["value"]) for level in LEVELS for metric in METRICS)])
    header = ["test set", *(f"{level} {metric}" for level in LEVELS for metric in METRICS)]
    notes = {name: entry.metrics["notes"] for name, entry in scored.items() if entry.metrics["notes"]}
    if notes:
        header.append("notes")
        rows = [[*row, notes.get(row[0], "")] for row in rows]
    return {"header": header, "rows": rows}


def published_table(experiment: Experiment, published: Sequence[Published]) -> dict[str, Any]:
    """Return a table with one row for each published figure, and this experiment's own beside it."""
    scored = {entry.name: entry for entry in experiment.sets}
    header = ["test set", "level", "metric", "this experiment", "published", "model", "trained on", "source"]
    rows = []
    for figure in published:
        own = _own(scored.get(figure.set), figure)
        value = f"{figure.value:g}"
        whose = [figure.model, figure.trained_on, figure.source]
        rows.append([figure.set, figure.level, figure.metric, own, value, *whose])
    return {"header": header, "rows": rows}


def _own(scored: ScoredSet | None, figure: Published) -> str:
    """Return this experiment's value; those of both levels where the published one's is not stated."""
    if scored is None or not scored.rows:
        return NOT_RUN
    levels = LEVELS if figure.level == NOT_STATED else (figure.level,)
    values = [number(scored.metrics[level][figure.metric]["value"]) for level in levels]
    return " / ".join(values)
