"""Read an experiment directory for reports."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, FiniteFloat, model_validator

from distilmos.analysis.result import DIRECTORY, RESULT, Part, Value, read_analysis
from distilmos.data.tables import c_locale_key, parse_json, read_json, read_lines, read_yaml
from distilmos.errors import InputError
from distilmos.model.directory import CONFIG, FINAL, LOG
from distilmos.references.result import read_result
from distilmos.scoring.results import METRICS_FILE, Scored, read_metrics, read_scored, require_metrics
from distilmos.tokens.kmeans import LayerQuality

Step = Annotated[int, Field(ge=0, le=10**12)]


class _Data(Part):
    dir: str = ""
    utterances: int
    seconds: FiniteFloat
    notes: str | None = None


class _Measures(Part):
    regression: Value = None
    token: Value = None
    token_accuracy: list[Value] | None = None
    layer_weights: list[Value] | None = None
    utterance: dict[str, Value] = Field(default_factory=dict)
    system: dict[str, Value] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_metrics(self) -> _Measures:
        require_metrics(self)
        return self


class _Event(_Measures):
    """A line of log.jsonl: the fields that reports use."""

    event: str
    step: Step
    loss: Value = None
    lr_encoder: Value = None
    lr_head: Value = None
    parameters: int | None = None
    command: list[str] | None = None
    hardware: dict[str, Any] | None = None
    data: dict[str, _Data] | None = None
    averaged_steps: list[Step] | None = None
    elapsed_seconds: Value = None
    dev: _Measures | None = None


class _Qualities(Part):
    layers: Annotated[list[LayerQuality], Field(min_length=1)]


@dataclass(frozen=True)
class ScoredSet:
    """One results/<set>.

    Attributes:
        name: name of the set.
        metrics: metrics.json.
        rows: the utterances of scored.tsv; empty if the set has no ratings.
        references: rows of references.json; empty without the file.
    """

    name: str
    metrics: dict[str, Any]
    rows: list[Scored]
    references: list[dict[str, Any]]


@dataclass
class Experiment:
    """The content of an experiment directory.

    Attributes:
        path: the directory.
        config: settings of config.yaml.
        config_text: config.yaml, unchanged.
        start: "start" event of log.jsonl.
        continued: steps of the "resume" events, after which the run continued.
        train: "train" events in the order of steps.
        dev: "dev" events in the order of steps.
        end: "end" event.
        clusters: K of the token predictors, from final/config.yaml or quality.json.
        sets: scored sets, sorted by name.
        kmeans: rows of quality.json, one for each layer.
        analysis: content of analysis/analysis.json; empty without one.
        missing: one line for each part that a complete experiment has and this one lacks.
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
        """Name of the directory."""
        return self.path.resolve().name

    @property
    def has_tokens(self) -> bool:
        """Whether the model predicts tokens."""
        return any(event.get("token") is not None for event in self.train + self.dev) and not self.regresses_features

    @property
    def regresses_features(self) -> bool:
        """Whether the model regresses the hidden states of the frozen encoder instead of predicting tokens."""
        return self.config.get("distillation") == "features"

    @property
    def dev_notes(self) -> str:
        """Notes of the dev set, to be shown with its results; empty without notes."""
        return (self.start.get("data") or {}).get("dev", {}).get("notes") or ""

    def final_dev(self, key: str) -> tuple[Any, str] | None:
        """Return the last value of `key` on dev and its origin: the final model, or a step. None without a value."""
        values = [(event.get(key), f"at step {event['step']}") for event in self.dev]
        values.append(((self.end.get("dev") or {}).get(key), "of the final model"))
        return next(((value, whose) for value, whose in reversed(values) if value is not None), None)


def read_experiment(directory: str | Path, kmeans: str | Path | None = None) -> Experiment:
    """Read an experiment, complete or not.

    Args:
        directory: exp/<tag>.
        kmeans: directory with quality.json; None without one.

    Raises:
        InputError: if the directory is missing or has nothing to report, or if one of its files is faulty.
    """
    experiment = Experiment(Path(directory))
    if not experiment.path.is_dir():
        raise InputError(f"{directory}: no such directory")
    _read_configs(experiment)
    _read_log(experiment)
    _read_sets(experiment)
    if not (experiment.config_text or experiment.start or experiment.train or experiment.dev or experiment.sets):
        raise InputError(f"{directory}: nothing to report: no {CONFIG}, no {LOG}, no scored results/<set>")
    if (experiment.path / DIRECTORY / RESULT).exists():
        experiment.analysis = read_analysis(experiment.path / DIRECTORY)
    if kmeans is not None:
        experiment.kmeans = _read_kmeans(Path(kmeans) / "quality.json")
        experiment.clusters = experiment.clusters or experiment.kmeans[0].get("clusters")
    elif experiment.has_tokens:
        experiment.missing.append("k-means quality: `distilmos report --kmeans DIR` adds it")
    return experiment


def _read_configs(experiment: Experiment) -> None:
    path, final = experiment.path / CONFIG, experiment.path / FINAL / CONFIG
    if path.exists():
        experiment.config_text = "\n".join(read_lines(path))
        experiment.config = read_yaml(path)
    else:
        experiment.missing.append(f"{CONFIG}: the settings are unknown")
    if final.exists():
        clusters = read_yaml(final).get("clusters")
        if clusters is not None and not (isinstance(clusters, int) and clusters > 0):
            raise InputError(f"{final}: clusters: {clusters!r} is not a number of clusters")
        experiment.clusters = clusters


def _read_log(experiment: Experiment) -> None:
    path = experiment.path / LOG
    if not path.exists():
        experiment.missing.append(f"{LOG}: the course of the run is unknown")
        return
    lines = read_lines(path)
    for number, line in enumerate(lines, start=1):
        try:
            event = parse_json(line, path, _Event, number).model_dump(exclude_unset=True)
        except InputError:
            if number == len(lines):
                break  # a killed run may leave half a line at the end
            raise
        kind, step = event["event"], event["step"]
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
        experiment.missing.append(f"{LOG}: no validation yet")
    if not experiment.end:
        experiment.missing.append(f"{LOG}: the run has not ended")


def _read_sets(experiment: Experiment) -> None:
    results = experiment.path / "results"
    directories = [path for path in results.iterdir() if path.is_dir()] if results.is_dir() else []
    for directory in sorted(directories, key=lambda path: c_locale_key(path.name)):
        if not (directory / METRICS_FILE).exists():
            experiment.missing.append(f"results/{directory.name}: not scored (`distilmos score`)")
            continue
        metrics = read_metrics(directory)
        rows = read_scored(directory) if "utterance" in metrics else []
        experiment.sets.append(ScoredSet(directory.name, metrics, rows, read_result(directory)))
    if not experiment.sets:
        experiment.missing.append("results: no scored test set")


def _read_kmeans(path: Path) -> list[dict[str, Any]]:
    layers = read_json(path, _Qualities).model_dump()["layers"]
    return sorted(layers, key=lambda row: row["layer"])


def series(events: Sequence[Mapping[str, Any]], *keys: str | int) -> list[float]:
    """Return one number of each event, NaN if it has none; `keys` are the path to it through dicts and lists."""
    values = []
    for event in events:
        value: Any = event
        for key in keys:
            known = key in value if isinstance(value, dict) else value is not None and int(key) < len(value)
            value = value[key] if known else None
        values.append(math.nan if value is None else float(value))
    return values
