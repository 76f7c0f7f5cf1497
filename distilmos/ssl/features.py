"""Features of the waveform in place of an encoder: what stages 2 and 4 make tokens of, without a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from distilmos.data.audio import SAMPLE_RATE
from distilmos.ssl.config import count_frames
from distilmos.ssl.encoder import weights_hash
from distilmos.ssl.known import BEST_RQ, MFCC

WINDOW, SHIFT = 400, 160  # samples; Kaldi's default
EVERY = 2  # frames of SHIFT for each frame of HuBERT


@dataclass(frozen=True)
class FeatureShape:
    """The part of an encoder's configuration that stages 2 and 4 use."""

    num_layers: int = 1

    def num_frames(self, num_samples: int) -> int:
        """Return the number of frames for `num_samples` samples, which is HuBERT's (50 frames a second)."""
        return count_frames([(WINDOW, SHIFT * EVERY)], num_samples)


class FrameFeatures(nn.Module, ABC):
    """Features of each frame, as the only "layer" of an encoder.

    Attributes:
        config: the shape.
        width: features D of a frame.
    """

    width: int

    def __init__(self) -> None:
        """Create the module."""
        super().__init__()
        self.config = FeatureShape()

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a text that differs from that of other features and of all encoders."""

    @abstractmethod
    def compute(self, waveform: Tensor) -> Tensor:
        """Return the features (T, D) of a waveform (N,) with at least one frame."""

    def forward(self, audio: Tensor, num_samples: Tensor) -> tuple[list[Tensor], Tensor]:
        """Compute the features.

        Args:
            audio: 16 kHz waveforms, zero padded, float (B, N).
            num_samples: numbers of valid samples, long (B,).

        Returns:
            one layer (B, T, D), zero at padding, and the numbers of valid frames, long (B,).
        """
        waveforms = [row[:length].float() for row, length in zip(audio, num_samples.tolist(), strict=True)]
        rows = [self.compute(wave) if len(wave) >= WINDOW else wave.new_zeros(0, self.width) for wave in waveforms]
        counts = torch.tensor([len(row) for row in rows], device=audio.device)
        return [pad_sequence(rows, batch_first=True)], counts


class MFCCFeatures(FrameFeatures):
    """MFCCs, the targets of the first iteration of HuBERT's pretraining.

    W.-N. Hsu et al., "HuBERT", TASLP 2021, section IV-B: 13 coefficients with their first and second differences.
    """

    width = 39

    def fingerprint(self) -> str:
        """Return a constant."""
        return "mfcc39"

    def compute(self, waveform: Tensor) -> Tensor:
        """Return the features (T, 39) of a waveform (N,)."""
        from torchaudio.compliance.kaldi import mfcc
        from torchaudio.functional import compute_deltas

        static = mfcc(waveform[None], sample_frequency=SAMPLE_RATE, use_energy=False).T
        first = compute_deltas(static)
        return torch.cat([static, first, compute_deltas(first)]).T[::EVERY]


class BestRQFeatures(FrameFeatures):
    """Random projections of log mel spectra, which BEST-RQ quantises with a random codebook.

    C.-C. Chiu et al., "Self-supervised learning with random-projection quantizer for speech recognition", ICML 2022,
    section 3.1. Each band gets zero mean and unit variance within a recording, in the paper over the corpus. So these
    features do not know the level of a recording and the mean slope of its spectrum.
    """

    BANDS = 80
    SEED = 2022  # any: the matrix belongs to the features, and a seed of the recipe draws the codebook
    width = 16

    projection: Tensor

    def __init__(self) -> None:
        """Draw the projection (EVERY * BANDS, D) after X. Glorot, Y. Bengio, AISTATS 2010, equation 16."""
        super().__init__()
        size = (EVERY * self.BANDS, self.width)
        limit = np.sqrt(6 / sum(size))
        drawn = np.random.default_rng(self.SEED).uniform(-limit, limit, size)
        self.register_buffer("projection", torch.from_numpy(drawn.astype(np.float32)))

    def fingerprint(self) -> str:
        """Return a hash of the projection."""
        return weights_hash(self)

    def compute(self, waveform: Tensor) -> Tensor:
        """Return the features (T, 16) of a waveform (N,), vectors of length 1."""
        from torchaudio.compliance.kaldi import fbank

        mel = fbank(waveform[None], sample_frequency=SAMPLE_RATE, num_mel_bins=self.BANDS)
        mel = (mel - mel.mean(0)) / (mel.std(0, correction=0) + 1e-5)  # a band may be constant, as in silence
        if len(mel) % EVERY:
            mel = torch.cat([mel, mel[-1:]])  # the last frame has no successor
        return F.normalize(mel.reshape(-1, EVERY * self.BANDS) @ self.projection)


FEATURES: dict[str, type[FrameFeatures]] = {MFCC: MFCCFeatures, BEST_RQ: BestRQFeatures}
