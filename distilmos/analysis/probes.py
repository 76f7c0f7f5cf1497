"""What a linear model can read of an utterance's label or MOS from one layer, by cross-validation.

The features of an utterance are mean and standard deviation over time of each dimension.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from distilmos.metrics import agreement

FOLDS = 5
# Penalties of the ridge regression, for standardised features divided by the square root of their number: from hardly
# any to one that leaves little but the mean.
PENALTIES = tuple(10.0**exponent for exponent in range(-5, 3))


class Pooling:
    """Mean and standard deviation over time of all layers of each encoder, one utterance after the other."""

    def __init__(self) -> None:
        """Start with no utterances."""
        self.utterances: list[str] = []
        self._rows: list[list[list[np.ndarray]]] = []

    def add(self, utterance: str, states: Sequence[Sequence[Tensor]]) -> None:
        """Take an utterance: for each encoder the hidden states of its layers, L x (T, D)."""
        self.utterances.append(utterance)
        self._rows.append([[_statistics(layer) for layer in layers] for layers in states])

    def features(self, encoder: int, layer: int, utterances: Sequence[str]) -> np.ndarray:
        """Return the features of some utterances, float32 (U, 2 D); `encoder` and `layer` count from 0."""
        places = {utterance: place for place, utterance in enumerate(self.utterances)}
        return np.stack([self._rows[places[utterance]][encoder][layer] for utterance in utterances])


def _statistics(layer: Tensor) -> np.ndarray:
    mean, deviation = layer.mean(0).cpu().numpy(), layer.std(0, correction=0).cpu().numpy()
    return np.concatenate([mean, deviation])


@dataclass(frozen=True)
class Task:
    """What a probe shall read, and how its utterances are divided.

    Attributes:
        name: of the label, or MOS.
        utterances: with a label.
        targets: label of each utterance, or its MOS, (U,).
        folds: number of the fold of each utterance, (U,).
        units: what is divided into folds as a whole: "utterances", or "systems".
    """

    name: str
    utterances: list[str]
    targets: np.ndarray
    folds: np.ndarray
    units: str

    @property
    def labelled(self) -> bool:
        """Whether labels are to be told apart; else a number is to be predicted."""
        return self.targets.dtype.kind == "U"


def deal_folds(units: Sequence[str], classes: Sequence[str], seed: int) -> np.ndarray:
    """Return the fold of each utterance, (U,), in 0..FOLDS-1.

    Within each class the units, in a random order, are dealt to the folds one after the other: each fold has its share
    of each class, and all utterances of a unit are in one fold.

    Args:
        units: of each utterance.
        classes: of each utterance, the same for all of a unit.
        seed: of the order.
    """
    members: dict[str, set[str]] = {}
    for unit, name in zip(units, classes, strict=True):
        members.setdefault(name, set()).add(unit)
    random = np.random.default_rng(seed)
    folds: dict[str, int] = {}
    for name in sorted(members):
        ordered = sorted(members[name])
        for place in random.permutation(len(ordered)):
            folds[ordered[place]] = len(folds) % FOLDS
    return np.array([folds[unit] for unit in units])


def label_task(
    name: str, labels: Mapping[str, str], utterances: Sequence[str], systems: Mapping[str, str], seed: int
) -> Task | None:
    """Return the task of telling labels apart; None where fewer than two labels are frequent enough for it.

    Where all utterances of a system have the same label (its type of degradation), folds are of whole systems, so that
    a system is not recognised instead of its label; unless too few labels belong to several systems, as where a system
    is a talker. A label of a single unit cannot be in the training and the test part and is left out.

    Args:
        name: of the task.
        labels: utterance -> label.
        utterances: that may be used; those without a label are not.
        systems: utterance -> system.
        seed: of the division.
    """
    known = [utterance for utterance in utterances if utterance in labels]
    for units, unit_of in (("systems", systems), ("utterances", {u: u for u in known})):
        pairs = {(unit_of[u], labels[u]) for u in known}
        if len(pairs) > len({unit for unit, _ in pairs}):
            continue  # a unit with several labels
        counts = Counter(label for _, label in pairs)
        chosen = [u for u in known if counts[labels[u]] > 1]
        targets = [labels[u] for u in chosen]
        if len(set(targets)) > 1:
            folds = deal_folds([unit_of[u] for u in chosen], targets, seed)
            return Task(name, chosen, np.array(targets), folds, units)
    return None


def mos_task(
    name: str, mos: Mapping[str, float], utterances: Sequence[str], systems: Mapping[str, str], seed: int
) -> Task | None:
    """Return the task of predicting MOS, with whole systems in a fold; None with fewer than three systems."""
    chosen = [u for u in utterances if u in mos]
    units = [systems[u] for u in chosen]
    if len(set(units)) < 3:
        return None
    folds = deal_folds(units, [""] * len(chosen), seed)
    return Task(name, chosen, np.array([mos[u] for u in chosen]), folds, "systems")


def chance(task: Task) -> float:
    """Return the share of the most frequent label."""
    return float(np.unique(task.targets, return_counts=True)[1].max() / len(task.targets))


def probe(task: Task, features: np.ndarray) -> dict[str, Any]:
    """Return how well a task is solved from the features (U, 2 D) of its utterances.

    Returns:
        for labels: accuracy over all utterances, and sd, its standard deviation over the folds; for MOS: LCC and SRCC
        of all cross-validated predictions together.
    """
    if task.labelled:
        names, wanted = np.unique(task.targets, return_inverse=True)
        right = cross_validate(features, np.eye(len(names))[wanted], task.folds).argmax(1) == wanted
        of_folds = [right[task.folds == fold].mean() for fold in np.unique(task.folds)]
        return {"accuracy": float(right.mean()), "sd": float(np.std(of_folds, ddof=1))}
    measures = agreement(task.targets, cross_validate(features, task.targets[:, None], task.folds)[:, 0])
    return {name: measures[name] for name in ("LCC", "SRCC")}


def cross_validate(features: np.ndarray, targets: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Return what ridge regression predicts for each fold, having learned from the others.

    Args:
        features: (U, P).
        targets: (U, C).
        folds: (U,), at least three different ones.
    """
    predicted = np.empty(targets.shape)
    for fold in np.unique(folds):
        test = folds == fold
        predicted[test] = _ridge(features[~test], targets[~test], folds[~test], features[test])
    return predicted


