"""Agreement of listeners, and how well they predict each other."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from distilmos.ratings.agreement import (
    HALF,
    ONE,
    TRUTH,
    intraclass_correlation,
    listener_ceiling,
    split_half,
)

Ratings = dict[str, list[tuple[str, float]]]

# P. E. Shrout, J. L. Fleiss, 1979, table 2: six targets, four judges.
SHROUT_FLEISS = ((9, 2, 5, 8), (6, 1, 3, 2), (8, 4, 6, 8), (7, 1, 2, 6), (10, 5, 6, 9), (6, 2, 4, 7))


def named(rows: Sequence[Sequence[float]]) -> Ratings:
    return {f"u{n}": [(f"L{m}", float(s)) for m, s in enumerate(row)] for n, row in enumerate(rows)}


def test_intraclass_correlation_of_the_original_paper() -> None:
    single, mean = intraclass_correlation(named(SHROUT_FLEISS))
    assert (round(single, 2), round(mean, 2)) == (0.17, 0.44)


def test_intraclass_correlation_with_unequal_numbers_of_ratings() -> None:
    random = np.random.default_rng(1)
    truth = random.normal(0, 1, 4000)
    ratings = {
        f"u{n}": [(f"L{m}", value + random.normal(0, 2)) for m in range(random.integers(1, 8))]
        for n, value in enumerate(truth)
    }
    assert intraclass_correlation(ratings)[0] == pytest.approx(1 / (1 + 4), abs=0.02)


@pytest.mark.parametrize("rows", [[[3, 4]], [[3], [4]], [[3, 3], [3, 3]]])
def test_intraclass_correlation_is_nan_where_it_is_not_defined(rows: list[list[float]]) -> None:
    assert all(map(math.isnan, intraclass_correlation(named(rows))))


def test_split_half_divides_the_listeners() -> None:
    random = np.random.default_rng(2)
    truth = random.normal(0, 1, 300)
    agreeing = {f"u{n}": [(f"L{m}", t + random.normal(0, 1)) for m in range(8)] for n, t in enumerate(truth)}
    # Each half has four ratings: the truth has variance 1, the noise of a mean 1/4.
    assert split_half(agreeing) == pytest.approx(1 / 1.25, abs=0.03)
    assert split_half(agreeing) == split_half(agreeing)
    # One listener rates half of the utterances, another rates the rest: no utterance has ratings of both halves.
    apart = {f"u{n}": [(f"L{n % 2}", float(n))] for n in range(10)}
    assert math.isnan(split_half(apart))


def simulated(utterances: int, listeners: int, each: int, seed: int) -> tuple[np.ndarray, Ratings, dict[str, str]]:
    """Return true scores of variance 1, ratings with noise of variance 1, and systems of four utterances."""
    random = np.random.default_rng(seed)
    truth = np.repeat(random.normal(0, 0.5**0.5, utterances // 4), 4) + random.normal(0, 0.5**0.5, utterances)
    ratings = {
        f"u{n}": [(f"L{m}", value + random.normal()) for m in random.choice(listeners, each, replace=False)]
        for n, value in enumerate(truth)
    }
    return truth, ratings, {f"u{n}": f"s{n // 4}" for n in range(utterances)}


def test_ceiling_of_a_panel_that_rated_everything() -> None:
    _, ratings, systems = simulated(1200, 8, 8, 1)
    ceiling = listener_ceiling(ratings, systems, splits=20)
    # The correlation of means of a and b ratings is the geometric mean of their reliabilities.
    one, rest, half = 1 / 2, 1 / (1 + 1 / 7), 1 / (1 + 1 / 4)
    assert ceiling[ONE]["utterance"]["LCC"] == pytest.approx(math.sqrt(one * rest), abs=0.02)
    assert ceiling[ONE]["utterance"]["MSE"] == pytest.approx(1 + 1 / 7, abs=0.05)
    assert ceiling[HALF]["utterance"]["LCC"] == pytest.approx(half, abs=0.02)
    assert ceiling[HALF]["utterance"]["LCC"] == pytest.approx(split_half(ratings, 20), abs=1e-12)
    # The mean of four utterances: variance 0.5 + 0.5 / 4 of the truth, 1 / 16 of the noise of four ratings each.
    assert ceiling[HALF]["system"]["LCC"] == pytest.approx(0.625 / (0.625 + 1 / 16), abs=0.02)
    assert ceiling[HALF]["system"]["SRCC"] == pytest.approx(ceiling[HALF]["system"]["LCC"], abs=0.03)
    assert listener_ceiling(ratings, systems, splits=20) == ceiling


@pytest.mark.parametrize(("listeners", "each"), [(8, 8), (60, 4)])
def test_true_scores_lie_at_the_estimated_ceiling(listeners: int, each: int) -> None:
    truth, ratings, systems = simulated(1200, listeners, each, 2)
    means = np.array([np.mean([score for _, score in pairs]) for pairs in ratings.values()])
    ceiling = listener_ceiling(ratings, systems, splits=20)[TRUTH]
    assert ceiling["utterance"]["LCC"] == pytest.approx(np.corrcoef(truth, means)[0, 1], abs=0.015)
    of_systems = np.corrcoef(truth.reshape(-1, 4).mean(1), means.reshape(-1, 4).mean(1))[0, 1]
    assert ceiling["system"]["LCC"] == pytest.approx(of_systems, abs=0.015)


def test_ceiling_is_empty_or_nan_where_it_is_not_defined() -> None:
    assert listener_ceiling({"u1": [("L1", 3.0)], "u2": [("L2", 4.0)]}, {"u1": "s", "u2": "s"}) == {}
    ceiling = listener_ceiling(named([[3, 3], [3, 3]]), {"u0": "s", "u1": "t"}, splits=3)
    assert all(math.isnan(values["LCC"]) for levels in ceiling.values() for values in levels.values())
    # Utterances with a single rating do not count.
    more = {**named([[1, 2], [3, 5], [2, 2]]), "alone": [("L0", 5.0)]}
    systems = dict.fromkeys(more, "s")
    assert listener_ceiling(more, systems)[ONE] == listener_ceiling(named([[1, 2], [3, 5], [2, 2]]), systems)[ONE]


def test_repeated_ratings_are_of_one_listener() -> None:
    random = np.random.default_rng(4)
    once = {f"u{n}": [("anna", float(random.normal())), ("bo", float(random.normal()))] for n in range(40)}
    # Both of anna's ratings are in the same half, and neither predicts the other.
    twice = {utterance: [*pairs, ("anna#2", pairs[0][1])] for utterance, pairs in once.items()}
    systems = {utterance: utterance[:2] for utterance in once}
    assert split_half(twice, 10) == pytest.approx(split_half(once, 10), abs=1e-12)
    ceilings = [listener_ceiling(ratings, systems, splits=10) for ratings in (once, twice)]
    for name in (ONE, HALF):
        for level in ("utterance", "system"):
            assert ceilings[1][name][level] == pytest.approx(ceilings[0][name][level], abs=1e-12)
    # Names that end in a number are other listeners if nobody has the name without it.
    numbered = {utterance: [("x#1", pairs[0][1]), ("x#2", pairs[1][1])] for utterance, pairs in once.items()}
    assert listener_ceiling(numbered, systems, splits=10)[ONE] == ceilings[0][ONE]
