"""Everything that a report shows, read from an experiment directory."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from distilmos.analysis.result import DIRECTORY, RESULT, read_analysis
from distilmos.data.tables import c_locale_key, read_lines
from distilmos.errors import InputError
from distilmos.scoring.results import Scored, read_metrics, read_scored


@dataclass(frozen=True)
class ScoredSet:
    """One results/<set>: metrics.json, and the utterances of scored.tsv (none where nothing is rated)."""

    name: str
    metrics: dict[str, Any]
    rows: list[Scored]


@dataclass
class Experiment:
    """What an experiment directory holds; `missing` names, one line each, what it does not.

    Attributes:
        path: the directory.
        config: settings of config.yaml.
        config_text: config.yaml as it stands.
        start: "start" event of log.jsonl.
        continued: steps of the "resume" events, after which the training was continued.
        train: "train" events in the order of steps; dev: "dev" events.
        end: "end" event.
        clusters: K of the token predictors, from final/config.yaml or the k-means.
        sets: scored sets, sorted by name.
        kmeans: rows of quality.json, one for each layer.
        analysis: what analysis/analysis.json holds, where there is one.
        missing: what a complete experiment would have besides.
    """

    path: Path
    config: dict[str, Any] = field(default_factory=dict)
    config_text: str = ""
    start: dict[str, Any] = field(default_factory=dict)
    continued: list[int] = field(default_factory=list)
    train: list[dict[str, Any]] = field(default_factory=list)
    dev: list[dict[str, Any]] = field(default_factory=list)
    end: dict[str, Any] = field(default_factory=dict)
    clusters: int | None = None
    sets: list[ScoredSet] = field(default_factory=list)
    kmeans: list[dict[str, Any]] = field(default_factory=list)
    analysis: dict[str, Any] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    @property
    def tag(self) -> str:
        """The name of the directory."""
        return self.path.resolve().name

    @property
    def has_tokens(self) -> bool:
        """Whether the training predicted tokens."""
        return any(event.get("token") is not None for event in self.train + self.dev)

    @property
    def dev_notes(self) -> str:
        """What must be shown beside results on the dev set."""
        return (self.start.get("data") or {}).get("dev", {}).get("notes") or ""

    def final_dev(self, key: str) -> tuple[Any, str] | None:
        """Return the last value of `key` on dev, and whose it is: the final model's, or that of a step."""
        values = [(event.get(key), f"at step {event['step']}") for event in self.dev]
        values.append(((self.end.get("dev") or {}).get(key), "of the final model"))
        return next(((value, whose) for value, whose in reversed(values) if value is not None), None)


def read_experiment(directory: str | Path, kmeans: str | Path | None = None) -> Experiment:
    """Read what there is of an experiment.

    Args:
        directory: exp/<tag>.
        kmeans: directory with quality.json.

    Raises:
        InputError: if the directory or its whole content is missing, or a file that is there is faulty.
    """
    experiment = Experiment(Path(directory))
    if not experiment.path.is_dir():
        raise InputError(f"{directory}: no such directory")
    _read_configs(experiment)
    _read_log(experiment)
    _read_sets(experiment)
    if not (experiment.config_text or experiment.start or experiment.train or experiment.dev or experiment.sets):
        raise InputError(f"{directory}: nothing to report: no config.yaml, no log.jsonl, no scored results/<set>")
    if (experiment.path / DIRECTORY / RESULT).exists():
        experiment.analysis = read_analysis(experiment.path / DIRECTORY)
    if kmeans is not None:
        experiment.kmeans = _read_kmeans(Path(kmeans) / "quality.json")
        experiment.clusters = experiment.clusters or experiment.kmeans[0].get("clusters")
    elif experiment.has_tokens:
        experiment.missing.append("k-means quality: `distilmos report --kmeans DIR` adds it")
    return experiment


def _read_configs(experiment: Experiment) -> None:
    path, final = experiment.path / "config.yaml", experiment.path / "final" / "config.yaml"
    if path.exists():
        experiment.config_text = "\n".join(read_lines(path))
        experiment.config = _read_yaml(path)
    else:
        experiment.missing.append("config.yaml: the settings are not known")
    if final.exists():
        experiment.clusters = _read_yaml(final).get("clusters")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load("\n".join(read_lines(path)))
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML: {error}") from None
    if not isinstance(settings, dict):
        raise InputError(f"{path}: not a mapping of settings")
    return settings


def _read_log(experiment: Experiment) -> None:
    path = experiment.path / "log.jsonl"
    if not path.exists():
        experiment.missing.append("log.jsonl: how the model was trained is not known")
        return
    lines = read_lines(path)
    for number, line in enumerate(lines, start=1):
        try:
            event = json.loads(line)
            kind, step = event["event"], int(event["step"])
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                break  # a killed training may leave half a line at the end
            raise InputError.at(path, number, f"not an event of a training log ({error!r})") from None
        if kind == "start":
            experiment.start = event
        elif kind == "resume":
            experiment.continued.append(step)
        elif kind == "train":
            experiment.train.append(event)
        elif kind == "dev":
            experiment.dev.append(event)
        elif kind == "end":
            experiment.end = event
    if not experiment.dev:
        experiment.missing.append("log.jsonl: no validation yet")
    if not experiment.end:
        experiment.missing.append("log.jsonl: the training has not ended")


def _read_sets(experiment: Experiment) -> None:
    results = experiment.path / "results"
    directories = [path for path in results.iterdir() if path.is_dir()] if results.is_dir() else []
    for directory in sorted(directories, key=lambda path: c_locale_key(path.name)):
        if not (directory / "metrics.json").exists():
            experiment.missing.append(f"results/{directory.name}: not scored (`distilmos score`)")
            continue
        metrics = read_metrics(directory)
        rows = read_scored(directory) if "utterance" in metrics else []
        experiment.sets.append(ScoredSet(directory.name, metrics, rows))
    if not experiment.sets:
        experiment.missing.append("results: no scored test set")


def _read_kmeans(path: Path) -> list[dict[str, Any]]:
    try:
        layers = json.loads("\n".join(read_lines(path)))["layers"]
        if not layers or not all("layer" in row for row in layers):
            raise ValueError("a layer is missing")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a quality.json of `distilmos kmeans-table` ({error!r})") from None
    return sorted(layers, key=lambda row: row["layer"])


def series(events: Sequence[Mapping[str, Any]], *keys: str | int) -> list[float]:
    """Return one number of each event, NaN where it has none; `keys` lead to it through dicts and lists."""
    values = []
    for event in events:
        value: Any = event
        for key in keys:
            value = None if value is None or (isinstance(value, dict) and key not in value) else value[key]
        values.append(math.nan if value is None else float(value))
    return values
