"""Probe one layer for the label or the MOS of utterances: cross-validated linear models.

The features of an utterance are the mean and the standard deviation over time of each dimension.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from distilmos.metrics import agreement
from distilmos.ridge import deal_folds, fit_ridge
from distilmos.ssl.pooling import pool_recording


class Pooling:
    """Mean and standard deviation over time of each layer of each encoder, for every utterance."""

    def __init__(self) -> None:
        """Start with no utterances."""
        self.utterances: list[str] = []
        self._rows: list[list[np.ndarray]] = []

    def add(self, utterance: str, states: Sequence[Sequence[Tensor]]) -> None:
        """Add an utterance with the hidden states of its layers, L x (T, D), of each encoder."""
        self.utterances.append(utterance)
        self._rows.append([pool_recording(layers) for layers in states])

    @property
    def num_layers(self) -> int:
        """Number of layers of each encoder, L."""
        return len(self._rows[0][0])

    def features(self, encoder: int, layer: int, utterances: Sequence[str]) -> np.ndarray:
        """Return the features of `utterances`, float32 (U, 2 D); `encoder` and `layer` count from 0."""
        places = {utterance: place for place, utterance in enumerate(self.utterances)}
        return np.stack([self._rows[places[utterance]][encoder][layer] for utterance in utterances])


@dataclass(frozen=True)
class Task:
    """Targets of a probe, and the folds of its utterances.

    Attributes:
        name: name of the label, or MOS.
        utterances: utterances with a target.
        targets: label or MOS of each utterance, (U,).
        folds: fold of each utterance, (U,).
        units: "utterances" or "systems"; no unit is split between folds. Copies of a system count as one system.
    """

    name: str
    utterances: list[str]
    targets: np.ndarray
    folds: np.ndarray
    units: str

    @property
    def labelled(self) -> bool:
        """Whether the task is to classify labels; otherwise it is to predict a number."""
        return self.targets.dtype.kind == "U"


def label_task(
    name: str, labels: Mapping[str, str], utterances: Sequence[str], conditions: Mapping[str, str], seed: int
) -> Task | None:
    """Return the task of classifying labels; None if fewer than two labels are frequent enough.

    If all utterances of a system have the same label, such as its type of degradation, the folds hold whole systems, so
    that a probe cannot recognise the system instead of the label. The folds hold single utterances if this leaves fewer
    than two labels with several systems, for example where each system is one speaker. A label with a single unit
    cannot be in both the training and the test part, and is left out.

    Args:
        name: name of the task.
        labels: utterance -> label.
        utterances: utterances to use; those without a label are left out.
        conditions: utterance -> system, or the condition that several systems repeat.
        seed: seed of the folds.
    """
    known = [utterance for utterance in utterances if utterance in labels]
    for units, unit_of in (("systems", conditions), ("utterances", {u: u for u in known})):
        pairs = {(unit_of[u], labels[u]) for u in known}
        if len(pairs) > len({unit for unit, _ in pairs}):
            continue  # some unit has several labels
        counts = Counter(label for _, label in pairs)
        chosen = [u for u in known if counts[labels[u]] > 1]
        targets = [labels[u] for u in chosen]
        if len(set(targets)) > 1:
            folds = deal_folds([unit_of[u] for u in chosen], targets, seed)
            return Task(name, chosen, np.array(targets), folds, units)
    return None


def mos_task(
    name: str, mos: Mapping[str, float], utterances: Sequence[str], conditions: Mapping[str, str], seed: int
) -> Task | None:
    """Return the task of predicting MOS, with whole systems in a fold; None for fewer than three systems."""
    chosen = [u for u in utterances if u in mos]
    units = [conditions[u] for u in chosen]
    if len(set(units)) < 3:
        return None
    folds = deal_folds(units, [""] * len(chosen), seed)
    return Task(name, chosen, np.array([mos[u] for u in chosen]), folds, "systems")


def chance(task: Task) -> float:
    """Return the share of the most frequent label."""
    return float(np.unique(task.targets, return_counts=True)[1].max() / len(task.targets))


def probe(task: Task, features: np.ndarray) -> dict[str, Any]:
    """Measure how well the features (U, 2 D) of the utterances solve a task.

    Returns:
        for labels: `accuracy` over all utterances, and `sd`, its standard deviation over the folds; for MOS: LCC and
        SRCC of the cross-validated predictions of all folds together.
    """
    if task.labelled:
        names, wanted = np.unique(task.targets, return_inverse=True)
        right = cross_validate(features, np.eye(len(names))[wanted], task.folds).argmax(1) == wanted
        of_folds = [right[task.folds == fold].mean() for fold in np.unique(task.folds)]
        return {"accuracy": float(right.mean()), "sd": float(np.std(of_folds, ddof=1))}
    measures = agreement(task.targets, cross_validate(features, task.targets[:, None], task.folds)[:, 0])
    return {name: measures[name] for name in ("LCC", "SRCC")}


def cross_validate(features: np.ndarray, targets: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Predict each fold by ridge regression that is fitted to the other folds.

    Args:
        features: (U, P).
        targets: (U, C).
        folds: fold of each utterance, (U,); at least three different folds.

    Returns:
        predictions, (U, C).
    """
    predicted = np.empty(targets.shape)
    for fold in np.unique(folds):
        test = folds == fold
        predicted[test] = fit_ridge(features[~test], targets[~test], folds[~test]).predict(features[test])
    return predicted
