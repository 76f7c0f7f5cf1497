"""Sample utterances and frames, and run one or two encoders over them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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

HELD_OUT = 5  # one utterance in HELD_OUT tests the token probes; the others train them
BLOCK_FRAMES = 512  # frames of several utterances are joined to at least this many: large products are faster

States = list[list[Tensor]]


@dataclass(frozen=True)
class Block:
    """Sampled frames of some utterances.

    Attributes:
        states: for each encoder the hidden states of its layers, L x (N, D).
        held_out: whether a frame belongs to a held-out utterance, bool (N,).
    """

    states: States
    held_out: Tensor


@dataclass(frozen=True)
class Runner:
    """Encoders in evaluation mode on a device; all give the same number of frames.

    Attributes:
        encoders: the encoders.
        device: device of the forward pass.
        batch_seconds: padded seconds in one forward pass.
    """

    encoders: list[SSLEncoder]
    device: torch.device
    batch_seconds: float

    def frame_counts(self, material: Material) -> dict[str, int]:
        """Return utterance -> number of frames, in the order of the C locale."""
        count = self.encoders[0].config.num_frames
        return {u: count(round(material.durations[u] * SAMPLE_RATE)) for u in sorted(material.wavs, key=c_locale_key)}

    def readable(self, material: Material) -> list[str]:
        """Return the utterances that have at least one frame."""
        return [utterance for utterance, count in self.frame_counts(material).items() if count]

    def states(self, material: Material, utterances: Iterable[str]) -> Iterator[tuple[str, States]]:
        """Yield each utterance with its hidden states: for each encoder L x (T, D)."""
        durations = {utterance: material.durations[utterance] for utterance in utterances}
        wavs = {utterance: material.wavs[utterance] for utterance in durations}
        passes = [hidden_states(e, wavs, durations, self.device, self.batch_seconds) for e in self.encoders]
        for found in zip(*passes, strict=True):
            yield found[0][0], [layers for _, layers in found]


class Sample:
    """A bounded sample of utterances and frames, and their hidden states in each encoder.

    Attributes:
        utterances: sampled utterances in the order of the C locale.
        held_out: the sampled utterances that test the token probes.
        frames: utterance -> sampled frames, sorted.
        seconds: duration of the sampled utterances.
    """

    def __init__(self, material: Material, runner: Runner, max_frames: int, seed: int) -> None:
        """Draw the sample.

        Args:
            material: the recordings.
            runner: the encoders.
            max_frames: number of frames, drawn from utterances with about ten times as many (see `sample_frames`).
            seed: seed of the draws.

        Raises:
            InputError: if fewer than two utterances are long enough.
        """
        counts = runner.frame_counts(material)
        self.frames = sample_frames(counts, max_frames, seed)
        self.utterances = list(self.frames)
        if len(self.utterances) < 2:
            paths = ", ".join(map(str, material.paths))
            raise InputError(f"{paths}: an analysis needs at least 2 sampled utterances, not {len(self.frames)}")
        self.seconds = sum(material.durations[u] for u in self.utterances)
        order = np.random.default_rng(seed).permutation(len(self.utterances))
        share = -(-len(self.utterances) // HELD_OUT)
        self.held_out = frozenset(self.utterances[place] for place in order[:share])
        self._device = runner.device

    def blocks(self, states: Iterable[tuple[str, States]]) -> Iterator[Block]:
        """Yield the sampled frames of `states`, joined over several utterances."""
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
