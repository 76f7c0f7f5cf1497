"""A bounded sample of utterances and frames, run through one encoder, or through two side by side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distilmos.analysis.material import Material
from distilmos.data.audio import SAMPLE_RATE
from distilmos.data.tables import c_locale_key
from distilmos.errors import InputError
from distilmos.ssl.encoder import SSLEncoder
from distilmos.ssl.forward import hidden_states
from distilmos.tokens.features import sample_frames

HELD_OUT = 5  # one utterance of so many tests what the others have taught a reader of tokens
BLOCK_FRAMES = 512  # frames of several utterances are taken together: large products are fast ones

States = list[list[Tensor]]


@dataclass(frozen=True)
class Block:
    """Sampled frames of some utterances.

    Attributes:
        states: for each encoder the hidden states of its layers, L x (N, D).
        held_out: which of the frames are of held-out utterances, bool (N,).
    """

    states: States
    held_out: Tensor


class Sample:
    """Which utterances and frames are looked at, and their hidden states in each encoder.

    Attributes:
        utterances: the chosen ones, in the C locale's order.
        held_out: those of them that test a reader of tokens.
        frames: utterance -> chosen frames, sorted.
        seconds: how much speech that is.
    """

    def __init__(
        self,
        material: Material,
        encoders: Sequence[SSLEncoder],
        device: torch.device,
        batch_seconds: float,
        max_frames: int,
        seed: int,
    ) -> None:
        """Choose.

        Args:
            material: the recordings.
            encoders: in evaluation mode, on `device`, all with the same number of frames.
            device: where to compute.
            batch_seconds: padded seconds in one forward pass.
            max_frames: how many frames to choose, of as many utterances as hold ten times so many.
            seed: of the choice.

        Raises:
            InputError: if fewer than two utterances are long enough.
        """
        count = encoders[0].config.num_frames
        counts = {u: count(round(material.durations[u] * SAMPLE_RATE)) for u in sorted(material.wavs, key=c_locale_key)}
        self.frames = sample_frames(counts, max_frames, seed)
        self.utterances = list(self.frames)
        if len(self.utterances) < 2:
            raise InputError(f"{', '.join(map(str, material.paths))}: an analysis needs at least two utterances")
        self.seconds = sum(material.durations[u] for u in self.utterances)
        order = np.random.default_rng(seed).permutation(len(self.utterances))
        share = -(-len(self.utterances) // HELD_OUT)
        self.held_out = frozenset(self.utterances[place] for place in order[:share])
        self._material = material
        self._encoders = encoders
        self._device = device
        self._batch_seconds = batch_seconds

    def states(self, utterances: Iterable[str]) -> Iterator[tuple[str, States]]:
        """Yield utterances and their hidden states: for each encoder those of its layers, L x (T, D)."""
        durations = {utterance: self._material.durations[utterance] for utterance in utterances}
        wavs = {utterance: self._material.wavs[utterance] for utterance in durations}
        passes = [hidden_states(e, wavs, durations, self._device, self._batch_seconds) for e in self._encoders]
        for found in zip(*passes, strict=True):
            yield found[0][0], [layers for _, layers in found]

    def blocks(self, states: Iterable[tuple[str, States]]) -> Iterator[Block]:
        """Yield the chosen frames of what `states` gave, those of many utterances together."""
        waiting: list[tuple[States, bool]] = []
        held = 0
        for utterance, encoders in states:
            index = torch.from_numpy(self.frames[utterance]).to(self._device)
            waiting.append(([[layer[index] for layer in layers] for layers in encoders], utterance in self.held_out))
            held += len(index)
            if held >= BLOCK_FRAMES:
                yield _joined(waiting)
                waiting, held = [], 0
        if waiting:
            yield _joined(waiting)


def _joined(parts: list[tuple[States, bool]]) -> Block:
    of_encoders = zip(*(states for states, _ in parts), strict=True)
    states = [[torch.cat(pieces) for pieces in zip(*layers, strict=True)] for layers in of_encoders]
    flags = [torch.full((len(states[0][0]),), held_out) for states, held_out in parts]
    return Block(states, torch.cat(flags).to(states[0][0].device))
