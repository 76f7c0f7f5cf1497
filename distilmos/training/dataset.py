"""What training reads: recordings with their mean scores and the tokens of the frozen encoder."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from distilmos.data.audio import SAMPLE_RATE, read_audio
from distilmos.data.datadir import DataDir, read_data_dir
from distilmos.errors import InputError, raise_faults
from distilmos.metrics import agreement, level_scores
from distilmos.model.losses import NO_TOKEN
from distilmos.model.offsets import UNKNOWN
from distilmos.ssl.encoder import SSLEncoder
from distilmos.tokens.info import TokenInfo
from distilmos.tokens.labels import read_tokens
from distilmos.training.batching import BatchPlan
from distilmos.training.preemption import outlive_stop_signals


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
        system_mos: true MOS of systems, where that is not the mean of their recordings here.
        notes: what must be shown beside results on this set, such as that its ratings are simulated.
        tokens: of each recording, integers (target layers, frames); None trains without them.
        corpora: the corpus of each, where several are mixed.
        ratings: (listener, score) pairs of each; an empty list where they are not known.
    """

    path: Path
    utterances: list[str]
    locations: list[tuple[Path, int | None]]
    num_samples: list[int]
    mos: list[float]
    systems: list[str]
    system_mos: dict[str, float]
    notes: str
    tokens: list[np.ndarray] | None
    corpora: list[str]
    ratings: list[list[tuple[str, float]]]

    @property
    def seconds(self) -> float:
        """Total duration."""
        return sum(self.num_samples) / SAMPLE_RATE

    def num_token_frames(self, members: Iterable[int]) -> int:
        """Return the number of frames with tokens of some of the recordings."""
        return 0 if self.tokens is None else sum(self.tokens[member].shape[1] for member in members)

    def agreement(self, predicted: Mapping[str, float]) -> dict[str, dict[str, float]]:
        """Return how well scores agree with this set's: level -> metric -> value.

        Where several corpora are mixed it is the mean over them: over all of their recordings together, a model that
        tells the corpora apart and nothing else would correlate, for each has a scale and a quality of its own.

        Args:
            predicted: utterance -> score, of every recording.
        """
        members: dict[str, list[int]] = {}
        for index in range(len(self.utterances)):
            members.setdefault(self.corpora[index] if self.corpora else "", []).append(index)
        each = []
        for chosen in members.values():
            names = [self.utterances[index] for index in chosen]
            rated = {name: self.mos[index] for name, index in zip(names, chosen, strict=True)}
            systems = {name: self.systems[index] for name, index in zip(names, chosen, strict=True)}
            levels = level_scores(rated, predicted, systems, self.system_mos)
            each.append({level: agreement(*scores) for level, scores in levels.items()})
        return {
            level: {metric: fmean(one[level][metric] for one in each) for metric in values}
            for level, values in each[0].items()
        }

    def moved(self, copies: Mapping[Path, Path]) -> RatedSet:
        """Return the same set, which reads copies (file -> copy) of its files."""
        return replace(self, locations=[(copies[file], offset) for file, offset in self.locations])

    def digest(self) -> str:
        """Return a hash of ids, lengths, scores, ratings, systems and tokens, by which two sets are the same.

        The audio itself is not read for it, which would take minutes for a large corpus: other samples of exactly the
        same length, in the same directory, go unnoticed.
        """
        rows = zip(self.utterances, self.num_samples, self.mos, self.systems, strict=True)
        systems = sorted(self.system_mos.items())
        digest = hashlib.sha256(json.dumps([list(rows), self.corpora, self.ratings, systems]).encode())
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
    refuse_long(data, max_seconds)
    utterances = data.utterances
    return RatedSet(
        path=data.path,
        utterances=utterances,
        locations=[data.wavs[u] for u in utterances],
        num_samples=[round(data.durations[u] * SAMPLE_RATE) for u in utterances],
        mos=[data.mos[u] for u in utterances],
        systems=[data.systems[u] for u in utterances],
        system_mos=data.system_mos,
        notes=data.notes,
        tokens=None,
        corpora=[data.corpora[u] for u in utterances] if data.corpora else [],
        ratings=[data.ratings.get(u, []) for u in utterances],
    )


