"""Reads batches of recordings with their scores and tokens ahead of the training loop, in threads.

Reading waits for the disk or runs in C, both without Python's global lock, so threads do not slow down the loop. Unlike
processes, they need no shared memory, no pipes and no sockets, and nobody kills them alone.
"""

from __future__ import annotations

import platform
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from queue import SimpleQueue

import torch
from torch import Tensor

from distilmos.data.audio import read_audio
from distilmos.errors import FailedError, InputError, PreemptedError
from distilmos.model.losses import NO_TOKEN
from distilmos.model.offsets import UNKNOWN
from distilmos.preemption import StopRequest
from distilmos.training.batching import BatchPlan
from distilmos.training.ratedset import RatedSet

AHEAD = 2  # batches that each thread reads ahead
# Reading is stalled while no thread finishes a recording, which has at most `max_seconds`: a few MB. A slow disk that
# still delivers is never stalled.
WARN_SECONDS = 15  # of a stall until a warning
STALLED_SECONDS = 45  # of a stall until the run fails
STOP_SECONDS = 3  # to wait for a batch after a stop signal; Docker kills 10 s after it
CLOSE_SECONDS = 1.0  # to finish the current recordings at the end


@dataclass(frozen=True)
class BatchRatings:
    """The R single ratings of a batch of B recordings; the mean score of a recording stands for unknown ratings.

    Attributes:
        member: index of the recording, long (R,).
        listener: number of the listener, long (R,); UNKNOWN for an unknown listener.
        score: float (R,).
        weight: 1 / (B x number of ratings of the recording), float (R,): all recordings have equal weight.
    """

    member: Tensor
    listener: Tensor
    score: Tensor
    weight: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> BatchRatings:
        """Return a copy with `change` applied to each tensor."""
        return BatchRatings(*(change(t) for t in (self.member, self.listener, self.score, self.weight)))


