"""Batches: under the budget, everything once an epoch, reproducible, little padding."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from distilmos.data.packing import pack
from distilmos.training.batching import epoch_batches, evaluation_plans, training_stream


def some_lengths(seed: int, count: int = 500) -> list[int]:
    return np.random.default_rng(seed).integers(8000, 160000, count).tolist()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("budget", [320_000, 1_000_000])
def test_every_recording_once_and_never_over_the_budget(seed, budget):
    lengths = some_lengths(seed)
    batches = epoch_batches(lengths, budget, seed, epoch=3)
    assert sorted(member for batch in batches for member in batch) == list(range(len(lengths)))
    assert all(max(lengths[m] for m in batch) * len(batch) <= budget for batch in batches)
    # The budget holds two of the longest, so nothing has to be alone.
    assert min(map(len, batches)) >= 2


def test_padding_is_small():
    lengths = some_lengths(0)
    batches = epoch_batches(lengths, 1_000_000, seed=1, epoch=0)
    padded = sum(max(lengths[m] for m in batch) * len(batch) for batch in batches)
    assert 1 - sum(lengths) / padded < 0.1
    random = np.random.default_rng(0).permutation(len(lengths)).tolist()
    unsorted = sum(max(lengths[m] for m in batch) * len(batch) for batch in pack(random, lengths, 1_000_000))
    assert 1 - sum(lengths) / unsorted > 0.3


def test_order_follows_from_seed_and_epoch_alone():
    lengths = some_lengths(0)
    first = epoch_batches(lengths, 1_000_000, seed=1, epoch=0)
    assert first == epoch_batches(lengths, 1_000_000, seed=1, epoch=0)
    assert first != epoch_batches(lengths, 1_000_000, seed=1, epoch=1)
    assert first != epoch_batches(lengths, 1_000_000, seed=2, epoch=0)


def test_companions_change_from_epoch_to_epoch():
    lengths = some_lengths(0)
    groups = [{frozenset(b) for b in epoch_batches(lengths, 1_000_000, 1, epoch)} for epoch in range(2)]
    assert len(groups[0] & groups[1]) < len(groups[0]) / 10


def test_a_stream_continues_where_it_was_left():
    lengths = some_lengths(0, count=40)
    whole = list(islice(training_stream(lengths, 320_000, 5, 0, 0), 60))
    assert whole[-1].epoch > 1
    for done in (1, 7, 23, 41):
        plan = whole[done - 1]
        rest = training_stream(lengths, 320_000, 5, plan.epoch, plan.place + 1)
        assert list(islice(rest, 60 - done)) == whole[done:]


def test_evaluation_passes_over_all_once():
    lengths = some_lengths(0, count=33)
    plans = evaluation_plans(lengths, 320_000)
    assert sorted(m for plan in plans for m in plan.members) == list(range(33))


def test_a_recording_longer_than_the_budget_is_alone():
    assert pack([0, 1, 2], [500, 100, 100], 200) == [(0,), (1, 2)]
