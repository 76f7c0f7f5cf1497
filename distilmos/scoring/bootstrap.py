"""Percentile bootstrap of the four measures (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from distilmos.metrics import METRICS, agreements

# Rounding, which depends on the CPU, makes equal correlations differ by less than this.
ROUNDING = 1e-9
SAMPLES = 1000
COVERAGE = 0.95  # of the intervals
_BLOCK = 1_000_000  # scores that are resampled at a time


def bootstrap_agreement(
    rated: np.ndarray,
    predictions: np.ndarray,
    samples: int,
    seed: int | tuple[int, ...],
    metrics: Sequence[str] = METRICS,
    clusters: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Compute the measures of every bootstrap resample. All rows of `predictions` share the resamples.

    Args:
        rated: shape (N,), N >= 1.
        predictions: shape (P, N), P predictions of the same N items.
        samples: number of resamples. Each draws, with replacement, as many items (or clusters) as exist.
        seed: seed of the draws.
        metrics: measures to compute; KTAU takes most of the time.
        clusters: cluster of each item, shape (N,). The items of a cluster are not independent and are drawn together.
            The draws equal those of single items, one for each cluster in sorted order.

    Returns:
        measure -> array (samples, P). NaN where the resample does not define a correlation, and everywhere if only one
        item or cluster exists, because all its resamples are the same.
    """
    generator = np.random.default_rng(seed)
    members = None if clusters is None else [np.flatnonzero(clusters == name) for name in np.unique(clusters)]
    count = rated.size if members is None else len(members)
    found = {name: np.full((samples, len(predictions)), np.nan) for name in metrics}
    block = max(1, _BLOCK // rated.size)
    for start in range(0, samples if count > 1 else 0, block):
        end = min(start + block, samples)
        drawn = np.stack([generator.integers(count, size=count) for _ in range(start, end)])
        for resamples, items in _items(drawn, members):
            drawn_ratings = rated[items]
            for row, predicted in enumerate(predictions):
                for name, values in agreements(drawn_ratings, predicted[items], metrics).items():
                    found[name][start + resamples, row] = values
    return found


def _items(drawn: np.ndarray, members: list[np.ndarray] | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield resamples of equal size together: their rows of `drawn`, (S,), and their items, (S, M)."""
    if members is None:
        yield np.arange(len(drawn)), drawn
        return
    sizes = np.array([of_one.size for of_one in members])[drawn].sum(1)
    for size in np.unique(sizes):
        rows = np.flatnonzero(sizes == size)
        yield rows, np.stack([np.concatenate([members[cluster] for cluster in drawn[row]]) for row in rows])


def interval(values: np.ndarray, coverage: float = COVERAGE) -> tuple[float, float, int]:
    """Return the percentile interval and the number of resamples without a value.

    Args:
        values: shape (samples,); NaN where a resample has no value.
        coverage: share of the resamples in the interval.

    Returns:
        low end, high end (NaN if no resample has a value), and the number of NaN, which the interval leaves out.
    """
    defined = values[~np.isnan(values)]
    undefined = int(values.size - defined.size)
    if not defined.size:
        return float("nan"), float("nan"), undefined
    low, high = np.quantile(defined, [(1 - coverage) / 2, (1 + coverage) / 2])
    return float(low), float(high), undefined


def holm(values: Sequence[float]) -> list[float]:
    """Correct the p values of several comparisons.

    S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 1979. The
    smallest is multiplied by their number, the next one by one less, and so on; none falls below a smaller one. NaN
    stays NaN and does not count.
    """
    order = sorted((number for number, value in enumerate(values) if value == value), key=values.__getitem__)
    corrected = [float("nan")] * len(values)
    highest = 0.0
    for place, number in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - place) * values[number]))
        corrected[number] = highest
    return corrected


def two_sided_p(differences: np.ndarray) -> float:
    """Return the two-sided bootstrap p value of the hypothesis that the difference is 0.

    It is twice the smaller of the shares of resamples at or below 0 and at or above 0. One is added to count and total,
    so p is never 0 (Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 4.2).

    Args:
        differences: shape (samples,); NaN is left out.

    Returns:
        p, or NaN if no resample has a value.
    """
    defined = differences[~np.isnan(differences)]
    if not defined.size:
        return float("nan")
    smaller = min(int(np.sum(defined <= ROUNDING)), int(np.sum(defined >= -ROUNDING)))
    return min(1.0, 2 * (1 + smaller) / (1 + int(defined.size)))
