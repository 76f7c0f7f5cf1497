"""Degradations, listeners and random draws of simulated corpora."""

from collections import defaultdict

import numpy as np
import pytest
from helpers.corpora import clean_speech

from distilmos.simulation.degrade import DEGRADATIONS, TALKER, add_talker, at_level, level_of, segmental_snr
from distilmos.simulation.draw import Ring, generator_of
from distilmos.simulation.listeners import QUALITY_LOSS, make_listeners, simulate_ratings, true_quality


@pytest.fixture
def speech():
    return at_level(clean_speech()[0])


@pytest.mark.parametrize("kind", sorted(set(DEGRADATIONS) - {"clean", "skip"}))
def test_a_degradation_grows_with_its_strength(kind, speech):
    if kind == "warble":  # shifts speech by more than a period, so only a slow tone shows how far
        speech = at_level(np.sin(2 * np.pi * 20 * np.arange(32000) / 16000))
    if kind in ("loss", "stutter"):  # in two seconds, the two lowest strengths lose one packet each
        speech = np.tile(speech, 5)
    change = []
    for strength in (0.0, 0.25, 0.5, 0.75, 1.0):
        degraded = DEGRADATIONS[kind](speech, strength, np.random.default_rng(3))
        assert degraded.shape == speech.shape
        assert degraded.dtype == np.float32
        assert np.isfinite(degraded).all()
        np.testing.assert_array_equal(degraded, DEGRADATIONS[kind](speech, strength, np.random.default_rng(3)))
        change.append(np.square(degraded - speech).sum())
    assert all(np.diff(change) > 0), change


def test_skip_removes_more_with_strength_and_keeps_the_order():
    numbers = np.arange(200000, 360000, dtype=np.float32)
    kept = []
    for strength in (0.0, 0.25, 0.5, 0.75, 1.0):
        heard = DEGRADATIONS["skip"](numbers, strength, np.random.default_rng(3))
        kept.append(len(np.unique(heard)))
        assert all(np.diff(heard[: kept[-1]]) > 0)
        np.testing.assert_array_equal(heard[kept[-1] :], heard[: 160000 - kept[-1]])
    assert kept[0] == 160000 - 320 and kept[-1] == pytest.approx(0.55 * 160000, abs=1300)
    assert all(np.diff(kept) < 0)


def test_packets_are_lost_at_any_place_and_in_recordings_of_any_length():
    """A model with 10 ms frames must not learn that packet edges are always at the same place in a frame."""
    joints = set()
    for seed in range(8):
        heard = DEGRADATIONS["loss"](np.ones(16000, np.float32), 0.0, np.random.default_rng(seed))
        joints.add(np.flatnonzero(heard == 0)[0] % 160)
        for size in (1, 100, 321):
            assert DEGRADATIONS["loss"](np.ones(size, np.float32), 1.0, np.random.default_rng(seed)).size == size
    assert len(joints) > 4


def test_segmental_snr_of_noise_is_its_snr(speech):
    steady = at_level(np.random.default_rng(1).standard_normal(32000))
    degraded = DEGRADATIONS["noise"](steady, 0.5, np.random.default_rng(2))
    assert segmental_snr(steady, degraded) == pytest.approx(25, abs=0.3)
    assert segmental_snr(speech, speech) == 35


def test_true_quality_falls_with_strength_and_rises_with_snr():
    assert set(QUALITY_LOSS) == {TALKER, *DEGRADATIONS}
    for kind in set(QUALITY_LOSS) - {"clean"}:
        qualities = [true_quality(kind, strength, 0.0) for strength in np.linspace(0, 1, 11)]
        assert all(np.diff(qualities) < 0)
        assert 1 < qualities[-1] < qualities[0] < 5
        assert 0 < true_quality(kind, 0.5, 2.0) - true_quality(kind, 0.5, -2.0) < 0.2


def test_listeners_rate_around_the_true_quality_with_their_own_bias():
    listeners = make_listeners(24, np.random.default_rng(1))
    rng = np.random.default_rng(2)
    scores = defaultdict(list)
    for _ in range(400):
        for listener, score in simulate_ratings(3.2, listeners, 8, rng):
            scores[listener].append(score)
    assert np.mean([np.mean(values) for values in scores.values()]) == pytest.approx(3.2, abs=0.05)
    for listener in listeners:
        assert np.mean(scores[listener.id]) == pytest.approx(3.2 + listener.bias, abs=0.3)
    assert {score for values in scores.values() for score in values} <= {1, 2, 3, 4, 5}
    for extreme, score in ((0.0, 1), (7.0, 5)):
        assert {value for _, value in simulate_ratings(extreme, listeners, 24, rng)} == {score}


@pytest.mark.parametrize("kind", sorted(set(DEGRADATIONS)))
@pytest.mark.parametrize("samples", [400, 511, 700])
def test_very_short_recordings_can_be_degraded(kind, samples, speech):
    for seed in range(5):
        degraded = DEGRADATIONS[kind](speech[4000 : 4000 + samples], 1.0, np.random.default_rng(seed))
        assert degraded.shape == (samples,)
        assert np.isfinite(degraded).all() and degraded.any()


def test_another_talker_has_the_level_of_the_whole_recording(speech):
    other = np.concatenate([clean_speech()[7], np.zeros(48000, np.float32)])
    added = [add_talker(speech, other, 0.5, np.random.default_rng(seed)) - speech for seed in range(40)]
    wanted = level_of(speech) - 17.5 - level_of(other)
    for part in added:
        assert np.abs(part).max() <= 1.001 * np.abs(other).max() * 10 ** (wanted / 20)
    peaks = [np.abs(part).max() for part in added]
    assert min(peaks) < max(peaks) / 2  # some contain only the pause


def test_added_names_change_few_successors_on_a_ring():
    names = [f"utterance{number}" for number in range(400)]
    few, many = Ring(names[:200]), Ring(names)
    before = {name: next(few.after(name, 1)) for name in names[:200]}
    assert all(name != other for name, other in before.items())
    assert len(set(before.values())) > 50
    after = {name: next(many.after(name, 1)) for name in names[:200]}
    assert all(after[name] in (other, *names[200:]) for name, other in before.items())
    assert sum(after[name] == other for name, other in before.items()) > 60
    assert sorted(Ring(names[:5]).after(names[0], 1)) == names[1:5]
    assert next(few.after(names[0], 1)) == next(Ring(reversed(names[:200])).after(names[0], 1))


def test_generators_differ_by_name_and_seed():
    first = generator_of("a", 1).integers(1 << 40)
    assert first == generator_of("a", 1).integers(1 << 40)
    assert first not in (generator_of("b", 1).integers(1 << 40), generator_of("a", 2).integers(1 << 40))
