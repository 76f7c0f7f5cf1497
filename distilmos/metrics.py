"""Agreement of predicted with rated scores: MSE, LCC, SRCC, KTAU."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

METRICS = ("MSE", "LCC", "SRCC", "KTAU")
LEVELS = ("utterance", "system")


def agreement(rated: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Return the four measures of one level.

    MSE is the mean squared error; LCC Pearson's, SRCC Spearman's and KTAU Kendall's (tau-b) correlation, as in the
    VoiceMOS Challenge.

    Args:
        rated: shape (N,).
        predicted: shape (N,).

    Returns:
        name -> value; a correlation is NaN where it is not defined (fewer than two points, or one side constant).
    """
    return {name: float(value[0]) for name, value in agreements(rated[np.newaxis], predicted[np.newaxis]).items()}


def agreements(rated: np.ndarray, predicted: np.ndarray, metrics: Sequence[str] = METRICS) -> dict[str, np.ndarray]:
    """Return measures of many sets of the same size at once, which is many times as fast as one by one.

    Args:
        rated: shape (S, N), S sets of N ratings.
        predicted: shape (S, N).
        metrics: those of METRICS to compute.

    Returns:
        measure -> array (S,), as `agreement` gives for each set.
    """
    number, size = rated.shape
    found = {name: np.full(number, math.nan) for name in metrics}
    if not size:
        return found
    # Said here and not by scipy, which warns and decides by a tolerance.
    defined = (np.ptp(rated, axis=1) > 0) & (np.ptp(predicted, axis=1) > 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)
        for name, values in found.items():
            if name == "MSE":
                values[:] = np.mean((rated - predicted) ** 2, axis=1)
            elif defined.any():
                values[defined] = _CORRELATIONS[name](rated[defined], predicted[defined])
    return found


def _pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(stats.pearsonr(x, y, axis=1).statistic)


def _spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _pearson(stats.rankdata(x, axis=1), stats.rankdata(y, axis=1))


def _kendall(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.array([stats.kendalltau(*pair).statistic for pair in zip(x, y, strict=True)])


_CORRELATIONS = {"LCC": _pearson, "SRCC": _spearman, "KTAU": _kendall}


def system_means(scores: Mapping[str, float], systems: Mapping[str, str]) -> dict[str, float]:
    """Average utterance scores for each system.

    Args:
        scores: utterance -> score.
        systems: utterance -> system.

    Returns:
        system -> mean of its utterances' scores, sorted by system.
    """
    grouped: dict[str, list[float]] = {}
    for utterance, score in scores.items():
        grouped.setdefault(systems[utterance], []).append(score)
    return {system: math.fsum(values) / len(values) for system, values in sorted(grouped.items())}


def agreement_at_levels(
    rated: Mapping[str, float], predicted: Mapping[str, float], systems: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    """Return the four measures at utterance and system level over the utterances of `rated`.

    System-level truth is the mean of the system's utterance scores in this set, the usual choice for BVCC.

    Raises:
        KeyError: if an utterance of `rated` has no prediction or no system.
    """
    truth = {"utterance": dict(rated), "system": system_means(rated, systems)}
    guess = {u: predicted[u] for u in rated}
    guesses = {"utterance": guess, "system": system_means(guess, systems)}
    return {
        level: agreement(np.array(list(truth[level].values())), np.array(list(guesses[level].values())))
        for level in LEVELS
    }
