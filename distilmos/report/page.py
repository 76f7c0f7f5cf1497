"""Write RESULTS.md and report.html of an experiment."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from distilmos.analysis.result import DIRECTORY
from distilmos.data.tables import c_locale_key
from distilmos.files import write_text
from distilmos.markdown import bounds, markdown_table, number
from distilmos.metrics import LEVELS, METRICS
from distilmos.provenance import machine_text
from distilmos.references.result import NOTE as REFERENCES
from distilmos.references.result import reference_rows
from distilmos.report import figures
from distilmos.report.analysis import analysis_facts, analysis_sections, analysis_text
from distilmos.report.experiment import Experiment, ScoredSet, read_experiment, series
from distilmos.report.figures import BLUE, GREEN, ORANGE, Figure, Line, Marks
from distilmos.report.layer_history import layer_figures
from distilmos.report.overview import overview_table, published_table, read_published
from distilmos.report.pairs import NOTE as PAIRS
from distilmos.report.pairs import pair_figure, pair_tables
from distilmos.scoring.bootstrap import COVERAGE
from distilmos.scoring.p1401 import ABOUT, p1401_cells, p1401_table
from distilmos.scoring.results import (
    UNRATED,
    Scored,
    count_line,
    count_text,
    level_arrays,
    p1401_rows,
    scale_in,
    score_rows,
    score_table,
)

WORST_SHOWN = 10
INTERVALS = f"In brackets: {100 * COVERAGE:g} % bootstrap intervals over systems."
ERRORS = "Errors are predicted minus rated scores, over utterances; bias is their mean. The largest RMSE comes first."
KMEANS_COLUMNS = {
    "layer": "layer",
    "frames": "frames",
    "clusters": "clusters",
    "inertia_per_frame": "inertia per frame",
    "explained_variance": "explained variance",
    "empty": "empty clusters",
    "tiny": "tiny clusters",
    "perplexity": "perplexity",
}


def write_report(
    directory: str | Path,
    kmeans: str | Path | None = None,
    names: Sequence[str] = (),
    published: str | Path | None = None,
) -> list[Path]:
    """Write RESULTS.md and report.html into an experiment directory.

    Args:
        directory: exp/<tag>; the report lists missing parts.
        kmeans: directory with quality.json from `distilmos kmeans-table`.
        names: expected test sets; those without results are shown as not run.
        published: table of published scores (see `overview.COLUMNS`) to compare with.

    Returns:
        paths of the two files.

    Raises:
        InputError: if the directory has nothing to report, or a file in it is faulty.
    """
    experiment = read_experiment(directory, kmeans)
    overview = _overview(experiment, names, published)
    pages = {"RESULTS.md": _markdown(experiment, overview), "report.html": _html(experiment, overview)}
    for name, text in pages.items():
        write_text(experiment.path / name, text)
    return [experiment.path / name for name in pages]


def _overview(experiment: Experiment, names: Sequence[str], published: str | Path | None) -> list[dict[str, Any]]:
    """Return the tables over several sets; an empty list if there is nothing to compare."""
    tables = []
    if len({*names, *(scored.name for scored in experiment.sets)}) > 1:
        tables.append(overview_table(experiment, names))
    if published is not None:
        tables.append(published_table(experiment, read_published(published)))
    return tables


def error_rows(rows: Iterable[Scored], key: str) -> list[dict[str, Any]]:
    """Return the errors of each group or system, sorted by falling RMSE.

    Args:
        rows: scored utterances.
        key: "group" or "system".

    Returns:
        for each group or system: name, number of utterances, bias (mean of predicted - rated score) and rmse, both over
        utterances.
    """
    errors: dict[str, list[float]] = {}
    for row in rows:
        errors.setdefault(getattr(row, key), []).append(row.predicted - row.mos)
    table = [
        {
            "name": name,
            "utterances": len(values),
            "bias": math.fsum(values) / len(values),
            "rmse": math.sqrt(math.fsum(value * value for value in values) / len(values)),
        }
        for name, values in errors.items()
    ]
    return sorted(table, key=lambda row: (-row["rmse"], row["name"]))


def _error_tables(scored: ScoredSet) -> list[dict[str, Any]]:
    """Return the first WORST_SHOWN rows of the error tables per group (if groups are known) and per system."""
    tables = []
    for key in ("group", "system") if any(row.group for row in scored.rows) else ("system",):
        rows = error_rows(scored.rows, key)
        shown = rows[:WORST_SHOWN]
        title = f"Error per {key}" + (f", the worst {WORST_SHOWN} of {len(rows)}" if len(rows) > WORST_SHOWN else "")
        cells = [
            [row["name"], str(row["utterances"]), number(row["bias"], sign=True), number(row["rmse"])] for row in shown
        ]
        tables.append({"title": title, "header": [key, "utterances", "bias", "RMSE"], "rows": cells})
    return tables


def _facts(experiment: Experiment) -> dict[str, str]:
    """Return the known facts about the run of the experiment, name -> text."""
    start, end = experiment.start, experiment.end
    facts: dict[str, str] = {}
    if "model" in experiment.config:
        facts["Model"] = str(experiment.config["model"])
    if start.get("parameters"):
        facts["Parameters"] = f"{start['parameters']:,}"
    if start.get("command"):
        facts["Command"] = shlex.join(map(str, start["command"]))
    for name in ("commit", "seed"):
        if start:
            value = start.get(name)
            facts[name.capitalize()] = "not known" if value is None else str(value)
    if start.get("hardware"):
        facts["Hardware"] = machine_text(start["hardware"])
    for name, data in (start.get("data") or {}).items():
        hours = f", {data['seconds'] / 3600:.2f} h" if data.get("seconds") else ""
        notes = f". {data['notes']}" if data.get("notes") else ""
        facts[f"Data ({name})"] = f"{data.get('dir', '?')}: {data.get('utterances', '?')} utterances{hours}{notes}"
    if start.get("time"):
        facts["Started"] = str(start["time"])
    if experiment.continued:
        facts["Continued after step"] = ", ".join(map(str, experiment.continued))
    if end:
        elapsed = f", {_duration(end['elapsed_seconds'])}" if end.get("elapsed_seconds") is not None else ""
        reason = str(end.get("reason", "ended")).replace("_", " ")
        facts["Training"] = f"{end['step']} steps ({reason}){elapsed}"
    if end.get("averaged_steps"):
        facts["Averaged steps"] = ", ".join(map(str, end["averaged_steps"]))
    if end.get("dev"):
        levels = [f"{level} {_correlations(end['dev'][level])}" for level in LEVELS]
        facts["Dev (final model)"] = "; ".join(levels) + (f". {experiment.dev_notes}" if experiment.dev_notes else "")
    return facts


def _correlations(values: Mapping[str, float | None]) -> str:
    return ", ".join(f"{name} {number(values[name])}" for name in ("LCC", "SRCC"))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _markdown(experiment: Experiment, overview: list[dict[str, Any]]) -> str:
    parts = [f"# Results of {experiment.tag}\n"]
    facts = _facts(experiment)
    if facts:
        parts.append("".join(f"- {name}: `{text}`\n" for name, text in facts.items()))
    if experiment.missing:
        parts.append("Missing:\n\n" + "".join(f"- {line}\n" for line in experiment.missing))
    for table in overview:
        parts += [f"## {table['title']}\n", *([table["notes"] + "\n"] if table["notes"] else [])]
        parts.append(markdown_table(table["header"], table["rows"]))
    if experiment.sets:
        parts += [f"{note}\n" for note in _notes(experiment)]
    for scored in experiment.sets:
        notes = scored.metrics["notes"]
        parts += [f"## {scored.name}\n", count_line(scored.metrics) + "\n"]
        parts.append(score_table(scored.metrics, reference_rows(scored.references)))
        if rows := p1401_rows(scored.metrics):
            parts += [f"ITU-T P.1401. {notes}".strip() + "\n", p1401_table(rows)]
        for table in [*pair_tables(scored), *_error_tables(scored)] if scored.rows else []:
            parts.append(f"{table['title']}. {notes}".strip() + "\n")
            parts.append(markdown_table(table["header"], table["rows"]))
    if experiment.kmeans:
        table = _kmeans_table(experiment)
        parts += ["## K-means quality\n", markdown_table(table["header"], table["rows"], left=0)]
    if experiment.analysis:
        sections = analysis_sections(experiment.analysis)
        parts += ["## Layer analysis\n", *analysis_text(experiment.analysis, sections, f"{DIRECTORY}/", "###")]
    return "\n".join(parts)


def _notes(experiment: Experiment) -> list[str]:
    """Return how to read the tables of test sets."""
    compared = [REFERENCES] if any(scored.references for scored in experiment.sets) else []
    return [f"{INTERVALS} {ERRORS}", *compared, ABOUT, PAIRS]


def _kmeans_table(experiment: Experiment) -> dict[str, Any]:
    def cell(value: Any) -> str:
        return number(value) if isinstance(value, float) or value is None else f"{value:,}"

    rows = [[cell(row.get(column)) for column in KMEANS_COLUMNS] for row in experiment.kmeans]
    return {"header": list(KMEANS_COLUMNS.values()), "rows": rows}


def _html(experiment: Experiment, overview: list[dict[str, Any]]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("distilmos.report", package_path="."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("template.html").render(
        tag=experiment.tag,
        metrics=METRICS,
        intervals=INTERVALS,
        references=REFERENCES,
        pairs=PAIRS,
        errors=ERRORS,
        p1401=ABOUT,
        unrated=UNRATED.strip(),
        facts=_facts(experiment),
        missing=experiment.missing,
        overview=overview,
        sets=[_set_view(number, scored) for number, scored in enumerate(experiment.sets, start=1)],
        training=_training_figures(experiment),
        layers=layer_figures(experiment),
        kmeans=_kmeans_table(experiment) if experiment.kmeans else None,
        analysis=analysis_sections(experiment.analysis) if experiment.analysis else [],
        analysed=analysis_facts(experiment.analysis) if experiment.analysis else {},
        analysis_notes=experiment.analysis.get("notes", ""),
        config=experiment.config_text,
    )


def _set_view(index: int, scored: ScoredSet) -> dict[str, Any]:
    metrics = scored.metrics
    view: dict[str, Any] = {
        "id": f"set{index}",
        "name": scored.name,
        "notes": metrics["notes"],
        "counts": count_text(metrics),
        "scores": [],
        "references": [],
        "p1401": [],
        "figures": [],
        "legend": [],
        "pairs": None,
        "pair_tables": [],
        "errors": [],
    }
    for label, level, scores in score_rows(metrics):
        cells = [(number(scores[level][name]["value"]), bounds(scores[level][name])) for name in METRICS]
        view["scores"].append({"level": label, "cells": cells})
    for label, entries in reference_rows(scored.references):
        cells = [(number(entry["value"]), bounds(entry)) if entry else ("-", "") for entry in entries]
        view["references"].append({"level": label, "cells": cells})
    if rows := p1401_rows(metrics):
        view["p1401"].append(dict(zip(("header", "rows"), p1401_cells(rows), strict=True)))
    if not scored.rows:
        return view
    groups = {row.system: row.group for row in scored.rows}
    levels = level_arrays(scored.rows)
    names = {
        "utterance": [row.system for row in sorted(scored.rows, key=lambda row: c_locale_key(row.utterance))],
        "system": sorted(groups),
    }
    scale = scale_in(metrics)
    for level, (rated, predicted) in levels.items():
        of_points = [groups[system] for system in names[level]]
        title = f"{level.capitalize()}s"
        view["figures"].append(
            figures.scatter(f"{view['id']}-{level}", title, rated.tolist(), predicted.tolist(), of_points, scale)
        )
    view["legend"] = view["figures"][0].legend
    view["pairs"], view["pair_tables"] = pair_figure(f"{view['id']}-pairs", scored), pair_tables(scored)
    view["errors"] = _error_tables(scored)
    return view


def _training_figures(experiment: Experiment) -> list[tuple[Figure, str]]:
    """Return the figures of the log, each with the notes that it must show."""
    train, dev, notes = experiment.train, experiment.dev, experiment.dev_notes
    train_steps, dev_steps = [event["step"] for event in train], [event["step"] for event in dev]
    best = [event["step"] for event in dev if event.get("best")]
    marks = Marks(best[-1] if best else None, experiment.end.get("averaged_steps") or ())

    def loss(key: str) -> list[Line]:
        return [
            Line("train", train_steps, series(train, key), BLUE),
            Line("dev", dev_steps, series(dev, key), ORANGE),
        ]

    def correlations(level: str) -> list[Line]:
        colours = zip(METRICS[1:], (BLUE, ORANGE, GREEN), strict=True)
        return [Line(name, dev_steps, series(dev, level, name), colour) for name, colour in colours]

    total = [Line("train", train_steps, series(train, "loss"), BLUE)]
    errors = [
        Line(level, dev_steps, series(dev, level, "MSE"), colour)
        for level, colour in zip(LEVELS, (BLUE, ORANGE), strict=True)
    ]
    rates = [
        Line("encoder", train_steps, series(train, "lr_encoder"), BLUE),
        Line("heads", train_steps, series(train, "lr_head"), ORANGE, dashed=True),
    ]
    token_title = "Token cross-entropy, mean over layers (nats)"
    if experiment.regresses_features:
        token_title = "1 - cosine to the hidden states of the frozen encoder, mean over layers"
    drawn = [
        (figures.curves("loss", "Total loss (train)", total, marks), ""),
        (figures.curves("regression", "Regression loss", loss("regression"), marks), ""),
        (figures.curves("token", token_title, loss("token"), marks), ""),
        (figures.curves("dev-utterance", "Dev correlations, utterances", correlations("utterance"), marks), notes),
        (figures.curves("dev-system", "Dev correlations, systems", correlations("system"), marks), notes),
        (figures.curves("dev-mse", "Dev MSE", errors, marks), notes),
        (figures.curves("rate", "Learning rate", rates, marks, logarithmic=True), ""),
    ]
    return [(figure, shown) for figure, shown in drawn if figure is not None]
