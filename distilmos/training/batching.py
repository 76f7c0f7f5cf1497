"""Batches of recordings of similar length under a limit of padded samples, in an order made of seed and epoch alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from distilmos.data.packing import pack

# Recordings are sorted by length times exp(uniform(-JITTER, JITTER)): who shares a batch changes from epoch to epoch,
# and padding stays near JITTER / 2 of a batch where lengths vary widely.
JITTER = 0.1


class BatchPlan(NamedTuple):
    """Which recordings make up a batch.

    Attributes:
        epoch: counted from 0.
        place: of the batch in its epoch, counted from 0.
        members: indices of the recordings.
    """

    epoch: int
    place: int
    members: tuple[int, ...]


def epoch_batches(lengths: Sequence[int], budget: int, seed: int, epoch: int) -> list[tuple[int, ...]]:
    """Return the batches of one epoch, in the order of training: a function of its arguments and nothing else.

    Every process of a distributed training would compute the same list and take its share.
    """
    random = np.random.default_rng([seed, epoch])
    jittered = np.log(np.asarray(lengths, dtype=np.float64)) + random.uniform(-JITTER, JITTER, len(lengths))
    # From long to short, so that what is left over for the last batch is short and finds a partner.
    batches = pack(np.argsort(-jittered, kind="stable").tolist(), lengths, budget)
    return [batches[place] for place in random.permutation(len(batches))]


def training_stream(lengths: Sequence[int], budget: int, seed: int, epoch: int, place: int) -> Iterator[BatchPlan]:
    """Yield batches without end, epoch after epoch, from batch `place` of `epoch` on."""
    while True:
        for number, members in enumerate(epoch_batches(lengths, budget, seed, epoch)):
            if number >= place:
                yield BatchPlan(epoch, number, members)
        epoch, place = epoch + 1, 0


def first_epoch(lengths: Sequence[int], budget: int, seed: int) -> list[BatchPlan]:
    """Return the batches that a training begins with, one pass over all recordings."""
    return [BatchPlan(0, place, members) for place, members in enumerate(epoch_batches(lengths, budget, seed, 0))]


def evaluation_plans(lengths: Sequence[int], budget: int) -> list[BatchPlan]:
    """Return one pass over all recordings, sorted by length, so that padding is smallest."""
    order = sorted(range(len(lengths)), key=lambda member: -lengths[member])
    return [BatchPlan(0, place, members) for place, members in enumerate(pack(order, lengths, budget))]
