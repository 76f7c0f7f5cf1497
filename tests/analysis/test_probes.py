"""Probes: folds of utterances, and the predictions of ridge regression."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from distilmos import ridge
from distilmos.analysis.probes import chance, cross_validate, label_task, mos_task, probe
from distilmos.ridge import FOLDS, deal_folds

UTTERANCES = [f"u{number:02d}" for number in range(60)]
SYSTEMS = {u: f"s{number % 12:02d}" for number, u in enumerate(UTTERANCES)}
TYPES = {u: ("echo", "noise", "clip")[number % 3] for number, u in enumerate(UTTERANCES)}
TALKERS = {u: f"t{number // 12}" for number, u in enumerate(UTTERANCES)}


def test_folds_keep_units_whole_and_have_their_share_of_each_class() -> None:
    units, classes = [SYSTEMS[u] for u in UTTERANCES], [TYPES[u] for u in UTTERANCES]
    folds = deal_folds(units, classes, seed=1)
    of_units = dict(zip(units, folds, strict=True))
    assert all(of_units[unit] == fold for unit, fold in zip(units, folds, strict=True))
    for name in set(classes):
        shares = Counter(of_units[unit] for unit in {SYSTEMS[u] for u in UTTERANCES if TYPES[u] == name})
        assert max(shares.values()) == 1  # four systems of each type in five folds
    sizes = Counter(of_units.values())
    assert set(sizes.values()) <= {2, 3} and len(sizes) == FOLDS
    assert (deal_folds(units, classes, seed=1) == folds).all()
    assert (deal_folds(units, classes, seed=2) != folds).any()


def test_a_label_of_whole_systems_is_tested_on_other_systems() -> None:
    task = label_task("type", TYPES, UTTERANCES, SYSTEMS, seed=1)
    assert task is not None and task.units == "systems"
    for fold in range(FOLDS):
        systems = [
            {SYSTEMS[u] for u, f in zip(task.utterances, task.folds, strict=True) if (f == fold) is own}
            for own in (True, False)
        ]
        assert not systems[0] & systems[1]
    assert chance(task) == pytest.approx(1 / 3)


def test_a_label_within_systems_has_folds_of_utterances() -> None:
    task = label_task("talker", TALKERS, UTTERANCES, SYSTEMS, seed=1)
    assert task is not None and task.units == "utterances" and task.labelled
    # If each system is one talker, no label has several systems, and folds hold utterances.
    own = label_task("talker", TALKERS, UTTERANCES, TALKERS, seed=1)
    assert own is not None and own.units == "utterances" and own.utterances == UTTERANCES


def test_rare_labels_are_left_out() -> None:
    labels = {"u00": "once", "u01": "a", "u02": "a", "u03": "b", "u04": "b", "u05": "b", "elsewhere": "c"}
    task = label_task("label", labels, UTTERANCES, {u: u for u in UTTERANCES}, seed=1)
    assert task is not None and task.utterances == ["u01", "u02", "u03", "u04", "u05"]
    assert label_task("label", {"u00": "a", "u01": "a", "u02": "b"}, UTTERANCES, SYSTEMS, seed=1) is None
    assert mos_task("MOS", {"u00": 1.0, "u01": 2.0}, UTTERANCES, SYSTEMS, seed=1) is None


def features(seed: int = 0, width: int = 8) -> np.ndarray:
    """Return features with the talker as a linear component, and noise."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(5, width)) * 3
    return centres[[int(TALKERS[u][1:]) for u in UTTERANCES]] + random.normal(size=(60, width)) + 7


def test_probes_find_linear_labels_and_no_others() -> None:
    talker = label_task("talker", TALKERS, UTTERANCES, SYSTEMS, seed=1)
    kind = label_task("type", TYPES, UTTERANCES, SYSTEMS, seed=1)
    assert talker is not None and kind is not None
    found = probe(talker, features())
    assert found["accuracy"] > 0.95 and 0 <= found["sd"] < 0.1
    unread = probe(kind, features())
    assert unread["accuracy"] < 0.55  # chance is 1/3 for 60 utterances
    guesses = cross_validate(
        features(), np.array([kind.targets == name for name in sorted(set(kind.targets))]).T * 1.0, kind.folds
    )
    right = np.array(sorted(set(kind.targets)))[guesses.argmax(1)] == kind.targets
    assert unread["sd"] == pytest.approx(np.std([right[kind.folds == fold].mean() for fold in range(FOLDS)], ddof=1))
    mos = mos_task(
        "MOS",
        {u: 1 + 4 * row[0] / 20 for u, row in zip(UTTERANCES, features(), strict=True)},
        UTTERANCES,
        SYSTEMS,
        seed=1,
    )
    assert mos is not None and not mos.labelled
    assert min(probe(mos, features()).values()) > 0.95
    for nothing in (np.random.default_rng(3).normal(size=(60, 8)), np.ones((60, 4))):
        assert probe(mos, nothing)["LCC"] < 0.3


@pytest.mark.parametrize("width", [6, 90])
def test_the_penalty_is_the_best_of_a_cross_validation_within_the_training_part(width: int) -> None:
    """The module leaves out each fold by a formula; this test fits without the fold."""
    random = np.random.default_rng(2)
    inputs = random.normal(size=(60, width)) * random.uniform(0.5, 2, width) + 3
    targets = inputs[:, :3] @ random.normal(size=(3, 2)) + random.normal(size=(60, 2))
    folds = np.arange(60) % 5

    def fit(penalty: float, x: np.ndarray, y: np.ndarray, tested: np.ndarray) -> np.ndarray:
        return np.asarray(Ridge(penalty, solver="svd").fit(x, y).predict(tested))

    wanted, chosen = np.empty_like(targets), set()
    for fold in range(5):
        own = folds == fold
        scale = inputs[~own].std(0) * np.sqrt(width)
        x, y, inner = (inputs[~own] - inputs[~own].mean(0)) / scale, targets[~own], folds[~own]
        # The formula uses the mean of the whole training part; so subtract it and fit no intercept.
        errors = {}
        for penalty in ridge.PENALTIES:
            total = 0.0
            for left in set(inner):
                kept = inner != left
                model = Ridge(penalty, solver="svd", fit_intercept=False).fit(x[kept], y[kept] - y.mean(0))
                total += np.square(y[~kept] - y.mean(0) - model.predict(x[~kept])).sum()
            errors[penalty] = total
        best = min(errors, key=errors.__getitem__)
        chosen.add(best)
        wanted[own] = fit(best, x, y, (inputs[own] - inputs[~own].mean(0)) / scale)
    assert cross_validate(inputs, targets, folds) == pytest.approx(wanted, rel=1e-6)
    assert chosen & set(ridge.PENALTIES[1:-1])
