"""Batches of recordings of similar length under a limit of padded samples, in an order made of seed and epoch alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from distilmos.data.packing import pack, pack_by_length

# Recordings are sorted by length times exp(uniform(-JITTER, JITTER)): who shares a batch changes from epoch to epoch,
# and padding stays below JITTER of a batch where lengths vary widely.
JITTER = 0.05


class BatchPlan(NamedTuple):
    """Which recordings make up a batch.

    Attributes:
        epoch: counted from 0.
        place: of the batch in its epoch, counted from 0.
        members: indices of the recordings; none, if other processes of a distributed training have all of them.
        others: of this batch too, but other processes have them.
    """

    epoch: int
    place: int
    members: tuple[int, ...]
    others: tuple[int, ...] = ()

    @property
    def all_members(self) -> tuple[int, ...]:
        """The recordings of the batch in all processes."""
        return self.members + self.others

    def share(self, rank: int, size: int, lengths: Sequence[int]) -> BatchPlan:
        """Return the part of process `rank` of `size`; the parts are near each other in padded samples.

        Args:
            rank: number of the process, counted from 0.
            size: number of processes.
            lengths: samples of each recording of the set.
        """
        if size == 1:
            return self
        parts = deal(self.members, lengths, size)
        others = tuple(member for number, part in enumerate(parts) if number != rank for member in part)
        return self._replace(members=parts[rank], others=others)


@dataclass(frozen=True)
class BatchOrder:
    """What decides the batches of a training.

    Attributes:
        lengths: samples of each recording.
        budget: largest padded number of samples of a batch.
        seed: of the order.
        shares: how often each recording is drawn in an epoch, on average; None draws each once.
    """

    lengths: Sequence[int]
    budget: int
    seed: int
    shares: Sequence[float] | None = None

    def epoch(self, epoch: int) -> list[BatchPlan]:
        """Return the batches of one epoch, in the order of training: a function of this order and nothing else.

        Every process of a distributed training computes the same list and takes its share of each.
        """
        random = np.random.default_rng([self.seed, epoch])
        members = np.arange(len(self.lengths))
        if self.shares is not None:
            # A share of 1.3 is one time in each epoch, and a second time in three of ten.
            times = np.floor(np.asarray(self.shares) + random.uniform(0, 1, members.size)).astype(int)
            members = np.repeat(members, times)
        jittered = np.log(np.asarray(self.lengths, dtype=np.float64))[members]
        jittered = jittered + random.uniform(-JITTER, JITTER, members.size)
        # From long to short, so that what is left over for the last batch is short and finds a partner.
        order = members[np.argsort(-jittered, kind="stable")]
        batches = pack(order.tolist(), self.lengths, self.budget)
        places = random.permutation(len(batches))
        return [BatchPlan(epoch, number, batches[place]) for number, place in enumerate(places)]

    def stream(self, epoch: int, place: int) -> Iterator[BatchPlan]:
        """Yield batches without end, epoch after epoch, from batch `place` of `epoch` on."""
        while True:
            yield from self.epoch(epoch)[place:]
            epoch, place = epoch + 1, 0


def evaluation_plans(lengths: Sequence[int], budget: int) -> list[BatchPlan]:
    """Return one pass over all recordings, sorted by length, so that padding is smallest."""
    return [BatchPlan(0, place, members) for place, members in enumerate(pack_by_length(lengths, budget))]


def deal(members: Sequence[int], lengths: Sequence[int], parts: int) -> list[tuple[int, ...]]:
    """Cut recordings, from long to short, into parts whose largest padded size is as small as such cuts allow.

    All processes wait for the one with most to do, so it is the largest part that counts.

    Args:
        members: indices of the recordings.
        lengths: samples of each recording of the set.
        parts: how many; some stay empty if there are fewer recordings.
    """
    order = sorted(members, key=lambda member: -lengths[member])
    # The smallest budget for which no more parts are needed than there are.
    low, high = 0, len(order) * lengths[order[0]]
    while low + 1 < high:
        middle = (low + high) // 2
        if len(pack(order, lengths, middle)) <= parts:
            high = middle
        else:
            low = middle
    cut = pack(order, lengths, high)
    return [*cut, *[()] * (parts - len(cut))]
