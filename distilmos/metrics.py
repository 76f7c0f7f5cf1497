"""Agreement of predicted with rated scores: MSE, LCC, SRCC, KTAU."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping

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
    result = {"MSE": float(np.mean((rated - predicted) ** 2)) if rated.size else math.nan}
    if rated.size < 2 or np.ptp(rated) == 0 or np.ptp(predicted) == 0:
        return result | dict.fromkeys(METRICS[1:], math.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)
        return result | {
            "LCC": float(stats.pearsonr(rated, predicted).statistic),
            "SRCC": float(stats.spearmanr(rated, predicted).statistic),
            "KTAU": float(stats.kendalltau(rated, predicted).statistic),
        }


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
