"""Groups recordings of similar length into batches of limited padded size; seed and epoch decide the order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from distilmos.data.audio import SAMPLE_RATE
from distilmos.data.packing import pack, pack_by_length
from distilmos.training.config import TrainConfig
from distilmos.training.ratedset import RatedSet

# Recordings are sorted by length times exp(uniform(-JITTER, JITTER)): batches differ from epoch to epoch, and if
# lengths vary widely, padding stays below JITTER of a batch.
JITTER = 0.05


class BatchPlan(NamedTuple):
    """The recordings of a batch.

    Attributes:
        epoch: counted from 0.
        place: of the batch in its epoch, counted from 0.
        members: indices of the recordings of this process; empty if the other processes have all of them.
        others: indices of the recordings of other processes.
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
        """Return the share of process `rank` of `size`; shares have similar padded sizes.

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
    """The order of batches in a run.

    Attributes:
        lengths: samples of each recording.
        budget: largest padded number of samples of a batch.
        seed: of the order.
        shares: how often an epoch draws each recording, on average; None draws each once.
    """

    lengths: Sequence[int]
    budget: int
    seed: int
    shares: Sequence[float] | None = None

    def epoch(self, epoch: int) -> list[BatchPlan]:
        """Return the batches of one epoch, in the order of training.

        Every process computes the same list, and takes its share of each batch.
        """
        random = np.random.default_rng([self.seed, epoch])
        members = np.arange(len(self.lengths))
        if self.shares is not None:
            # A share of 1.3 means once in every epoch, and twice in three epochs of ten.
            times = np.floor(np.asarray(self.shares) + random.uniform(0, 1, members.size)).astype(int)
            members = np.repeat(members, times)
        jittered = np.log(np.asarray(self.lengths, dtype=np.float64))[members]
        jittered = jittered + random.uniform(-JITTER, JITTER, members.size)
        # From long to short, so that the last batch gets short recordings and rarely a single one.
        order = members[np.argsort(-jittered, kind="stable")]
        batches = pack(order.tolist(), self.lengths, self.budget)
        places = random.permutation(len(batches))
        return [BatchPlan(epoch, number, batches[place]) for number, place in enumerate(places)]

    def stream(self, epoch: int, place: int) -> Iterator[BatchPlan]:
        """Yield batches epoch after epoch, forever, starting with batch `place` of `epoch`."""
        while True:
            yield from self.epoch(epoch)[place:]
            epoch, place = epoch + 1, 0


def training_order(data: RatedSet, config: TrainConfig) -> BatchOrder:
    """Return the order of batches of a run on the training set `data`."""
    shares = None
    if config.corpus_weights:
        shares = [config.corpus_weights.get(corpus, 1.0) for corpus in data.corpora]
    return BatchOrder(data.num_samples, round(config.batch_seconds * SAMPLE_RATE), config.seed, shares)


def evaluation_plans(lengths: Sequence[int], budget: int) -> list[BatchPlan]:
    """Return one pass over all recordings, sorted by length to minimise padding."""
    return [BatchPlan(0, place, members) for place, members in enumerate(pack_by_length(lengths, budget))]


def deal(members: Sequence[int], lengths: Sequence[int], parts: int) -> list[tuple[int, ...]]:
    """Cut the recordings, sorted from long to short, into parts so that the largest padded size is minimal.

    Only the largest part matters: all processes wait for it.

    Args:
        members: indices of the recordings.
        lengths: samples of each recording of the set.
        parts: number of parts; some are empty if there are fewer recordings.
    """
    order = sorted(members, key=lambda member: -lengths[member])
    # Find the smallest budget that needs at most `parts` parts.
    low, high = 0, len(order) * lengths[order[0]]
    while low + 1 < high:
        middle = (low + high) // 2
        if len(pack(order, lengths, middle)) <= parts:
            high = middle
        else:
            low = middle
    cut = pack(order, lengths, high)
    return [*cut, *[()] * (parts - len(cut))]
