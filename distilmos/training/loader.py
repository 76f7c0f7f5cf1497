"""Reads batches of recordings with their scores and tokens, in worker processes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from distilmos.data.audio import read_audio
from distilmos.errors import InputError
from distilmos.model.losses import NO_TOKEN
from distilmos.model.offsets import UNKNOWN
from distilmos.training.batching import BatchPlan
from distilmos.training.preemption import outlive_stop_signals
from distilmos.training.ratedset import RatedSet


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
        mos: float (B,).
        corpora: numbers of the corpora, long (B,); UNKNOWN for an unknown corpus.
        ratings: single ratings; None if the reader does not read them.
        tokens: long (B, target layers, T), NO_TOKEN at padding; None without tokens.
    """

    plan: BatchPlan
    utterances: tuple[str, ...]
    audio: Tensor
    num_samples: Tensor
    mos: Tensor
    corpora: Tensor
    ratings: BatchRatings | None
    tokens: Tensor | None

    def to(self, device: torch.device) -> Batch:
        """Return the batch with its tensors on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory; called by torch's DataLoader."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return replace(
            self,
            audio=change(self.audio),
            num_samples=change(self.num_samples),
            mos=change(self.mos),
            corpora=change(self.corpora),
            ratings=None if self.ratings is None else self.ratings.map(change),
            tokens=None if self.tokens is None else change(self.tokens),
        )


class BatchReader(Dataset):
    """Reads the batch of a plan. Runs in worker processes; draws no random numbers."""

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

    def __getitem__(self, plan: BatchPlan) -> Batch | InputError:
        """Return the batch, or the error of a recording: raised in a worker, it would arrive with a traceback."""
        try:
            return self._read(plan)
        except InputError as error:
            return error

    def _read(self, plan: BatchPlan) -> Batch:
        data = self.data
        if not plan.members:
            none = torch.zeros(0, dtype=torch.long)
            return Batch(plan, (), torch.zeros(0, 0), none, torch.zeros(0), none, ratings=None, tokens=None)
        lengths = [data.num_samples[member] for member in plan.members]
        # Allocated by torch, which aligns memory: kernels may round differently at another alignment.
        audio = torch.zeros(len(lengths), max(lengths))
        for row, (member, length) in enumerate(zip(plan.members, lengths, strict=True)):
            samples = read_audio(*data.locations[member])
            if samples.size != length:
                raise InputError(
                    f"{data.path / 'utt2dur'}: {data.utterances[member]}: its duration gives {length} samples at "
                    f"16 kHz, {data.locations[member][0]} has {samples.size}; use a data directory of stage 1"
                )
            audio[row, :length] = torch.from_numpy(samples)
        return Batch(
            plan=plan,
            utterances=tuple(data.utterances[member] for member in plan.members),
            audio=audio,
            num_samples=torch.tensor(lengths),
            mos=torch.tensor([data.mos[member] for member in plan.members]),
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
            pairs = known or [(UNKNOWN, self.data.mos[member])]
            rows += [(place, listener, score, 1 / (len(members) * len(pairs))) for listener, score in pairs]
        member_column, listener_column, scores, weights = zip(*rows, strict=True)
        return BatchRatings(*map(torch.tensor, (member_column, listener_column, scores, weights)))

    def _tokens(self, members: tuple[int, ...]) -> Tensor | None:
        if self.data.tokens is None:
            return None
        sources = [self.data.tokens[member] for member in members]
        frames = max(tokens.shape[1] for tokens in sources)
        padded = torch.full((len(sources), sources[0].shape[0], frames), NO_TOKEN, dtype=torch.long)
        for row, tokens in enumerate(sources):
            padded[row, :, : tokens.shape[1]] = torch.from_numpy(tokens)
        return padded


def make_loader(reader: BatchReader, plans: Iterable[BatchPlan], num_workers: int, pin: bool) -> DataLoader:
    """Return a loader of the batches of `plans`; its worker processes, if any, end with it."""
    if num_workers:
        _keep_socket_paths_short()
    return DataLoader(
        reader,
        sampler=plans,
        batch_size=None,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=pin,
        worker_init_fn=outlive_stop_signals() if num_workers else None,
    )


def _keep_socket_paths_short() -> None:
    """Let multiprocessing create its sockets in /tmp if the path of the temporary directory is long.

    The path of a socket has at most 107 bytes, and the $TMPDIR of a cluster may be longer. Worker processes would then
    wait forever.
    """
    if len(os.fsencode(tempfile.gettempdir())) > 107 - len("/pymp-12345678/listener-12345678"):
        tempfile.tempdir = "/tmp"


def checked(item: Batch | InputError) -> Batch:
    """Return an item of a loader if it is a batch.

    Raises:
        InputError: if it is an error from a worker.
    """
    if isinstance(item, InputError):
        raise item
    return item
