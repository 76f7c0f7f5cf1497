"""Whisper's encoder: log mel spectrum, two convolutions, sinusoidal positions, pre-norm transformer.

A. Radford et al., "Robust speech recognition via large-scale weak supervision", ICML 2023. It is pretrained with
supervision (transcripts), unlike the encoders of `waveform`.

OpenAI's implementation extends every recording with silence to 30 s. Here positions start at 0 and end with the
recording, unless the configuration says `padded`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distilmos.data.audio import SAMPLE_RATE
from distilmos.ssl.config import WhisperConfig
from distilmos.ssl.encoder import SSLEncoder, exporting, valid_mask
from distilmos.ssl.spectrum import power_spectrum

FLOOR = 1e-10  # least power of a band
RANGE = 8.0  # decades below the loudest band of the recording, where the spectrum is cut


class WhisperEncoder(SSLEncoder):
    """Whisper's encoder without its final norm.

    Whisper's keys have no bias; here it starts at zero. It adds the same number to all scores of a query, so it never
    changes the attention, although AdamW moves it by the rounding errors of its gradient.
    """

    config: WhisperConfig
    conv: MelFrontEnd

    def __init__(self, config: WhisperConfig) -> None:
        """Create an encoder with random weights."""
        super().__init__(config, norm_first=True)
        self.conv = MelFrontEnd(config)
        self.register_buffer("positions", sinusoids(config.max_frames, config.embed_dim), persistent=False)
        self.positions: Tensor

    def embed(self, audio: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the input of the first layer (B, T, D), and the numbers of valid and of attended frames (B,)."""
        if self.config.padded:
            if audio.shape[1] < self.config.max_samples:
                audio = F.pad(audio, (0, self.config.max_samples - audio.shape[1]))
            attended = num_samples.clamp(min=self.config.max_frames * self.config.hop)
        else:
            attended = num_samples
        x, attended = self.conv(audio, attended)
        num_frames = _half(torch.div(num_samples, self.config.MEL_HOP, rounding_mode="floor"))
        return self.dropout(x + self.positions[: x.shape[1]].to(x.dtype)), num_frames, attended

    def forward(self, audio: Tensor, num_samples: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the hidden states of all layers; see `SSLEncoder.forward`."""
        layers, num_frames = super().forward(audio, num_samples)
        size = self.config.num_frames(audio.shape[1])
        return [layer[:, :size] for layer in layers], num_frames


class MelFrontEnd(nn.Module):
    """Log mel spectrum and two convolutions, the second with stride 2."""

    def __init__(self, config: WhisperConfig) -> None:
        """Create the convolutions."""
        super().__init__()
        self.mel = LogMel(config)
        width = config.embed_dim
        self.layers = nn.ModuleList(
            [nn.Conv1d(config.mel_bins, width, 3, padding=1), nn.Conv1d(width, width, 3, stride=2, padding=1)]
        )

    def forward(self, audio: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        """Return frames (B, T, D) and the numbers of valid frames (B,) for waveforms (B, N)."""
        x, lengths = self.mel(audio, num_samples)
        x = F.gelu(self.layers[0](x))
        # The second convolution reads a frame after the last one, which must be its zero padding.
        x = x * valid_mask(lengths, x.shape[2])[:, None, :]
        frames: Tensor = F.gelu(self.layers[1](x)).transpose(1, 2)
        return frames, _half(lengths)


class LogMel(nn.Module):
    """Whisper's log mel spectrum of 100 frames a second; it has no weights."""

    def __init__(self, config: WhisperConfig) -> None:
        """Compute window and filters (Slaney's scale and norm)."""
        super().__init__()
        from torchaudio.functional import melscale_fbanks

        self.size, self.hop = config.MEL_WINDOW, config.MEL_HOP
        with torch.device("cpu"):  # see `with_weights`
            filters = melscale_fbanks(
                *(self.size // 2 + 1, 0.0, SAMPLE_RATE / 2, config.mel_bins, SAMPLE_RATE),
                norm="slaney",
                mel_scale="slaney",
            )
            window = torch.hann_window(self.size)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", filters.T.contiguous(), persistent=False)
        self.window: Tensor
        self.filters: Tensor

    def forward(self, audio: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        """Return the spectra (B, M, T), zero at padding, and the numbers of valid frames (B,), of waveforms (B, N)."""
        # bfloat16 would keep only two digits of a spectrum.
        with torch.autocast(audio.device.type, enabled=False):
            power = self._power(_reflect(audio.float(), num_samples, self.size // 2))[:, :, :-1]
            spectra = (self.filters @ power).clamp(min=FLOOR).log10()
            lengths = torch.div(num_samples, self.hop, rounding_mode="floor")
            mask = valid_mask(lengths, spectra.shape[2])[:, None, :]
            loudest = spectra.masked_fill(~mask, -math.inf).amax((1, 2), keepdim=True)
            return (torch.maximum(spectra, loudest - RANGE) + 4) / 4 * mask, lengths

    def _power(self, audio: Tensor) -> Tensor:
        if exporting():
            return power_spectrum(audio, self.window, self.hop)
        frames = torch.stft(audio, self.size, self.hop, window=self.window, center=False, return_complex=True)
        return frames.real.square() + frames.imag.square()


def _reflect(audio: Tensor, num_samples: Tensor, size: int) -> Tensor:
    """Extend each waveform (B, N) by `size` samples at both ends of its `num_samples` (B,), mirrored: (B, N + 2 size).

    The sample at the end is not repeated, as in `reflect` of torch.stft.
    """
    steps = torch.arange(1, size + 1, device=audio.device)
    start = audio[:, steps.clamp(max=audio.shape[1] - 1)].flip(1)
    ends = num_samples[:, None] + steps - 1
    mirrored = audio.gather(1, (num_samples[:, None] - 1 - steps).clamp(min=0))
    return torch.cat([start, F.pad(audio, (0, size)).scatter(1, ends, mirrored)], 1)


def _half(lengths: Tensor) -> Tensor:
    """Return the number of frames after the convolution with stride 2."""
    return torch.div(lengths + 1, 2, rounding_mode="floor")


def sinusoids(length: int, width: int) -> Tensor:
    """Return the positions (length, width): sines of wavelengths from 2 pi to 20000 pi, then their cosines."""
    with torch.device("cpu"):  # see `with_weights`
        scales = torch.exp(torch.arange(width // 2, dtype=torch.float64) * -(math.log(10000) / (width // 2 - 1)))
        angles = torch.arange(length, dtype=torch.float64)[:, None] * scales[None, :]
        return torch.cat([angles.sin(), angles.cos()], 1).float()
