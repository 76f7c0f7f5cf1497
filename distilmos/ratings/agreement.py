"""How well listeners agree, and how well some of them predict the others: the bound of every model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from distilmos.markdown import number
from distilmos.metrics import LEVELS, METRICS, agreement
from distilmos.ratings.panel import Panel, Ratings, divide, known_mean, panel_of

SPLITS = 100  # random splits of the listeners
SEED = 1
ONE, HALF, TRUTH = "one listener", "half of the listeners", "true scores, estimated"


def listener_ceiling(
    ratings: Ratings, systems: Mapping[str, str], splits: int = SPLITS, seed: int = SEED
) -> dict[str, dict[str, dict[str, float]]]:
    """Return how well listeners predict other listeners: what a model may be compared with.

    All values are means over random orders of the listeners:

    - ONE: the rating of each utterance by the first of its listeners (the mean, if there are several) predicts the mean
      of its ratings by others. If every listener rated everything, this is one listener and the rest of the panel.
    - HALF: the mean rating by the first half of the listeners predicts that by the other half.
    - TRUTH: the LCC of a perfect prediction of the true scores with the means of all ratings, which is the square root
      of their reliability (F. M. Lord, M. R. Novick, Statistical theories of mental test scores, 1968, section 3.9).
      For utterances that is ICC(1,k); for systems 2 r / (1 + r), where r is the LCC of HALF (Spearman-Brown formula).
      A model may lie above HALF, as it is compared with all ratings, but only by chance above TRUTH.

    Args:
        ratings: utterance -> (listener, score) pairs.
        systems: utterance -> system; scores of a system are means of its utterances.
        splits: number of random orders.
        seed: their seed.

    Returns:
        predictor -> level ("utterance", "system") -> measure -> value; TRUTH has only the LCC. NaN where no order
        defines the measure. Empty if no utterance has two ratings.
    """
    panel = panel_of(ratings)
    if panel.counts.max() < 2:
        return {}
    _, system = np.unique([systems[utterance] for utterance in panel.utterances], return_inverse=True)
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for order in _orders(panel, splits, seed):
        for name, (rest, predicted) in ((ONE, _first_and_rest(panel, order)), (HALF, _halves(panel, order))):
            both = ~np.isnan(rest) & ~np.isnan(predicted)
            rest, predicted, systems_of = rest[both], predicted[both], system[both]
            pairs = {
                "utterance": (rest, predicted),
                "system": (_system_means(rest, systems_of), _system_means(predicted, systems_of)),
            }
            for level in LEVELS:
                found.setdefault((name, level), []).append(agreement(*pairs[level]))
    ceiling: dict[str, dict[str, dict[str, float]]] = {ONE: {}, HALF: {}}
    for (name, level), values in found.items():
        ceiling[name][level] = {metric: known_mean([each[metric] for each in values]) for metric in METRICS}
    half = ceiling[HALF]["system"]["LCC"]
    reliabilities = {
        "utterance": intraclass_correlation(ratings)[1],
        "system": 2 * half / (1 + half) if half >= 0 else math.nan,
    }
    ceiling[TRUTH] = {level: {"LCC": math.sqrt(r) if r >= 0 else math.nan} for level, r in reliabilities.items()}
    return ceiling


def _system_means(scores: np.ndarray, systems: np.ndarray) -> np.ndarray:
    """Return the mean of the scores of each system, in the order of the systems that have some."""
    means = divide(np.bincount(systems, scores), np.bincount(systems))
    known: np.ndarray = means[~np.isnan(means)]
    return known


def _orders(panel: Panel, splits: int, seed: int) -> Iterator[np.ndarray]:
    """Yield random ranks of the listeners, shape (L,)."""
    random = np.random.default_rng(seed)
    for _ in range(splits):
        yield random.permutation(len(panel.listeners))


def _halves(panel: Panel, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the means of the utterances over two halves of the listeners, each (U,); NaN without a rating."""
    half = (order < len(order) / 2)[panel.listener]
    return panel.chosen(~half).means, panel.chosen(half).means


def _first_and_rest(panel: Panel, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of the ratings by all but the first listener, and by the first, each (U,); NaN without any."""
    ranked = np.lexsort((order[panel.listener], panel.utterance))
    places, first = np.unique(panel.utterance[ranked], return_index=True)
    chosen = np.zeros(len(panel.utterances), dtype=int)
    chosen[places] = panel.listener[ranked][first]
    own = panel.listener == chosen[panel.utterance]
    return panel.chosen(~own).means, panel.chosen(own).means


def split_half(ratings: Ratings, splits: int = SPLITS, seed: int = SEED) -> float:
    """Return the correlation (LCC) of the mean scores of two halves of the listeners, averaged over random halves.

    This is the reliability r of a mean over half of the ratings: a perfect prediction of the true scores would have an
    LCC of sqrt(r) with such a mean. A split divides the listeners, not the ratings of each utterance, so that a severe
    listener is in one half only.

    Args:
        ratings: utterance -> (listener, score) pairs.
        splits: number of random splits.
        seed: seed of the splits.

    Returns:
        LCC, or NaN if no split has two utterances that both halves rated and whose scores differ.
    """
    panel = panel_of(ratings)
    correlations = []
    for order in _orders(panel, splits, seed):
        first, second = _halves(panel, order)
        both = ~np.isnan(first) & ~np.isnan(second)
        correlations.append(agreement(first[both], second[both])["LCC"])
    return known_mean(correlations)


def intraclass_correlation(ratings: Ratings) -> tuple[float, float]:
    """Return ICC(1,1), the reliability of a single rating, and ICC(1,k), that of the mean rating of an utterance.

    One-way random effects: P. E. Shrout, J. L. Fleiss, "Intraclass correlations: uses in assessing rater reliability",
    Psychological Bulletin 86 (1979). If utterances have different numbers of ratings k_i, k is the effective number
    k0 = (N - sum k_i^2 / N) / (n - 1) (S. R. Searle, Linear Models, 1971, section 9.8).

    Args:
        ratings: utterance -> (listener, score) pairs.

    Returns:
        both, or NaN if they are not defined (fewer than two utterances, no utterance rated twice, no variance).
    """
    panel = panel_of(ratings)
    counts, means, score = panel.counts.astype(float), panel.means, panel.score
    total, items = counts.sum(), counts.size
    if items < 2 or total == items:
        return math.nan, math.nan
    between = float((counts * (means - score.mean()) ** 2).sum()) / (items - 1)
    within = float(((score - means[panel.utterance]) ** 2).sum()) / (total - items)
    size = (total - float((counts**2).sum()) / total) / (items - 1)
    if between + (size - 1) * within == 0 or between == 0:
        return math.nan, math.nan
    return (between - within) / (between + (size - 1) * within), (between - within) / between


def agreement_rows(ratings: Ratings) -> list[list[str]]:
    """Return name and value of each measure of agreement, as rows of a table."""
    single, mean = intraclass_correlation(ratings)
    return [
        [f"LCC between the means of random halves of the listeners, mean of {SPLITS}", number(split_half(ratings))],
        ["ICC(1,1), reliability of one rating", number(single)],
        ["ICC(1,k), reliability of an utterance's mean", number(mean)],
    ]
