"""HuBERT, wav2vec 2.0 and WavLM: convolutions on the waveform, a convolutional position embedding, a transformer."""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distilmos.ssl.config import WaveformConfig
from distilmos.ssl.encoder import SSLEncoder, exporting, valid_mask


class WaveformEncoder(SSLEncoder):
    """An encoder of the HuBERT family.

    The GroupNorm of the first convolution averages over a recording's valid frames, and later steps ignore padding.
    """

    config: WaveformConfig

    def __init__(self, config: WaveformConfig) -> None:
        """Create an encoder with random weights."""
        super().__init__(config, norm_first=config.norm_first, gated=config.relative_gate)
        channels = config.conv_layers[-1][0]
        self.conv = ConvFrontEnd(config)
        self.feature_norm = nn.LayerNorm(channels)
        self.projection = nn.Linear(channels, config.embed_dim) if config.projects else nn.Identity()
        self.pos_conv = nn.Conv1d(
            config.embed_dim,
            config.embed_dim,
            config.pos_kernel,
            padding=config.pos_kernel // 2,
            groups=config.pos_groups,
        )
        # Post-norm networks normalise here.
        self.norm = nn.LayerNorm(config.embed_dim) if not config.norm_first else nn.Identity()
        self.relative = RelativePositions(config) if config.relative_buckets else None

    def embed(self, audio: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the input of the first layer (B, T, D), and the equal numbers of valid and of attended frames (B,)."""
        if self.config.normalize_input:
            audio = normalize_audio(audio, num_samples, self.config.normalize_eps)
        x, num_frames = self.conv(audio, num_samples)
        mask = valid_mask(num_frames, x.shape[1])
        x = self.projection(self.feature_norm(x))
        x = self.dropout(x * mask[:, :, None])
        position = self._position(x)
        x = self.dropout(self.norm(x + F.gelu(position).transpose(1, 2)))
        return x, num_frames, num_frames

    def position_bias(self, frames: int) -> Tensor | None:
        """Return WavLM's bias (H, T, T) for `frames` T; None for HuBERT and wav2vec 2.0."""
        return None if self.relative is None else self.relative(frames)

    def _position(self, x: Tensor) -> Tensor:
        """Return the convolutional position embedding of (B, T, D) frames, (B, D, T)."""
        conv, frames = self.pos_conv, x.transpose(1, 2)
        if x.device.type != "cpu":
            embedding: Tensor = conv(frames)
            return embedding[:, :, : x.shape[1]]
        # On CPUs with AMX, oneDNN computes some grouped convolutions wrongly in bfloat16 (torch 2.14). That of
        # hubert_tiny, 16 groups of 12 channels, is off by 110 %. In float32 it is a small part of a forward pass.
        wide = torch.promote_types(conv.weight.dtype, torch.float32)
        with torch.autocast("cpu", enabled=False):
            weight, bias = conv.weight.to(wide), None if conv.bias is None else conv.bias.to(wide)
            embedding = F.conv1d(frames.to(wide), weight, bias, padding=conv.padding, groups=conv.groups)
        return embedding.to(x.dtype)[:, :, : x.shape[1]]


def normalize_audio(audio: Tensor, num_samples: Tensor, eps: float) -> Tensor:
    """Normalise each waveform (B, N) to zero mean and unit variance over its `num_samples` (B,) valid samples.

    `eps` is added to the variance. Padding becomes zero.
    """
    mask = valid_mask(num_samples, audio.shape[1])
    count = num_samples[:, None]
    centered = (audio - (audio * mask).sum(1, keepdim=True) / count) * mask
    variance = centered.square().sum(1, keepdim=True) / count
    return centered * torch.rsqrt(variance + eps)


class ConvFrontEnd(nn.Module):
    """Strided convolutions from waveform to frames, without padding, so valid frames depend on valid samples only."""

    def __init__(self, config: WaveformConfig) -> None:
        """Create the convolutions and their norms."""
        super().__init__()
        self.shapes = config.conv_layers
        self.norm_each = config.conv_norm == "layer"
        sources = [1, *(channels for channels, _, _ in self.shapes[:-1])]
        self.layers = nn.ModuleList(
            nn.Conv1d(source, channels, kernel, stride, bias=config.conv_bias)
            for source, (channels, kernel, stride) in zip(sources, self.shapes, strict=True)
        )
        normed = self.shapes if self.norm_each else self.shapes[:1]
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for channels, _, _ in normed)

    def forward(self, audio: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        """Return frames (B, T, C) and the numbers of valid frames (B,) for waveforms (B, N)."""
        x = audio[:, None, :]
        lengths = num_samples
        for index, (layer, (_, kernel, stride)) in enumerate(zip(self.layers, self.shapes, strict=True)):
            x = layer(x)
            lengths = (torch.div(lengths - kernel, stride, rounding_mode="floor") + 1).clamp(min=0)
            if self.norm_each:
                x = self.norms[index](x.transpose(1, 2)).transpose(1, 2)
            elif index == 0:
                x = _norm_over_time(x, lengths, cast(nn.LayerNorm, self.norms[0]))
            x = F.gelu(x)
        frames: Tensor = x.transpose(1, 2)
        return frames, lengths


def _norm_over_time(x: Tensor, lengths: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Normalise each channel of (B, C, T) over its valid frames: GroupNorm with as many groups as channels.

    `norm` holds weight, bias and eps. Padded frames become zero. The loop makes one fused call per recording: masked
    sums over the batch would read and write this tensor, the largest of the network, many times, which takes a tenth of
    the whole forward pass of a small encoder.
    """
    if exporting():
        return F.group_norm(x, norm.normalized_shape[0], norm.weight, norm.bias, norm.eps)
    output = torch.zeros_like(x)
    for row, length in enumerate(lengths.tolist()):
        if length:
            frames = x[row : row + 1, :, :length]
            output[row, :, :length] = F.group_norm(frames, x.shape[1], norm.weight, norm.bias, norm.eps)[0]
    return output


class RelativePositions(nn.Module):
    """WavLM's relative position bias: one number per head and bucket of distances between two frames.

    Each short distance has its own bucket, long ones share buckets of logarithmically growing size, and each direction
    has its own set (C. Raffel et al., "Exploring the limits of transfer learning with a unified text-to-text
    transformer", JMLR 2020; S. Chen et al., "WavLM", JSTSP 2022).
    """

    def __init__(self, config: WaveformConfig) -> None:
        """Create the table of biases."""
        super().__init__()
        self.one_way = config.relative_buckets // 2
        self.distance = config.relative_distance
        self.values = nn.Parameter(torch.zeros(config.relative_buckets, config.num_heads))

    def forward(self, frames: int) -> Tensor:
        """Return the bias on the attention of frame i to frame j, (H, T, T) for `frames` T."""
        offsets = torch.arange(1 - frames, frames, device=self.values.device)
        exact = self.one_way // 2  # distances with a bucket of their own
        distances = offsets.abs()
        logarithmic = (distances / exact).log() / math.log(self.distance / exact) * (self.one_way - exact)
        shared = (exact + logarithmic.clamp(min=0).long()).clamp(max=self.one_way - 1)
        buckets = torch.where(distances < exact, distances, shared) + self.one_way * (offsets > 0)
        # Row i of the bias has the offsets -i .. T-1-i.
        positions = torch.arange(frames, device=self.values.device)
        return self.values[buckets].T[:, positions[None, :] - positions[:, None] + frames - 1]