def _ridge(features: np.ndarray, targets: np.ndarray, folds: np.ndarray, tested: np.ndarray) -> np.ndarray:
    """Fit (N, P) to (N, C), with the best penalty of a cross-validation over `folds` (N,), and predict (M, C)."""
    mean, deviation = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64)
    scale = np.where(deviation > 0, deviation, 1) * np.sqrt(features.shape[1])
    left, values, right = np.linalg.svd((features - mean) / scale, full_matrices=False)
    centre = targets.mean(0)
    rotated = left.T @ (targets - centre)

    def error(penalty: float) -> float:
        """Return the squared error of the folds, each predicted by a fit to the others.

        No fit is needed for it: with the hat matrix H of the fit to all, the residuals of a fold f that is left out are
        (I - H_ff)^-1 times those of the fit to all (K.-C. Li, "Asymptotic optimality for Cp, CL, cross-validation and
        generalized cross-validation", Annals of Statistics 1987, for single points).
        """
        shrunk = values**2 / (values**2 + penalty)
        residuals = targets - centre - left @ (shrunk[:, None] * rotated)
        total = 0.0
        for fold in np.unique(folds):
            own = left[folds == fold]
            removed = np.eye(len(own)) - (own * shrunk) @ own.T
            total += float(np.square(np.linalg.solve(removed, residuals[folds == fold])).sum())
        return total

    best = min(PENALTIES, key=error)
    weights = right.T @ ((values / (values**2 + best))[:, None] * rotated)
    return np.asarray(centre + (tested - mean) / scale @ weights)
