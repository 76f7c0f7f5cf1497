"""Measure how well frozen features predict the MOS of unseen conditions, unseen groups and other sets.

The features of an utterance are the mean and the standard deviation over time of each dimension, of all layers or of
one. A ridge regression predicts the MOS. Cross-validation within the data of the fit chooses the penalty and the best
layer, because a layer chosen on the tested utterances would look too good.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distilmos.metrics import agreement
from distilmos.ridge import best_fit, deal_folds, fit_ridge
from distilmos.scoring.bootstrap import SAMPLES, bootstrap_agreement, interval

MEASURES = ("LCC", "SRCC")
CONDITIONS, GROUP, GROUPS, SET = "conditions", "group", "groups", "set"  # kinds of test
MIN_CONDITIONS = 3  # of a fit; its cross-validation needs at least two folds


@dataclass(frozen=True)
class PooledSet:
    """Rated utterances with their features.

    Attributes:
        name: name of the set.
        mos: MOS of each utterance, (U,).
        conditions: condition of each utterance, (U,).
        groups: group of each utterance, (U,); "" if it is in no group that is to be left out.
        layers: features of each layer, L x (U, 2 D).
    """

    name: str
    mos: np.ndarray
    conditions: np.ndarray
    groups: np.ndarray
    layers: list[np.ndarray]


@dataclass(frozen=True)
class _Test:
    """The predictions of a test.

    Attributes:
        kind: CONDITIONS, GROUP or SET.
        name: name of the group or the set.
        mos: MOS of the tested utterances, (U,).
        conditions: their conditions, (U,).
        predictions: (2 + L, U), from all layers, the chosen layer, and each single layer.
        chosen: the layer that each fit chose, counted from 1.
    """

    kind: str
    name: str
    mos: np.ndarray
    conditions: np.ndarray
    predictions: np.ndarray
    chosen: list[int]


def generalisation(data: PooledSet, tests: Sequence[PooledSet], seed: int) -> list[dict[str, Any]]:
    """Return the LCC and SRCC of each test with 95 % intervals.

    The tests are:
        CONDITIONS: cross-validation on `data`; no condition is in two folds.
        GROUP: for each group, the fit leaves it out and predicts it. A group needs at least two conditions.
        GROUPS: the mean of the groups.
        SET: for each set of `tests`, a fit on all of `data`.

    Args:
        data: at least MIN_CONDITIONS conditions.
        tests: other sets.
        seed: seed of the folds and of the bootstrap, which draws whole conditions.

    Returns:
        for each test `kind`, `name`, `utterances`, `conditions`, `chosen` (the layers that the fits chose), and the
        scores of `all` layers, the `best` (chosen) layer and each of the `layers`: measure -> `value`, `low`, `high`.
    """
    groups = list(_unseen_groups(data, seed))
    rows = [_row(_unseen_conditions(data, seed), seed)[0]]
    scored = [_row(test, (seed, place)) for place, test in enumerate(groups)]
    rows += [row for row, _ in scored]
    if scored:
        rows.append(_mean_row(rows[1:], [resampled for _, resampled in scored]))
    return rows + [_row(test, seed)[0] for test in _other_sets(data, tests, seed)]


def _unseen_conditions(data: PooledSet, seed: int) -> _Test:
    folds = _condition_folds(data.conditions, seed)
    predictions = np.empty((2 + len(data.layers), len(data.mos)))
    chosen = []
    for fold in np.unique(folds):
        tested = folds == fold
        predictions[:, tested], layer = _fit_and_predict(data, ~tested, folds[~tested], _rows(data.layers, tested))
        chosen.append(layer)
    return _Test(CONDITIONS, "unseen conditions", data.mos, data.conditions, predictions, chosen)


def _unseen_groups(data: PooledSet, seed: int) -> Iterator[_Test]:
    for group in np.unique(data.groups[data.groups != ""]):
        tested = data.groups == group
        rest = data.conditions[~tested]
        if len(np.unique(data.conditions[tested])) < 2 or len(np.unique(rest)) < MIN_CONDITIONS:
            continue
        folds = _condition_folds(rest, seed)
        predictions, layer = _fit_and_predict(data, ~tested, folds, _rows(data.layers, tested))
        yield _Test(GROUP, str(group), data.mos[tested], data.conditions[tested], predictions, [layer])


def _other_sets(data: PooledSet, tests: Sequence[PooledSet], seed: int) -> Iterator[_Test]:
    if not tests:
        return
    together = [np.concatenate(layers) for layers in zip(*(test.layers for test in tests), strict=True)]
    everything = np.full(len(data.mos), True)
    predictions, layer = _fit_and_predict(data, everything, _condition_folds(data.conditions, seed), together)
    ends = np.cumsum([len(test.mos) for test in tests])[:-1]
    for test, predicted in zip(tests, np.split(predictions, ends, axis=1), strict=True):
        yield _Test(SET, test.name, test.mos, test.conditions, predicted, [layer])


def _condition_folds(conditions: np.ndarray, seed: int) -> np.ndarray:
    return deal_folds(list(conditions), [""] * len(conditions), seed)


def _rows(layers: Sequence[np.ndarray], chosen: np.ndarray) -> list[np.ndarray]:
    return [layer[chosen] for layer in layers]


def _fit_and_predict(
    data: PooledSet, fitted: np.ndarray, folds: np.ndarray, tested: Sequence[np.ndarray]
) -> tuple[np.ndarray, int]:
    """Fit the utterances `fitted` (bool, (U,)) of `data`, with their inner folds; predict `tested`, L x (M, 2 D).

    Returns:
        predictions (2 + L, M), see `_Test`, and the chosen layer.
    """
    targets, layers = data.mos[fitted, None], _rows(data.layers, fitted)
    models = [fit_ridge(layer, targets, folds) for layer in layers]
    single = [model.predict(features)[:, 0] for model, features in zip(models, tested, strict=True)]
    chosen = best_fit(models)
    joint = fit_ridge(np.concatenate(layers, axis=1), targets, folds).predict(np.concatenate(tested, axis=1))[:, 0]
    return np.stack([joint, single[chosen], *single]), chosen + 1


def _row(test: _Test, seed: int | tuple[int, ...]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the result of a test, and its resamples: measure -> array (SAMPLES, 2 + L)."""
    count = len(np.unique(test.conditions))
    clusters = test.conditions if count > 1 else None
    resampled = bootstrap_agreement(test.mos, test.predictions, SAMPLES, seed, MEASURES, clusters)
    measured = [agreement(test.mos, predicted) for predicted in test.predictions]
    values = {name: np.array([of_one[name] for of_one in measured]) for name in MEASURES}
    head = {"kind": test.kind, "name": test.name, "utterances": len(test.mos), "conditions": count}
    return head | {"chosen": test.chosen} | _scores(values, resampled), resampled


