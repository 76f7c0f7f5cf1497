"""Percentile bootstrap of the four measures (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distilmos.metrics import METRICS, agreements

SAMPLES = 1000
LEVEL = 0.95
_BLOCK = 1_000_000  # scores in memory at a time


def bootstrap_agreement(
    rated: np.ndarray,
    predictions: np.ndarray,
    samples: int,
    seed: int | tuple[int, ...],
    metrics: Sequence[str] = METRICS,
) -> dict[str, np.ndarray]:
    """Return the measures of every resample; all rows of `predictions` see the same resamples.

    Args:
        rated: shape (N,), N >= 1.
        predictions: shape (P, N), P predictions of the same N items.
        samples: number of resamples, each of N items drawn with replacement.
        seed: of the draws.
        metrics: the measures to compute; KTAU takes most of the time.

    Returns:
        measure -> array (samples, P); NaN where a correlation is not defined in that resample, and everywhere if there
        is a single item, whose resamples are all the same.
    """
    generator = np.random.default_rng(seed)
    found = {name: np.full((samples, len(predictions)), np.nan) for name in metrics}
    block = max(1, _BLOCK // rated.size)
    for start in range(0, samples if rated.size > 1 else 0, block):
        end = min(start + block, samples)
        drawn = np.stack([generator.integers(rated.size, size=rated.size) for _ in range(start, end)])
        drawn_ratings = rated[drawn]
        for row, predicted in enumerate(predictions):
            for name, values in agreements(drawn_ratings, predicted[drawn], metrics).items():
                found[name][start:end, row] = values
    return found


def interval(values: np.ndarray, level: float = LEVEL) -> tuple[float, float, int]:
    """Return low end, high end and the number of resamples left out because their value is not defined.

    Args:
        values: shape (samples,); may hold NaN.
        level: coverage.

    Returns:
        the ends are NaN if no resample has a value.
    """
    defined = values[~np.isnan(values)]
    undefined = int(values.size - defined.size)
    if not defined.size:
        return float("nan"), float("nan"), undefined
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high), undefined


def two_sided_p(differences: np.ndarray) -> float:
    """Return the bootstrap p value of "there is no difference".

    Twice the smaller share of resamples on either side of zero, with one added to count and total so that it is
    never 0 (Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 4.2); NaN if no resample
    has a value.

    Args:
        differences: shape (samples,); may hold NaN, which is left out.
    """
    defined = differences[~np.isnan(differences)]
    if not defined.size:
        return float("nan")
    smaller = min(int(np.sum(defined <= 0)), int(np.sum(defined >= 0)))
    return min(1.0, 2 * (1 + smaller) / (1 + int(defined.size)))
