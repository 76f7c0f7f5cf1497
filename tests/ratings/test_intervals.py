"""Scores with intervals of a bootstrap over listeners and items."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from distilmos.ratings.intervals import ALL, CONDITION, GROUP, SYSTEM, UTTERANCE, MeanScore, bootstrap_scores
from distilmos.ratings.panel import panel_of

SCORES = {"x": 1.0, "y": 3.0, "z": 4.0}  # of systems


def by_name(scores: list[MeanScore], level: str) -> dict[str, MeanScore]:
    return {score.name: score for score in scores if score.level == level}


def test_scores_of_all_levels() -> None:
    ratings = {"u1": [("a", 2.0), ("b", 4.0)], "u2": [("a", 1.0)], "u3": [("b", 5.0), ("c", 5.0)]}
    systems = {"u1": "s", "u2": "s", "u3": "t", "u4": "t"}
    conditions = {"u1": "c", "u2": "c", "u3": "t", "u4": "t"}
    scores = bootstrap_scores(panel_of(ratings), systems, {"s": "g"}, conditions, samples=50)
    assert [(score.level, score.name) for score in scores] == [
        (ALL, ALL),
        (GROUP, "g"),
        (CONDITION, "c"),
        (CONDITION, "t"),
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
    assert repr(by_name(scores, CONDITION)["c"]) == repr(replace(system, level=CONDITION, name="c"))
    # All resamples of equal ratings are the same. A single listener does not show how far others would differ.
    assert (utterances["u3"].low, utterances["u3"].high, utterances["u3"].deviation) == (5.0, 5.0, 0.0)
    alone = utterances["u2"]
    assert alone.mos == 1 and all(map(math.isnan, (alone.low, alone.high, alone.margin, alone.deviation)))
    assert repr(scores) == repr(bootstrap_scores(panel_of(ratings), systems, {"s": "g"}, conditions, samples=50))


def test_a_condition_has_the_utterances_of_its_systems() -> None:
    ratings = {f"{system}{n}": [("a", score), ("b", score + 1)] for system, score in SCORES.items() for n in range(3)}
    conditions = {utterance: "xy" if utterance[0] in "xy" else "z" for utterance in ratings}
    scores = bootstrap_scores(panel_of(ratings), {utterance: utterance[0] for utterance in ratings}, {}, conditions)
    found = by_name(scores, CONDITION)
    assert {name: (score.utterances, score.ratings, score.mos) for name, score in found.items()} == {
        "xy": (6, 12, 2.5),
        "z": (3, 6, 4.5),
    }
    assert (found["xy"].low, found["xy"].high) == (2, 3)


def test_one_listener_has_no_interval_at_any_level() -> None:
    ratings = {"u1": [("a", 1.0), ("a#2", 2.0)], "u2": [("a", 4.0)]}
    scores = bootstrap_scores(panel_of(ratings), dict.fromkeys(ratings, "s"), {}, {}, samples=20)
    assert len(scores) == 4 and all(math.isnan(score.low) and math.isnan(score.high) for score in scores)


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
        score = by_name(bootstrap_scores(panel_of(ratings), dict.fromkeys(ratings, "s"), {}, {}, samples=200), SYSTEM)[
            "s"
        ]
        covered.append(score.low <= 3 <= score.high)
        widths.append(score.high - score.low)
    assert sum(covered) >= 34
    # Variance 0.25 / 20 of the biases and 0.25 / 15 of the items.
    assert np.mean(widths) == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 20 + 0.25 / 15), rel=0.1)
