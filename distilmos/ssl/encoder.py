"""The part that the encoders of all families share: a transformer whose hidden states are returned for every layer.

Why not the modules of torchaudio, fairseq or transformers? In all three, a recording's hidden states depend on the
padding of its batch: the GroupNorm of HuBERT's first convolution averages over it, and Whisper's front end pads every
recording to 30 s. Here a recording has the same states alone and in any batch. The tests compare every layer with the
original modules.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distilmos.ssl.config import EncoderConfig

M = TypeVar("M", bound=nn.Module)


def valid_mask(lengths: Tensor, size: int) -> Tensor:
    """Return a bool mask (B, size), True at indices below `lengths` (B,)."""
    return torch.arange(size, device=lengths.device)[None, :] < lengths[:, None]


class _State(threading.local):
    exporting = False


_state = _State()


def exporting() -> bool:
    """Return whether the network is traced for an ONNX file: then a batch is one recording without padding.

    Tracing keeps the operations on tensors, and takes all else, such as lengths that are numbers, for constants.
    """
    return _state.exporting


@contextmanager
def export_mode() -> Iterator[None]:
    """Let networks that this thread runs be traced; see `exporting`."""
    _state.exporting = True
    try:
        yield
    finally:
        _state.exporting = False


class SSLEncoder(nn.Module, ABC):
    """Front end and transformer; `forward` returns the output of every transformer layer.

    The final norm of a pre-norm network follows the last layer, but is part of no layer's output in fairseq (with
    `output_layer`) or Microsoft's WavLM, and so it is left out here.

    Attributes:
        config: the shape.
        conv: the convolutions between the input and the transformer.
        layers: the transformer layers.
    """

    conv: nn.Module

    def __init__(self, config: EncoderConfig, *, norm_first: bool, gated: bool = False) -> None:
        """Create the transformer layers with random weights.

        Args:
            config: the shape.
            norm_first: whether layer norms come before or after each part of a layer.
            gated: whether each layer scales the bias on its attention by a gate computed from its input.
        """
        super().__init__()
        self.config = config
        self.dropout = nn.Dropout(0.0)
        self.layers = nn.ModuleList(
            TransformerLayer(config, norm_first=norm_first, gated=gated) for _ in range(config.num_layers)
        )

    @abstractmethod
    def embed(self, audio: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the input of the first layer.

        Args:
            audio: 16 kHz waveforms, zero padded, float (B, N).
            num_samples: numbers of valid samples, long (B,).

        Returns:
            frames (B, T, D), the numbers of valid frames, and the numbers of frames to attend to, long (B,) each.
        """

    def position_bias(self, frames: int) -> Tensor | None:
        """Return the bias on the attention between `frames` T frames, (H, T, T); None without one."""
        return None

    def forward(self, audio: Tensor, num_samples: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the hidden states of all layers.

        Args:
            audio: 16 kHz waveforms, zero padded, float (B, N).
            num_samples: numbers of valid samples, long (B,).

        Returns:
            the outputs of layers 1..L, each (B, T, D) with unspecified values at padded frames, and the numbers of
            valid frames, long (B,).
        """
        x, num_frames, attended = self.embed(audio, num_samples)
        mask = valid_mask(attended, x.shape[1])
        bias = self.position_bias(x.shape[1])
        # A batch without padding needs no mask; attention is faster without one.
        attention_mask = None if exporting() or bool(mask.all()) else mask[:, None, None, :]
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


def with_weights(create: Callable[[], M], weights: Mapping[str, Tensor]) -> M:
    """Create a network and load its weights.

    The shapes are compared before memory is allocated for the network: a damaged configuration may ask for any size.
    Networks compute their constants on the CPU explicitly, because the meta device has no values.

    Raises:
        RuntimeError: if the names or shapes differ, or the network has a size that no tensor has.
    """
    with torch.device("meta"):
        create().load_state_dict(weights, assign=True)
    network = create()
    network.load_state_dict(weights)
    return network


def weights_hash(module: nn.Module) -> str:
    """Return a hash of the names and float32 values of all weights in a module."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


class TransformerLayer(nn.Module):
    """Self-attention and feed-forward part, each with a residual connection."""

    def __init__(self, config: EncoderConfig, *, norm_first: bool, gated: bool) -> None:
        """Create one layer; see `SSLEncoder` for the arguments."""
        super().__init__()
        width = config.embed_dim
        self.num_heads = config.num_heads
        self.norm_first = norm_first
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width)
        self.ffn_in = nn.Linear(width, config.ffn_dim)
        self.ffn_out = nn.Linear(config.ffn_dim, width)
        self.ffn_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(0.0)
        if gated:
            self.gate = nn.Linear(width // config.num_heads, 8)
            self.gate_scale = nn.Parameter(torch.ones(config.num_heads))
        self.gated = gated

    def forward(self, x: Tensor, mask: Tensor | None, bias: Tensor | None) -> Tensor:
        """Return the layer's output (B, T, D) for its input `x` (B, T, D).

        `mask` (B, 1, 1, T) is True at valid frames; `bias` (H, T, T) is added to the attention.
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
