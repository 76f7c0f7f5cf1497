"""The network of every SSL encoder: HuBERT, wav2vec 2.0 or WavLM, with the hidden states of all layers in one pass.

Why not the modules of torchaudio, fairseq or transformers? In all three, the GroupNorm of the first convolution has the
zero padding of a batch in its statistics, so the hidden states of a recording depend on the rest of the batch. Here the
statistics come from the valid frames and later steps ignore padding, so a recording has the same states alone and in
any batch. The tests compare every layer with fairseq's and transformers' own modules.
"""

from __future__ import annotations

import hashlib
import json
import math
from contextlib import nullcontext
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distilmos.ssl.config import EncoderConfig


def valid_mask(lengths: Tensor, size: int) -> Tensor:
    """Return a bool mask (B, size), True at indices below `lengths` (B,)."""
    return torch.arange(size, device=lengths.device)[None, :] < lengths[:, None]


class SSLEncoder(nn.Module):
    """Convolutional front end and transformer; `forward` returns the output of every transformer layer."""

    def __init__(self, config: EncoderConfig) -> None:
        """Create an encoder with random weights."""
        super().__init__()
        self.config = config
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
        # Post-norm networks normalise here. The final norm of pre-norm networks follows the last layer, but is part of
        # no layer's output in fairseq (with `output_layer`), Microsoft's WavLM, or transformers 5 and later.
        self.norm = nn.LayerNorm(config.embed_dim) if not config.norm_first else nn.Identity()
        self.relative = RelativePositions(config) if config.relative_buckets else None
        self.dropout = nn.Dropout(0.0)
        self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.num_layers))

    def _position(self, x: Tensor) -> Tensor:
        """Return the convolutional position embedding of (B, T, D) frames, (B, D, T)."""
        # On CPUs with AMX, oneDNN computes some grouped convolutions wrongly in bfloat16 (torch 2.14). That of
        # hubert_tiny, 16 groups of 12 channels, is off by 110 %. In float32 it is a small part of a forward pass.
        in_float32 = x.device.type == "cpu"
        with torch.autocast("cpu", enabled=False) if in_float32 else nullcontext():
            embedding: Tensor = self.pos_conv((x.float() if in_float32 else x).transpose(1, 2))
        return embedding[:, :, : x.shape[1]]

    def forward(self, audio: Tensor, num_samples: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the hidden states of all layers.

        Args:
            audio: 16 kHz waveforms, zero padded, float (B, N).
            num_samples: numbers of valid samples, long (B,).

        Returns:
            the outputs of layers 1..L, each (B, T, D) with unspecified values at padded frames, and the numbers of
            valid frames, long (B,).
        """
        if self.config.normalize_input:
            audio = normalize_audio(audio, num_samples, self.config.normalize_eps)
        x, num_frames = self.conv(audio, num_samples)
        mask = valid_mask(num_frames, x.shape[1])
        x = self.projection(self.feature_norm(x))
        x = self.dropout(x * mask[:, :, None])
        position = self._position(x)
        x = self.dropout(self.norm(x + F.gelu(position).transpose(1, 2)))
        bias = None if self.relative is None else self.relative(x.shape[1])
        # A batch without padding needs no mask; attention is faster without one.
        attention_mask = None if bool(mask.all()) else mask[:, None, None, :]
        outputs = []
        for layer in self.layers:
            x = layer(x, attention_mask, bias)
            outputs.append(x)
        return outputs, num_frames

    def set_dropout(self, probability: float) -> None:
        """Set the dropout on the transformer's residual branches, which is active in training mode only."""
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = probability

    def compile_layers(self) -> None:
        """Compile the transformer layers with torch.compile, for batches of any shape.

        The front end stays unchanged: its convolutions are library calls, which leave nothing to fuse.
        """
        for layer in self.layers:
            layer.compile(dynamic=True)

    def fingerprint(self) -> str:
        """Return a hash of shape and weights; equal encoders have equal hashes."""
        shape = json.dumps(self.config.to_dict(), sort_keys=True)
        return hashlib.sha256(f"{shape} {weights_hash(self)}".encode()).hexdigest()[:16]


def weights_hash(module: nn.Module) -> str:
    """Return a hash of the names and float32 values of all weights in a module."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


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

    def __init__(self, config: EncoderConfig) -> None:
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

    def __init__(self, config: EncoderConfig) -> None:
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


class TransformerLayer(nn.Module):
    """Self-attention and feed-forward part, each with a residual connection."""

    def __init__(self, config: EncoderConfig) -> None:
        """Create one layer."""
        super().__init__()
        width = config.embed_dim
        self.num_heads = config.num_heads
        self.norm_first = config.norm_first
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width)
        self.ffn_in = nn.Linear(width, config.ffn_dim)
        self.ffn_out = nn.Linear(config.ffn_dim, width)
        self.ffn_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(0.0)
        if config.relative_gate:
            self.gate = nn.Linear(width // config.num_heads, 8)
            self.gate_scale = nn.Parameter(torch.ones(config.num_heads))
        self.gated = config.relative_gate

    def forward(self, x: Tensor, mask: Tensor | None, bias: Tensor | None) -> Tensor:
        """Return the layer's output (B, T, D) for its input `x` (B, T, D).

        `mask` (B, 1, 1, T) is True at valid frames; `bias` (H, T, T) is the output of RelativePositions.
        """
        if self.norm_first:
            x = x + self.dropout(self._attention(self.attention_norm(x), mask, bias))
            x = x + self.dropout(self._feed_forward(self.ffn_norm(x)))
        else:
            x = self.attention_norm(x + self.dropout(self._attention(x, mask, bias)))
            x = self.ffn_norm(x + self.dropout(self._feed_forward(x)))
        return x

    def _attention(self, x: Tensor, mask: Tensor | None, bias: Tensor | None) -> Tensor:
        batch, frames, width = x.shape
        qkv = self.qkv(x).view(batch, frames, 3, self.num_heads, width // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        if bias is not None:
            bias = (self._gates(x) * bias if self.gated else bias.expand(batch, -1, -1, -1)).to(query.dtype)
            mask = bias if mask is None else bias.masked_fill(~mask, -math.inf)
        # No dropout on the attention weights, as in fairseq's fine-tuning of HuBERT: on a CPU it would store all of
        # them, (T, T) per head, and take a fifth of a training step.
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        output: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, frames, width))
        return output

    def _gates(self, x: Tensor) -> Tensor:
        """Return the factors on the relative position bias per head and frame, (B, H, T, 1), for x (B, T, D)."""
        heads = x.view(*x.shape[:2], self.num_heads, -1)
        update, reset = self.gate(heads).unflatten(3, (2, 4)).sum(4).sigmoid().permute(3, 0, 2, 1)
        gates: Tensor = update * (reset * self.gate_scale[:, None] - 1) + 2
        return gates[..., None]

    def _feed_forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.ffn_out(F.gelu(self.ffn_in(x)))
        return output