def _mean_row(rows: Sequence[dict[str, Any]], resampled: Sequence[dict[str, np.ndarray]]) -> dict[str, Any]:
    """Return the mean over groups, whose resamples are independent."""
    values = {
        name: np.mean([[scores[name]["value"] for scores in _every_score(row)] for row in rows], axis=0)
        for name in MEASURES
    }
    together = {name: np.mean([of_group[name] for of_group in resampled], axis=0) for name in MEASURES}
    head = {"kind": GROUPS, "name": "unseen groups, mean"}
    totals = {name: sum(row[name] for row in rows) for name in ("utterances", "conditions")}
    return head | totals | {"chosen": [row["chosen"][0] for row in rows]} | _scores(values, together)


def _every_score(row: dict[str, Any]) -> list[dict[str, Any]]:
    return [row["all"], row["best"], *row["layers"]]


def _scores(values: dict[str, np.ndarray], resampled: dict[str, np.ndarray]) -> dict[str, Any]:
    """Arrange the values (2 + L,) and their resamples (SAMPLES, 2 + L) of each measure by predictor."""
    scores = []
    for place in range(len(values[MEASURES[0]])):
        score = {}
        for name in MEASURES:
            low, high, _ = interval(resampled[name][:, place])
            score[name] = {"value": float(values[name][place]), "low": low, "high": high}
        scores.append(score)
    layers = [{"layer": layer} | score for layer, score in enumerate(scores[2:], start=1)]
    return {"all": scores[0], "best": scores[1], "layers": layers}
