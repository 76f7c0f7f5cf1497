"""The spectral branch: convolutions on log mel spectra, for distortions that a speech encoder may ignore.

After R. E. Zezario et al., "Deep learning-based non-intrusive multi-objective speech assessment model with cross-domain
features" (MOSA-Net), TASLP 2023, which scores spectra together with the hidden states of an SSL model.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.transforms import MelSpectrogram

from distilmos.data.audio import SAMPLE_RATE
from distilmos.model.processor import FrameNorm, norm_valid, strided_lengths
from distilmos.model.statistics import deviations
from distilmos.ssl.config import EncoderConfig
from distilmos.ssl.encoder import exporting
from distilmos.ssl.spectrum import power_spectrum
from distilmos.ssl.waveform import normalize_audio

WINDOW, HOP = 400, 160  # samples: 25 and 10 ms; the boundary of two packets is in two or three frames
BANDS = 64
FLOOR = 1e-8  # added to the power of a band, of audio normalised to unit variance: far below its noise
KERNEL, DEPTH = 5, 3


class _Block(nn.Module):
    """Convolution, batch norm over valid frames, GELU."""

    def __init__(self, source: int, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv1d(source, width, KERNEL, stride, padding=KERNEL // 2, bias=False)
        self.norm = FrameNorm(width)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, C, T), zero at padding, to (B, W, T'), zero at padding; return the new lengths (B,) too."""
        lengths = strided_lengths(lengths, self.stride)
        return F.gelu(norm_valid(self.norm, self.conv(x), lengths)), lengths


class SpectralBranch(nn.Module):
    """Log mel spectrogram, batch norm, blocks, and a score for each frame.

    The blocks have one frame each 10 ms; the stride of the last one leads to the frames of the network. The score of a
    recording, which is the mean of its frame scores, is a linear function of the means and the standard deviations of
    the channels over time. Each frame score includes the contribution of its frame to the deviations.
    """

    def __init__(self, width: int, hop: int, encoder: EncoderConfig, outputs: int) -> None:
        """Build blocks of `width` channels for a network on `encoder` with one frame each `hop` samples.

        Raises:
            ValueError: if `hop` is not a multiple of 10 ms, or `encoder` has frames where spectra have none.
        """
        super().__init__()
        # Lengths within one hop stand for all.
        lengths = range(encoder.min_samples, encoder.min_samples + encoder.hop)
        if hop % HOP or any(encoder.num_frames(n) * encoder.hop > n - WINDOW + encoder.hop for n in lengths):
            raise ValueError(
                f"spectral_dim needs an encoder with frames of at least {WINDOW} samples at multiples of {HOP}, not of "
                f"{encoder.min_samples} at multiples of {hop}"
            )
        with torch.device("cpu"):  # see `with_weights`
            self.mel = MelSpectrogram(SAMPLE_RATE, n_fft=WINDOW, hop_length=HOP, n_mels=BANDS, center=False)
        self.norm = FrameNorm(BANDS)
        strides = (1,) * (DEPTH - 1) + (hop // HOP,)
        self.blocks = nn.ModuleList(_Block(width if i else BANDS, width, stride) for i, stride in enumerate(strides))
        self.mean = nn.Linear(width, outputs)
        self.deviation = nn.Linear(width, outputs, bias=False)

    def forward(self, audio: Tensor, num_samples: Tensor, num_frames: Tensor) -> Tensor:
        """Score recordings.

        Args:
            audio: 16 kHz waveforms, zero padded (B, N).
            num_samples: valid samples of each (B,).
            num_frames: valid frames of the network (B,), of T frames.

        Returns:
            the terms that the branch adds to the frame scores (B, T', outputs), T' >= T; padded frames are unspecified.
        """
        # bfloat16 would keep only two digits of a spectrum.
        with torch.autocast(audio.device.type, enabled=False):
            normal = normalize_audio(audio, num_samples, FLOOR)
            if exporting():
                power = power_spectrum(normal, self.mel.spectrogram.window, HOP)
                bands = self.mel.mel_scale(power)
            else:
                bands = self.mel(normal)
            spectra = (bands + FLOOR).log()
        lengths = torch.div(num_samples - WINDOW, HOP, rounding_mode="floor") + 1
        frames = self._run_blocks(spectra, lengths)
        scores: Tensor = self.mean(frames) + self.deviation(deviations(frames, num_frames))
        return scores

    def without_recordings(self) -> Tensor:
        """Return a differentiable 0, from a forward pass of the batch norms alone."""
        nothing = self.norm.weight.new_zeros(0, BANDS, 1)
        return self._run_blocks(nothing, torch.zeros(0, dtype=torch.long, device=nothing.device)).sum()

    def _run_blocks(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Map spectra (B, 64, T) with `lengths` (B,) valid frames to frames (B, T', W), zero at padding."""
        x = norm_valid(self.norm, x, lengths)
        for block in self.blocks:
            x, lengths = block(x, lengths)
        return x.transpose(1, 2)