def refuse_long(data: DataDir, max_seconds: float) -> None:
    """Check the durations of a data directory.

    Raises:
        InputError: naming the recordings longer than `max_seconds`.
    """
    lines = {utterance: line for line, utterance in enumerate(data.durations, start=1)}
    faults = [
        f"{data.path / 'utt2dur'}:{lines[utterance]}: {utterance} lasts {data.durations[utterance]:.2f} s"
        for utterance in data.utterances
        if data.durations[utterance] > max_seconds
    ]
    raise_faults(
        faults, f"{data.path}: recordings longer than max_seconds ({max_seconds:g}): leave them out, or raise it"
    )


def with_tokens(
    data: RatedSet, directory: str | Path, layers: tuple[int, ...], encoder: SSLEncoder, *, foreign: bool = False
) -> tuple[RatedSet, TokenInfo]:
    """Read the tokens of `data` into memory (four bytes a frame and layer).

    Args:
        data: the recordings.
        directory: of stage 4.
        layers: target layers, counted from 1; none leaves the set without tokens.
        encoder: the one that is fine-tuned.
        foreign: accepts tokens of another encoder, which must have as many layers.

    Returns:
        the set with tokens, and where they come from.

    Raises:
        InputError: if another encoder made the tokens (and that is not accepted), or a recording has not exactly one
            valid token for each frame.
    """
    frames = map(encoder.config.num_frames, data.num_samples)
    counts = dict(zip(data.utterances, frames, strict=True))
    tokens, info = read_tokens(directory, layers, counts, None if foreign else encoder.fingerprint())
    if info.layers != encoder.config.num_layers:
        raise InputError(f"{directory}: tokens of {info.layers} layers; the encoder has {encoder.config.num_layers}")
    return replace(data, tokens=[tokens[u] for u in data.utterances] if layers else None), info


@dataclass(frozen=True)
class BatchRatings:
    """The single ratings of a batch of B recordings; one without any has its mean score, by nobody known.

    Attributes:
        member: which recording, long (R,).
        listener: number of the listener, long (R,), UNKNOWN where that is not known.
        score: float (R,).
        weight: 1 / (B x number of ratings of the recording), float (R,): every recording counts the same.
    """

    member: Tensor
    listener: Tensor
    score: Tensor
    weight: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> BatchRatings:
        """Return the same with `change` made to each tensor."""
        return BatchRatings(*(change(t) for t in (self.member, self.listener, self.score, self.weight)))


@dataclass(frozen=True)
class Batch:
    """Recordings, zero padded.

    Attributes:
        plan: which recordings these are, and where in the epoch.
        utterances: their ids; none, if other processes of a distributed training have all of the batch.
        audio: float (B, N).
        num_samples: long (B,).
        mos: float (B,).
        corpora: numbers of their corpora, long (B,), UNKNOWN where that is not known.
        ratings: single ratings, where they are asked for.
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
        """Return the batch in page-locked memory; torch's DataLoader calls this."""
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
    """Reads the batch of a plan; runs in worker processes and draws no random numbers."""

    def __init__(self, data: RatedSet, corpora: tuple[str, ...] = (), listeners: tuple[str, ...] | None = None) -> None:
        """Read from `data`.

        Args:
            data: the recordings.
            corpora: their names by number.
            listeners: their names by number; None reads no single ratings.
        """
        self.data = data
        self._corpora = {name: number for number, name in enumerate(corpora)}
        self._listeners = None if listeners is None else {name: number for number, name in enumerate(listeners)}

    def __getitem__(self, plan: BatchPlan) -> Batch | InputError:
        """Return the batch, or the fault of a recording: raised in a worker it would arrive with a traceback."""
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
    """Return a loader of the batches of `plans`; worker processes, if any, live as long as it does."""
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
    """Let multiprocessing make its sockets in /tmp if the path of the temporary directory is long.

    A socket's path has 107 bytes at most. Worker processes wait for ever for what cannot be sent; a cluster's $TMPDIR
    may well be long.
    """
    if len(os.fsencode(tempfile.gettempdir())) > 107 - len("/pymp-12345678/listener-12345678"):
        tempfile.tempdir = "/tmp"


def checked(item: Batch | InputError) -> Batch:
    """Return a batch that a loader gave.

    Raises:
        InputError: the fault that the worker met.
    """
    if isinstance(item, InputError):
        raise item
    return item
