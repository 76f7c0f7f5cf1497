"""Agreement between predicted and rated scores: MSE, LCC, SRCC, KTAU."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

METRICS = ("MSE", "LCC", "SRCC", "KTAU")
LEVELS = ("utterance", "system")
FEW_SYSTEMS = 10  # of 6 systems, one of 34 random orders has an SRCC above .8


def few_systems(count: int) -> str:
    """Return a caution for sets with fewer than FEW_SYSTEMS systems, else nothing."""
    return f"only {count} systems: scores at system level say little" if count < FEW_SYSTEMS else ""


def agreement(rated: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Return the four measures of one level.

    MSE is the mean squared error. LCC is Pearson's, SRCC Spearman's and KTAU Kendall's (tau-b) correlation, as in the
    VoiceMOS Challenge.

    Args:
        rated: shape (N,).
        predicted: shape (N,).

    Returns:
        name -> value; an undefined correlation is NaN (fewer than two points, or one side is constant).
    """
    return {name: float(value[0]) for name, value in agreements(rated[np.newaxis], predicted[np.newaxis]).items()}


def agreements(rated: np.ndarray, predicted: np.ndarray, metrics: Sequence[str] = METRICS) -> dict[str, np.ndarray]:
    """Return measures of many sets of the same size at once, much faster than one set at a time.

    Args:
        rated: shape (S, N), S sets of N ratings.
        predicted: shape (S, N).
        metrics: the names from METRICS to compute.

    Returns:
        measure -> array (S,), for each set the value that `agreement` returns.
    """
    number, size = rated.shape
    found = {name: np.full(number, math.nan) for name in metrics}
    if not size:
        return found
    # Decided here: scipy uses a tolerance and warns.
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
    """Average the utterance scores of each system.

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


def level_scores(
    rated: Mapping[str, float],
    predicted: Mapping[str, float],
    systems: Mapping[str, str],
    system_mos: Mapping[str, float],
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the rated and the predicted scores at each level.

    Args:
        rated: utterance -> MOS.
        predicted: utterance -> score, at least for the utterances in `rated`.
        systems: utterance -> system, likewise.
        system_mos: system -> true MOS, where it is known. For any other system it is the mean of its utterances in
            `rated`, the usual choice for BVCC.

    Returns:
        level -> rated and predicted scores, each of shape (N,), in the order of `rated` or sorted by system. The
        predicted score of a system is always the mean of its utterances.

    Raises:
        KeyError: if an utterance of `rated` has no prediction or no system.
    """
    guess = {utterance: predicted[utterance] for utterance in rated}
    truth = {system: system_mos.get(system, mean) for system, mean in system_means(rated, systems).items()}
    levels = ((rated, guess), (truth, system_means(guess, systems)))
    return {
        level: (np.array(list(ours.values())), np.array(list(theirs.values())))
        for level, (ours, theirs) in zip(LEVELS, levels, strict=True)
    }
