"""MFCCs in place of an encoder: targets for the first iteration of HuBERT's pretraining.

W.-N. Hsu et al., "HuBERT", TASLP 2021, section IV-B: 13 coefficients with their first and second differences.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from distilmos.data.audio import SAMPLE_RATE
from distilmos.ssl.config import count_frames

MFCC = "mfcc"  # given as the name of an encoder
WINDOW, SHIFT = 400, 160  # samples; Kaldi's default
EVERY = 2  # every second frame is kept, which is HuBERT's frame rate


@dataclass(frozen=True)
class MFCCShape:
    """The part of an encoder's configuration that stages 2 and 4 use."""

    num_layers: int = 1

    def num_frames(self, num_samples: int) -> int:
        """Return the number of frames for `num_samples` samples (50 frames a second)."""
        return count_frames([(WINDOW, SHIFT * EVERY)], num_samples)


class MFCCFeatures(nn.Module):
    """39 features per frame, as the only "layer" of an encoder."""

    def __init__(self) -> None:
        """Create the module, which has no weights."""
        super().__init__()
        self.config = MFCCShape()

    def fingerprint(self) -> str:
        """Return a constant that no encoder has as its hash."""
        return "mfcc39"

    def forward(self, audio: Tensor, num_samples: Tensor) -> tuple[list[Tensor], Tensor]:
        """Compute the features.

        Args:
            audio: 16 kHz waveforms, zero padded, float (B, N).
            num_samples: numbers of valid samples, long (B,).

        Returns:
            one layer (B, T, 39), zero at padding, and the numbers of valid frames, long (B,).
        """
        rows = [_features(row[:length]) for row, length in zip(audio, num_samples.tolist(), strict=True)]
        counts = torch.tensor([len(row) for row in rows], device=audio.device)
        return [pad_sequence(rows, batch_first=True)], counts


def _features(waveform: Tensor) -> Tensor:
    """Return the features (T, 39) of a waveform (N,); T is 0 if it is shorter than a frame."""
    from torchaudio.compliance.kaldi import mfcc
    from torchaudio.functional import compute_deltas

    if len(waveform) < WINDOW:
        return waveform.new_zeros(0, 39)
    static = mfcc(waveform[None].float(), sample_frequency=SAMPLE_RATE, use_energy=False).T
    first = compute_deltas(static)
    return torch.cat([static, first, compute_deltas(first)]).T[::EVERY]
