"""Batches: within the budget, each recording once in an epoch, reproducible, little padding."""

from __future__ import annotations

from itertools import combinations, islice, pairwise

import numpy as np
import pytest

from distilmos.data.packing import pack
from distilmos.training.batching import BatchOrder, deal, evaluation_plans


def epoch_batches(lengths: list[int], budget: int, seed: int, epoch: int) -> list[tuple[int, ...]]:
    plans = BatchOrder(lengths, budget, seed).epoch(epoch)
    assert [(plan.epoch, plan.place) for plan in plans] == [(epoch, place) for place in range(len(plans))]
    return [plan.members for plan in plans]


def some_lengths(seed: int, count: int = 500) -> list[int]:
    return np.random.default_rng(seed).integers(8000, 160000, count).tolist()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("budget", [320_000, 1_000_000])
def test_every_recording_once_and_never_over_the_budget(seed, budget):
    lengths = some_lengths(seed)
    batches = epoch_batches(lengths, budget, seed, epoch=3)
    assert sorted(member for batch in batches for member in batch) == list(range(len(lengths)))
    assert all(max(lengths[m] for m in batch) * len(batch) <= budget for batch in batches)
    # Two of the longest recordings fit the budget, so none is alone.
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


def test_batches_change_from_epoch_to_epoch():
    lengths = some_lengths(0)
    groups = [{frozenset(b) for b in epoch_batches(lengths, 1_000_000, 1, epoch)} for epoch in range(2)]
    assert len(groups[0] & groups[1]) < len(groups[0]) / 10


def test_a_stream_continues_where_it_was_left():
    lengths = some_lengths(0, count=40)
    whole = list(islice(BatchOrder(lengths, 320_000, 5).stream(0, 0), 60))
    assert whole[-1].epoch > 1
    for done in (1, 7, 23, 41):
        plan = whole[done - 1]
        rest = BatchOrder(lengths, 320_000, 5).stream(plan.epoch, plan.place + 1)
        assert list(islice(rest, 60 - done)) == whole[done:]


def test_shares_are_kept_on_average():
    lengths = some_lengths(0, count=300)
    shares = [2.0] * 100 + [0.5] * 100 + [1.3] * 100
    order = BatchOrder(lengths, 1_000_000, 1, shares)
    times = np.zeros((20, 300), int)
    for epoch in range(20):
        for plan in order.epoch(epoch):
            assert max(lengths[m] for m in plan.members) * len(plan.members) <= 1_000_000
            np.add.at(times[epoch], list(plan.members), 1)
    assert (times[:, :100] == 2).all()
    assert set(times[:, 100:200].ravel()) == {0, 1}
    assert set(times[:, 200:].ravel()) == {1, 2}
    assert times[:, 100:200].mean() == pytest.approx(0.5, abs=0.04)
    assert times[:, 200:].mean() == pytest.approx(1.3, abs=0.04)
    assert (times[0] != times[1]).any()
    assert order.epoch(3) == BatchOrder(lengths, 1_000_000, 1, shares).epoch(3)


def test_evaluation_passes_over_all_once():
    lengths = some_lengths(0, count=33)
    plans = evaluation_plans(lengths, 320_000)
    assert sorted(m for plan in plans for m in plan.members) == list(range(33))


def test_a_recording_longer_than_the_budget_is_alone():
    assert pack([0, 1, 2], [500, 100, 100], 200) == [(0,), (1, 2)]


def padded(part: tuple[int, ...], lengths: list[int]) -> int:
    return max((lengths[member] for member in part), default=0) * len(part)


@pytest.mark.parametrize("seed", range(20))
def test_shares_are_as_even_as_cuts_of_the_sorted_batch_allow(seed):
    random = np.random.default_rng(seed)
    count, parts = int(random.integers(1, 9)), int(random.integers(2, 5))
    lengths = random.integers(8000, 160000, count).tolist()
    dealt = deal(random.permutation(count).tolist(), lengths, parts)
    assert len(dealt) == parts
    assert sorted(member for part in dealt for member in part) == list(range(count))
    order = sorted(range(count), key=lambda member: -lengths[member])
    bounds = ((0, *cuts, count) for used in range(parts) for cuts in combinations(range(1, count), used))
    sizes = (max(padded(tuple(order[a:b]), lengths) for a, b in pairwise(bound)) for bound in bounds)
    assert max(padded(part, lengths) for part in dealt) == min(sizes)


def test_shares_of_all_processes_are_the_batch():
    lengths = some_lengths(3, count=100)
    for plan in BatchOrder(lengths, 1_000_000, 1).epoch(2):
        shares = [plan.share(rank, 4, lengths) for rank in range(4)]
        assert sorted(member for share in shares for member in share.members) == sorted(plan.members)
        assert {tuple(sorted(share.all_members)) for share in shares} == {tuple(sorted(plan.members))}
        assert {(share.epoch, share.place) for share in shares} == {(plan.epoch, plan.place)}
        assert plan.share(0, 1, lengths) == plan
