"""Draw the layer weights and token accuracies that the log of a run holds.

`report.analysis` shows the layer measures of `distilmos analyze` instead.
"""

from __future__ import annotations

from typing import Any

from distilmos.report import figures
from distilmos.report.experiment import Experiment, series
from distilmos.report.figures import Figure, Line

TITLES = {"layer_weights": "Layer weight", "token_accuracy": "Token accuracy on dev"}


def layer_figures(experiment: Experiment) -> list[Figure]:
    """Draw layer weights and token accuracies, of the final model and over training."""
    drawn: list[Figure | None] = []
    for key in TITLES:
        found = experiment.final_dev(key)
        if found is not None:
            drawn += [_final(experiment, key, *found), over_training(experiment, key)]
    return [figure for figure in drawn if figure is not None]


def over_training(experiment: Experiment, key: str) -> Figure | None:
    """Draw `key`, one of TITLES, over training, with a curve for each layer; return None if the log has no value."""
    found = experiment.final_dev(key)
    if found is None:
        return None
    steps = [event["step"] for event in experiment.dev]
    numbers = _numbers(experiment, key, len(found[0]))
    lines = [
        Line(f"layer {layer}", steps, series(experiment.dev, key, index), colour)
        for index, (layer, colour) in enumerate(zip(numbers, figures.layer_colours(len(numbers)), strict=True))
    ]
    level = _level(experiment, key)
    return figures.curves(f"{key}-steps", f"{TITLES[key]} over training", lines, level=level)


def _final(experiment: Experiment, key: str, values: list[Any], whose: str) -> Figure:
    numbers = _numbers(experiment, key, len(values))
    final = {layer: value for layer, value in zip(numbers, values, strict=True) if value is not None}
    return figures.layer_bars(f"{key}-end", f"{TITLES[key]} {whose}", final, _level(experiment, key))


def _numbers(experiment: Experiment, key: str, count: int) -> list[int]:
    """Return the layer numbers of the `count` values."""
    targets = experiment.config.get("target_layers") if key == "token_accuracy" else None
    return targets if isinstance(targets, list) and len(targets) == count else list(range(1, count + 1))


def _level(experiment: Experiment, key: str) -> tuple[str, float] | None:
    clusters = experiment.clusters if key == "token_accuracy" else None
    return (f"chance, 1/{clusters}", 1 / clusters) if clusters else None