@dataclass(frozen=True)
class Batch:
    """The share of one process of a batch: B recordings, zero padded.

    Attributes:
        plan: the recordings and their place in the epoch.
        utterances: ids; empty if the other processes have all recordings of the batch.
        audio: float (B, N).
        num_samples: long (B,).
        scores: of each target, float (B, targets); NaN where there is none.
        corpora: numbers of the corpora, long (B,); UNKNOWN for an unknown corpus.
        ratings: single ratings; None if the reader does not read them.
        tokens: long (B, target layers, T), NO_TOKEN at padding; None without tokens.
    """

    plan: BatchPlan
    utterances: tuple[str, ...]
    audio: Tensor
    num_samples: Tensor
    scores: Tensor
    corpora: Tensor
    ratings: BatchRatings | None
    tokens: Tensor | None

    def to(self, device: torch.device) -> Batch:
        """Return the batch with its tensors on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return replace(
            self,
            audio=change(self.audio),
            num_samples=change(self.num_samples),
            scores=change(self.scores),
            corpora=change(self.corpora),
            ratings=None if self.ratings is None else self.ratings.map(change),
            tokens=None if self.tokens is None else change(self.tokens),
        )


class BatchReader:
    """Reads the batch of a plan; draws no random numbers."""

    def __init__(self, data: RatedSet, corpora: tuple[str, ...] = (), listeners: tuple[str, ...] | None = None) -> None:
        """Prepare to read from `data`.

        Args:
            data: the recordings.
            corpora: names of the corpora, by number.
            listeners: names of the listeners, by number; None to read no single ratings.
        """
        self.data = data
        self._corpora = {name: number for number, name in enumerate(corpora)}
        self._listeners = None if listeners is None else {name: number for number, name in enumerate(listeners)}

    def read(self, plan: BatchPlan, starting: Callable[[Path], None] = lambda _: None) -> Batch:
        """Return the batch of `plan`.

        Args:
            plan: the recordings.
            starting: called with the audio file of each recording before it is read.

        Raises:
            InputError: if a recording cannot be read, or its length is not that of utt2dur.
        """
        data = self.data
        if not plan.members:
            none = torch.zeros(0, dtype=torch.long)
            unrated = torch.zeros(0, len(data.scales))
            return Batch(plan, (), torch.zeros(0, 0), none, unrated, none, ratings=None, tokens=None)
        lengths = [data.num_samples[member] for member in plan.members]
        # Allocated by torch, which aligns memory: kernels may round differently at another alignment. Filled by numpy:
        # torch would start as many threads for this thread as the training loop has.
        audio = torch.empty(len(lengths), max(lengths))
        padded = audio.numpy()
        for row, (member, length) in enumerate(zip(plan.members, lengths, strict=True)):
            starting(data.locations[member][0])
            samples = read_audio(*data.locations[member])
            if samples.size != length:
                raise InputError.at(
                    data.path / "utt2dur",
                    member + 1,  # the table has one line for each utterance, in the same order
                    f"{data.utterances[member]}: its duration gives {length} samples at 16 kHz, "
                    f"{data.locations[member][0]} has {samples.size}; use a data directory of stage 1",
                )
            padded[row, :length] = samples
            padded[row, length:] = 0
        return Batch(
            plan=plan,
            utterances=tuple(data.utterances[member] for member in plan.members),
            audio=audio,
            num_samples=torch.tensor(lengths),
            scores=torch.tensor(data.scores[list(plan.members)].tolist()),
            corpora=torch.tensor([self._corpus(member) for member in plan.members]),
            ratings=None if self._listeners is None else self._ratings(plan.members, self._listeners),
            tokens=self._tokens(plan.members),
        )

    def _corpus(self, member: int) -> int:
        return self._corpora.get(self.data.corpora[member], UNKNOWN) if self.data.corpora else UNKNOWN

    def _ratings(self, members: tuple[int, ...], listeners: dict[str, int]) -> BatchRatings:
        rows: list[tuple[int, int, float, float]] = []
        for place, member in enumerate(members):
            known = [(listeners.get(name, UNKNOWN), score) for name, score in self.data.ratings[member]]
            pairs = known or [(UNKNOWN, float(self.data.scores[member, 0]))]
            rows += [(place, listener, score, 1 / (len(members) * len(pairs))) for listener, score in pairs]
        member_column, listener_column, scores, weights = zip(*rows, strict=True)
        return BatchRatings(*map(torch.tensor, (member_column, listener_column, scores, weights)))

    def _tokens(self, members: tuple[int, ...]) -> Tensor | None:
        if self.data.tokens is None:
            return None
        sources = [self.data.tokens[member] for member in members]
        frames = max(tokens.shape[1] for tokens in sources)
        padded = torch.empty(len(sources), sources[0].shape[0], frames, dtype=torch.long)
        for row, tokens in zip(padded.numpy(), sources, strict=True):
            row[:, : tokens.shape[1]] = tokens
            row[:, tokens.shape[1] :] = NO_TOKEN
        return padded


@dataclass
class _Job:
    """A batch to read.

    Attributes:
        plan: the recordings.
        result: the batch, once it is read.
        files: the audio files of the recordings so far, the present one included.
    """

    plan: BatchPlan
    result: Future[Batch] = field(default_factory=Future)
    files: list[Path] = field(default_factory=list)


def read_batches(
    reader: BatchReader, plans: Iterable[BatchPlan], num_workers: int, device: torch.device, stop: StopRequest
) -> Generator[Batch]:
    """Yield the batches of `plans` in their order, read ahead by threads; close the iterator to end them.

    Args:
        reader: reads a batch.
        plans: the batches; may be endless.
        num_workers: number of threads; 0 reads each batch when it is asked for.
        device: of the network; for a GPU, batches are in page-locked memory.
        stop: ends the wait for a batch.

    Raises:
        InputError: if a recording cannot be read.
        FailedError: if reading is stalled for STALLED_SECONDS.
        PreemptedError: if a batch does not arrive within STOP_SECONDS of a stop signal.
    """
    plans = iter(plans)
    jobs: SimpleQueue[_Job | None] = SimpleQueue()
    pending: deque[_Job] = deque()
    # Daemons: a process does not wait at its end for a thread whose read never returns.
    threads = [
        threading.Thread(target=_work, args=(reader, jobs, device), daemon=True) for _ in range(max(1, num_workers))
    ]
    for thread in threads:
        thread.start()
    try:
        while True:
            for plan in islice(plans, 1 + AHEAD * num_workers - len(pending)):
                pending.append(_Job(plan))
                jobs.put(pending[-1])
            if not pending:
                return
            _await_first(pending, stop)
            yield pending.popleft().result.result()
    finally:
        for job in pending:
            job.result.cancel()
        for _ in threads:
            jobs.put(None)
        wait([job.result for job in pending], CLOSE_SECONDS)


def _work(reader: BatchReader, jobs: SimpleQueue[_Job | None], device: torch.device) -> None:
    """Read batches until a None comes."""
    if device.index is not None and device.type == "cuda":
        torch.cuda.set_device(device)  # otherwise pinning memory would open a context on the first GPU
    while (job := jobs.get()) is not None:
        if not job.result.set_running_or_notify_cancel():
            continue
        try:
            batch = reader.read(job.plan, job.files.append)
            job.result.set_result(batch.pin_memory() if device.type == "cuda" else batch)
        except BaseException as error:  # raised again where the batch is taken
            job.result.set_exception(error)


def _await_first(pending: Sequence[_Job], stop: StopRequest) -> None:
    """Wait until the first job is read; warn of a stalled read.

    Raises:
        FailedError, PreemptedError: as `read_batches`.
    """
    stalled = stopping = 0
    progress: list[int] = []
    # Seconds are counted, not measured: time during which the whole process is suspended is no stall.
    while not wait([pending[0].result], timeout=1).done:
        before, progress = progress, [len(job.files) + job.result.done() for job in pending]
        stalled = stalled + 1 if progress == before else 0
        stopping += bool(stop.signal)
        where = f"{pending[0].files[-1] if pending[0].files else 'audio'}: reading is stalled on {platform.node()}"
        if stopping >= STOP_SECONDS:
            raise PreemptedError(f"stopped by a signal; {where}")
        if stalled == WARN_SECONDS:
            print(f"{where}; the run fails in {STALLED_SECONDS - WARN_SECONDS} s", file=sys.stderr, flush=True)
        if stalled >= STALLED_SECONDS:
            raise FailedError(
                f"{where}: nothing came for {STALLED_SECONDS} s; check the disk, then run again to continue"
            )
