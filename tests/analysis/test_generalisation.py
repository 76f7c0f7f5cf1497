"""Predictions of unseen conditions, groups and sets from the features of layers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from distilmos.analysis.generalisation import PooledSet, generalisation
from distilmos.metrics import agreement

WIDTH = 12


def pooled_set(seed: int, conditions: int = 24) -> PooledSet:
    """Return four utterances of each condition; the second of two layers has the MOS as a linear component."""
    random = np.random.default_rng(seed)
    quality = np.repeat(random.normal(size=conditions), 4)
    signal = np.outer(quality, np.arange(1.0, WIDTH + 1)) + random.normal(size=(4 * conditions, WIDTH))
    return PooledSet(
        name=f"set{seed}",
        mos=3 + 0.5 * quality,
        conditions=np.repeat([f"c{number:02d}" for number in range(conditions)], 4),
        groups=np.repeat([("echo", "clip", "noise")[number % 3] for number in range(conditions)], 4),
        layers=[random.normal(size=(4 * conditions, WIDTH)), signal],
    )


def by_name(data: PooledSet, *tests: PooledSet) -> dict:
    return {row["name"]: row for row in generalisation(data, tests, seed=1)}


def test_every_test_finds_the_informative_layer() -> None:
    data, other = pooled_set(1), pooled_set(2, conditions=9)
    found = by_name(data, replace(other, mos=100 - 3 * other.mos))
    assert [row["kind"] for row in found.values()] == ["conditions", "group", "group", "group", "groups", "set"]
    counts = {name: (row["conditions"], row["utterances"]) for name, row in found.items()}
    assert counts["unseen conditions"] == counts["unseen groups, mean"] == (24, 96)
    assert (counts["echo"], counts["set2"]) == ((8, 32), (9, 36))
    for name, row in found.items():
        sign = -1 if name == "set2" else 1  # its scale is its own
        assert set(row["chosen"]) == {2}
        assert sign * row["all"]["LCC"]["value"] > 0.95
        assert abs(row["layers"][0]["LCC"]["value"]) < 0.5
        best = {"layer": 2, **row["best"]}
        assert row["layers"][1] == best
        assert best["LCC"]["low"] < best["LCC"]["value"] < best["LCC"]["high"]


def test_the_layer_is_not_chosen_on_the_tested_utterances() -> None:
    data, other = pooled_set(1), pooled_set(2)
    perfect = np.outer(other.mos, np.ones(WIDTH))
    misleading = [perfect * data.layers[0].std(), np.random.default_rng(4).normal(size=other.layers[1].shape)]
    row = by_name(data, replace(other, layers=misleading))["set2"]
    assert row["chosen"] == [2]
    assert abs(row["best"]["LCC"]["value"]) < 0.5 < abs(row["layers"][0]["LCC"]["value"])


def test_a_group_is_predicted_without_its_own_utterances() -> None:
    data = pooled_set(1)
    echo = data.groups == "echo"
    upside_down = by_name(replace(data, mos=np.where(echo, 6 - data.mos, data.mos)))
    values = [upside_down[name]["best"]["LCC"]["value"] for name in ("clip", "echo", "noise")]
    assert values[1] < -0.9
    mean = upside_down["unseen groups, mean"]["best"]["LCC"]
    assert mean["value"] == pytest.approx(np.mean(values))
    assert mean["low"] < mean["value"] < mean["high"]


def test_a_group_of_one_condition_and_utterances_without_a_group_are_not_left_out() -> None:
    data = pooled_set(1)
    groups = np.where(data.groups == "echo", "", data.groups)
    groups[data.conditions == "c00"] = "single"
    assert {row["name"] for row in by_name(replace(data, groups=groups)).values() if row["kind"] == "group"} == {
        "clip",
        "noise",
    }


def test_copies_of_a_condition_are_in_one_fold() -> None:
    """The features tell only which of twelve degradations an utterance has, and its MOS cannot be predicted."""
    data, random = pooled_set(1), np.random.default_rng(5)
    copies = np.repeat(np.arange(12), 2).repeat(4)  # each degradation has two systems
    identity = np.eye(12)[copies] + 0.01 * random.normal(size=(96, 12))
    data = replace(data, mos=random.uniform(1, 5, 12)[copies], layers=[identity], groups=np.full(96, ""))
    apart = by_name(data)["unseen conditions"]
    together = by_name(replace(data, conditions=np.array([f"c{copy}" for copy in copies])))["unseen conditions"]
    assert apart["all"]["LCC"]["value"] > 0.8 > 0.3 > together["all"]["LCC"]["value"]
    assert (apart["conditions"], together["conditions"]) == (24, 12)


def test_an_interval_is_that_of_whole_conditions() -> None:
    """With one condition repeated in many utterances, the interval is as wide as for few utterances."""
    data, other = pooled_set(1), pooled_set(2, conditions=6)
    more = replace(
        other,
        mos=other.mos.repeat(10),
        conditions=other.conditions.repeat(10),
        groups=other.groups.repeat(10),
        layers=[layer.repeat(10, axis=0) for layer in other.layers],
    )
    noisy = [replace(test, mos=test.mos + np.sin(1e3 * test.mos)) for test in (other, more)]
    few, many = (by_name(data, test)["set2"]["all"]["LCC"] for test in noisy)
    assert few == pytest.approx(many)
    assert few["value"] == pytest.approx(agreement(noisy[0].mos, other.mos)["LCC"], abs=0.1)
