"""Percentile bootstrap of the four measures (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
    clusters: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Return the measures of every resample; all rows of `predictions` see the same resamples.

    Args:
        rated: shape (N,), N >= 1.
        predictions: shape (P, N), P predictions of the same N items.
        samples: number of resamples, each of N items, or of as many clusters as there are, drawn with replacement.
        seed: of the draws.
        metrics: the measures to compute; KTAU takes most of the time.
        clusters: the cluster of each item, shape (N,), whose items are drawn together, as they are not independent.
            Clusters are drawn as single items in their sorted order would be.

    Returns:
        measure -> array (samples, P); NaN where a correlation is not defined in that resample, and everywhere if there
        is a single item or cluster, whose resamples are all the same.
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
    """Yield resamples that have the same number of items: their rows of `drawn`, (S,), and the items, (S, M)."""
    if members is None:
        yield np.arange(len(drawn)), drawn
        return
    sizes = np.array([of_one.size for of_one in members])[drawn].sum(1)
    for size in np.unique(sizes):
        rows = np.flatnonzero(sizes == size)
        yield rows, np.stack([np.concatenate([members[cluster] for cluster in drawn[row]]) for row in rows])


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
