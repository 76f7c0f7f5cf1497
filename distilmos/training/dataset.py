"""What training reads: recordings with their mean scores and the tokens of the frozen encoder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from distilmos.data.audio import SAMPLE_RATE, read_audio
from distilmos.data.datadir import DataDir, read_data_dir
from distilmos.errors import InputError, raise_faults
from distilmos.model.losses import NO_TOKEN
from distilmos.ssl.encoder import SSLEncoder
from distilmos.tokens.info import TokenInfo
from distilmos.tokens.labels import read_tokens
from distilmos.training.batching import BatchPlan


@dataclass(frozen=True)
class RatedSet:
    """The recordings of a data directory, in the C locale's order of their ids.

    Attributes:
        path: the data directory.
        utterances: ids.
        locations: audio file or archive, and byte offset, of each.
        num_samples: exact lengths at 16 kHz.
        mos: mean scores.
        systems: the system of each.
        notes: what must be shown beside results on this set, such as that its ratings are simulated.
        tokens: of each recording, integers (target layers, frames); None trains without them.
    """

    path: Path
    utterances: list[str]
    locations: list[tuple[Path, int | None]]
    num_samples: list[int]
    mos: list[float]
    systems: list[str]
    notes: str
    tokens: list[np.ndarray] | None

    @property
    def seconds(self) -> float:
        """Total duration."""
        return sum(self.num_samples) / SAMPLE_RATE

    def digest(self) -> str:
        """Return a hash of ids, lengths, scores, systems and tokens, which tells whether two sets are the same.

        The audio itself is not read for it, which would take minutes for a large corpus: other samples of exactly the
        same length, in the same directory, go unnoticed.
        """
        rows = zip(self.utterances, self.num_samples, self.mos, self.systems, strict=True)
        digest = hashlib.sha256(json.dumps(list(rows)).encode())
        for tokens in self.tokens or ():
            digest.update(np.ascontiguousarray(tokens).tobytes())
        return digest.hexdigest()[:16]


def read_rated_set(directory: str | Path, max_seconds: float) -> RatedSet:
    """Read a data directory of stage 1, whose utt2dur is exact.

    Raises:
        InputError: if the directory is faulty or has no scores, or naming the recordings longer than
            `max_seconds`: none is ever cut.
    """
    data: DataDir = read_data_dir(directory)
    utterances = data.utterances
    lines = {utterance: line for line, utterance in enumerate(data.durations, start=1)}
    faults = [
        f"{data.path / 'utt2dur'}:{lines[utterance]}: {utterance} lasts {data.durations[utterance]:.2f} s"
        for utterance in utterances
        if data.durations[utterance] > max_seconds
    ]
    raise_faults(
        faults, f"{data.path}: recordings longer than max_seconds ({max_seconds:g}): leave them out, or raise it"
    )
    return RatedSet(
        path=data.path,
        utterances=utterances,
        locations=[data.wavs[u] for u in utterances],
        num_samples=[round(data.durations[u] * SAMPLE_RATE) for u in utterances],
        mos=[data.mos[u] for u in utterances],
        systems=[data.systems[u] for u in utterances],
        notes=data.notes,
        tokens=None,
    )


def with_tokens(
    data: RatedSet, directory: str | Path, layers: tuple[int, ...], encoder: SSLEncoder
) -> tuple[RatedSet, TokenInfo]:
    """Read the tokens of `data` into memory (four bytes a frame and layer).

    Args:
        data: the recordings.
        directory: of stage 4.
        layers: target layers, counted from 1; none leaves the set without tokens.
        encoder: the one that is fine-tuned.

    Returns:
        the set with tokens, and where they come from.

    Raises:
        InputError: if another encoder made the tokens, or a recording has not exactly one valid token for each frame.
    """
    frames = map(encoder.config.num_frames, data.num_samples)
    counts = dict(zip(data.utterances, frames, strict=True))
    tokens, info = read_tokens(directory, layers, counts, encoder.fingerprint())
    return replace(data, tokens=[tokens[u] for u in data.utterances] if layers else None), info


@dataclass(frozen=True)
class Batch:
    """Recordings, zero padded.

    Attributes:
        plan: which recordings these are, and where in the epoch.
        utterances: their ids.
        audio: float (B, N).
        num_samples: long (B,).
        mos: float (B,).
        tokens: long (B, target layers, T), NO_TOKEN at padding; None without tokens.
    """

    plan: BatchPlan
    utterances: tuple[str, ...]
    audio: Tensor
    num_samples: Tensor
    mos: Tensor
    tokens: Tensor | None

    @property
    def num_token_frames(self) -> int:
        """Number of frames with tokens."""
        return 0 if self.tokens is None else int((self.tokens[:, 0] != NO_TOKEN).sum())

    def to(self, device: torch.device) -> Batch:
        """Return the batch with its tensors on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory; torch's DataLoader calls this."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Any) -> Batch:
        return replace(
            self,
            audio=change(self.audio),
            num_samples=change(self.num_samples),
            mos=change(self.mos),
            tokens=None if self.tokens is None else change(self.tokens),
        )


class BatchReader(Dataset):
    """Reads the batch of a plan; runs in worker processes and draws no random numbers."""

    def __init__(self, data: RatedSet) -> None:
        """Read from `data`."""
        self.data = data

    def __getitem__(self, plan: BatchPlan) -> Batch | InputError:
        """Return the batch, or the fault of a recording: raised in a worker it would arrive with a traceback."""
        try:
            return self._read(plan)
        except InputError as error:
            return error

    def _read(self, plan: BatchPlan) -> Batch:
        data = self.data
        lengths = [data.num_samples[member] for member in plan.members]
        # Allocated by torch, which aligns memory: kernels may round in another way where memory starts elsewhere.
        audio = torch.zeros(len(lengths), max(lengths))
        for row, (member, length) in enumerate(zip(plan.members, lengths, strict=True)):
            samples = read_audio(*data.locations[member])
            if samples.size != length:
                raise InputError(
                    f"{data.path / 'utt2dur'}: {data.utterances[member]}: {length} samples at 16 kHz by its duration, "
                    f"{samples.size} in {data.locations[member][0]}: training reads the directories of stage 1"
                )
            audio[row, :length] = torch.from_numpy(samples)
        return Batch(
            plan=plan,
            utterances=tuple(data.utterances[member] for member in plan.members),
            audio=audio,
            num_samples=torch.tensor(lengths),
            mos=torch.tensor([data.mos[member] for member in plan.members]),
            tokens=self._tokens(plan.members),
        )

    def _tokens(self, members: tuple[int, ...]) -> Tensor | None:
        if self.data.tokens is None:
            return None
        sources = [self.data.tokens[member] for member in members]
        frames = max(tokens.shape[1] for tokens in sources)
        padded = torch.full((len(sources), sources[0].shape[0], frames), NO_TOKEN, dtype=torch.long)
        for row, tokens in enumerate(sources):
            padded[row, :, : tokens.shape[1]] = torch.from_numpy(tokens)
        return padded


def make_loader(data: RatedSet, plans: Iterable[BatchPlan], num_workers: int, pin: bool) -> DataLoader:
    """Return a loader of the batches of `plans`; worker processes, if any, live as long as it does."""
    return DataLoader(
        BatchReader(data),
        sampler=plans,
        batch_size=None,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=pin,
    )


def checked(item: Batch | InputError) -> Batch:
    """Return a batch that a loader gave.

    Raises:
        InputError: the fault that the worker met.
    """
    if isinstance(item, InputError):
        raise item
    return item
