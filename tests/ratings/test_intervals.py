"""Scores with intervals of a bootstrap over listeners and items."""

from __future__ import annotations

import math

import numpy as np
import pytest

from distilmos.ratings.intervals import ALL, GROUP, SYSTEM, UTTERANCE, Score, bootstrap_scores
from distilmos.ratings.panel import panel_of


def by_name(scores: list[Score], level: str) -> dict[str, Score]:
    return {score.name: score for score in scores if score.level == level}


def test_scores_of_all_levels() -> None:
    ratings = {"u1": [("a", 2.0), ("b", 4.0)], "u2": [("a", 1.0)], "u3": [("b", 5.0), ("c", 5.0)]}
    systems = {"u1": "s", "u2": "s", "u3": "t", "u4": "t"}
    scores = bootstrap_scores(panel_of(ratings), systems, {"s": "g"}, samples=50)
    assert [(score.level, score.name) for score in scores] == [
        (ALL, ALL),
        (GROUP, "g"),
        (SYSTEM, "s"),
        (SYSTEM, "t"),
        *((UTTERANCE, name) for name in ratings),
    ]
    system = by_name(scores, SYSTEM)["s"]
    assert (system.utterances, system.ratings, system.mos) == (2, 3, 2.0)  # the mean of the means 3 and 1
    assert system.deviation == pytest.approx(np.std([2, 4, 1], ddof=1))
    assert by_name(scores, GROUP)["g"].mos == 2.0 and by_name(scores, ALL)[ALL].mos == 3.0
    utterances = by_name(scores, UTTERANCE)
    assert (utterances["u1"].low, utterances["u1"].high) == (2.0, 4.0)
    # All resamples of equal ratings, and of a single listener, are the same.
    assert (utterances["u3"].low, utterances["u3"].high, utterances["u3"].deviation) == (5.0, 5.0, 0.0)
    assert (utterances["u2"].low, utterances["u2"].high) == (1.0, 1.0) and math.isnan(utterances["u2"].deviation)
    assert repr(scores) == repr(bootstrap_scores(panel_of(ratings), systems, {"s": "g"}, samples=50))


def test_the_intervals_of_systems_cover_their_true_scores() -> None:
    """Listeners with a bias that they keep: intervals that resample ratings alone would be far too narrow."""
    random = np.random.default_rng(1)
    covered, widths = [], []
    for _ in range(40):
        biases = random.normal(0, 0.5, 20)
        items = random.normal(3, 0.5, 15)
        ratings = {
            f"u{n}": [(f"L{m}", item + biases[m] + random.normal(0, 0.5)) for m in range(20)]
            for n, item in enumerate(items)
        }
        score = by_name(bootstrap_scores(panel_of(ratings), dict.fromkeys(ratings, "s"), {}, samples=200), SYSTEM)["s"]
        covered.append(score.low <= 3 <= score.high)
        widths.append(score.high - score.low)
    assert sum(covered) >= 34
    # Variance 0.25 / 20 of the biases and 0.25 / 15 of the items.
    assert np.mean(widths) == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 20 + 0.25 / 15), rel=0.1)
