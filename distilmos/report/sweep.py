"""Tables that compare models over several seeds: all scores, means and deviations, and differences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from distilmos.errors import InputError
from distilmos.markdown import bounds, markdown_table, mean_text, number, with_interval
from distilmos.metrics import LEVELS
from distilmos.provenance import machine_text
from distilmos.report.experiment import Experiment, read_experiment
from distilmos.scoring.compare import compare_results
from distilmos.scoring.results import UNRATED, count_line, read_metrics

METRICS = ("LCC", "SRCC", "MSE")


def sweep_page(expdir: str | Path, models: Sequence[str], seeds: Sequence[str]) -> str:
    """Return a page in Markdown on the runs `expdir/MODEL_seedN`, with a section for each test set.

    Args:
        expdir: directory of the experiments.
        models: CONF[+key=value][@option=value]...; see `pairs` for which are compared.
        seeds: of each model.

    Raises:
        InputError: if a run has no scores on a test set on which another run has scores.
    """
    experiments = {(m, s): Path(expdir) / f"{m}_seed{s}" for m in models for s in seeds}
    names = sorted({path.parent.name for e in experiments.values() for path in e.glob("results/*/metrics.json")})
    if not names:
        raise InputError(f"{expdir}: no scores of {', '.join(path.name for path in experiments.values())}")
    parts = [
        "In brackets: 95 % bootstrap intervals over systems, with all utterances of each. `mean`: mean and standard "
        "deviation over seeds.\n",
        run_facts(map(read_experiment, experiments.values())),
    ]
    for name in names:
        results = {key: path / "results" / name for key, path in experiments.items()}
        scores = {key: read_metrics(path) for key, path in results.items()}
        first = scores[models[0], seeds[0]]
        parts += [f"## {name}\n", count_line(first) + "\n"]
        if "utterance" not in first:
            parts.append(UNRATED)
            continue
        parts += [run_table(scores, models, seeds), *differences(results, models, seeds)]
    return "\n".join(parts)


def dev_page(expdir: str | Path, models: Sequence[str], seeds: Sequence[str]) -> str:
    """Return a page like `sweep_page` on the dev set alone, to choose settings; it reads no test scores.

    Args:
        expdir: directory of the experiments.
        models: as for `sweep_page`.
        seeds: of each model.

    Raises:
        InputError: if a run is missing, or has not ended.
    """
    experiments = {(m, s): read_experiment(Path(expdir) / f"{m}_seed{s}") for m in models for s in seeds}
    return dev_tables(experiments, models, seeds)


def dev_tables(experiments: Mapping[tuple[str, str], Experiment], models: Sequence[str], seeds: Sequence[str]) -> str:
    """Return the page of `dev_page` from experiments that are already read.

    Args:
        experiments: (model, seed) -> experiment.
        models: in the order of the rows.
        seeds: of each model.

    Raises:
        InputError: if a run has not ended.
    """
    targets = [experiment.config.get("targets") for experiment in experiments.values()]
    first = sorted({str(names[0]) for names in targets if isinstance(names, list) and names})
    of_target = f" for {' and '.join(first)}" if first else ""
    text = f"Scores of the final models on the dev set{of_target}. `mean`: mean and standard deviation over seeds.\n"
    scores = {key: _dev_scores(experiment) for key, experiment in experiments.items()}
    return "\n".join([text, run_facts(experiments.values()), run_table(scores, models, seeds)])


def _dev_scores(experiment: Experiment) -> dict[str, dict[str, dict[str, float | None]]]:
    """Return level -> metric -> value of the final model on dev, without intervals."""
    if not experiment.end:
        raise InputError(f"{experiment.path}: the run has not ended")
    dev = experiment.end["dev"]
    return {
        level: {name: {"value": dev[level][name], "low": None, "high": None} for name in METRICS} for level in LEVELS
    }


def run_facts(experiments: Iterable[Experiment]) -> str:
    """Return a Markdown list of commits, machines, precisions, k-means and start times of runs; empty without logs."""
    starts = [experiment.start for experiment in experiments if experiment.start]
    if not starts:
        return ""
    commits = sorted({f"`{start['commit'] or 'unknown'}`" for start in starts})
    machines = sorted({machine_text(start["hardware"]) for start in starts})
    times = sorted(start["time"] for start in starts)
    facts = [f"- commit: {', '.join(commits)}", f"- hardware: {' / '.join(machines)}"]
    for key, name in (("precision", "precision"), ("kmeans", "k-means")):
        # Logs of earlier versions lack these; a baseline has no k-means.
        found = sorted({start[key] for start in starts if start.get(key)})
        if found and not all(key in start for start in starts):
            found.append("unknown")
        if found:
            facts.append(f"- {name}: {', '.join(found)}")
    return "\n".join([*facts, f"- runs started: {times[0]} to {times[-1]}\n"])


def run_table(scores: Mapping[tuple[str, str], Mapping[str, Any]], models: Sequence[str], seeds: Sequence[str]) -> str:
    """Return a table with a row for each run, and one for each model's mean over seeds.

    Args:
        scores: (model, seed) -> level -> metric -> value and interval.
        models: in the order of the rows.
        seeds: in the order of the rows.
    """
    columns = [(level, name) for level in LEVELS for name in METRICS]
    rows = []
    for model in models:
        for seed in seeds:
            rows.append([model, seed, *(with_interval(scores[model, seed][level][name]) for level, name in columns)])
        if len(seeds) > 1:
            values = [[scores[model, seed][level][name]["value"] for seed in seeds] for level, name in columns]
            rows.append([f"**{model}**", "mean", *map(mean_text, values)])
    return markdown_table(["model", "seed", *(f"{level} {name}" for level, name in columns)], rows, left=2)


def differences(results: Mapping[tuple[str, str], Path], models: Sequence[str], seeds: Sequence[str]) -> list[str]:
    """Return a paragraph and a table for each pair of models in `pairs`, compared seed by seed.

    Args:
        results: (model, seed) -> scored results directory, all of one set.
        models: of the runs.
        seeds: of the runs.
    """
    parts = []
    for first, other in pairs(models):
        rows = []
        for seed in seeds:
            comparison = compare_results(results[other, seed], results[first, seed])
            for level in LEVELS:
                for name in ("LCC", "SRCC"):
                    entry = comparison[level][name]
                    difference = number(entry["difference"], sign=True)
                    rows.append([seed, level, name, difference, bounds(entry, sign=True), number(entry["p"])])
        table = markdown_table(["seed", "level", "metric", "difference", "95 % interval", "p"], rows, left=3)
        parts += [f"Difference {first} - {other}, paired bootstrap over systems:\n", table]
    return parts


def pairs(models: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of models to compare: each variant (A+... or A@...) with its base A, the first with the rest."""
    found = []
    for i, model in enumerate(models[1:], start=1):
        changed = [other for other in models[:i] if model.startswith((f"{other}+", f"{other}@"))]
        found.append((model, max(changed, key=len)) if changed else (models[0], model))
    return found
