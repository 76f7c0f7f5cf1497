"""The shape of an SSL encoder."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class EncoderConfig:
    """The shape of an encoder.

    Attributes:
        conv_layers: (channels, kernel, stride) of each convolution in the front end.
        conv_bias: whether these convolutions have a bias.
        conv_norm: "group" normalises the first convolution over time, "layer" every convolution over channels.
        embed_dim: width D of the transformer.
        ffn_dim: inner width of the feed-forward parts.
        num_heads: attention heads.
        num_layers: transformer layers L.
        pos_kernel: kernel of the convolutional position embedding.
        pos_groups: groups of that convolution.
        norm_first: whether layer norms come before (True, Large models) or after (False, Base) each part of a layer.
        normalize_input: whether to normalise waveforms to zero mean and unit variance first.
        project_always: whether to project from the front end's width to D even if they are equal; transformers does,
            fairseq does not.
        normalize_eps: added to the variance of a waveform; 1e-5 for fairseq and Microsoft, 1e-7 for transformers.
        relative_buckets: buckets of WavLM's relative position bias; 0 for encoders without one.
        relative_distance: distance in frames from which on all distances share the last bucket.
        relative_gate: whether each layer scales the bias by a gate computed from its input.
    """

    conv_layers: tuple[tuple[int, int, int], ...]
    conv_bias: bool
    conv_norm: str
    embed_dim: int
    ffn_dim: int
    num_heads: int
    num_layers: int
    pos_kernel: int
    pos_groups: int
    norm_first: bool
    normalize_input: bool
    project_always: bool = False
    normalize_eps: float = 1e-5
    relative_buckets: int = 0
    relative_distance: int = 0
    relative_gate: bool = False

    def __post_init__(self) -> None:
        """Check the shape.

        Raises:
            ValueError: names the first fault.
        """
        if self.conv_norm not in ("group", "layer"):
            raise ValueError(f"conv_norm is {self.conv_norm!r}, not 'group' or 'layer'")
        if not self.conv_layers or min(size for shape in self.conv_layers for size in shape) < 1:
            raise ValueError(f"conv_layers is {self.conv_layers}; it must have convolutions with sizes of at least 1")
        for name in ("embed_dim", "ffn_dim", "num_heads", "num_layers", "pos_kernel", "pos_groups"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.embed_dim % self.num_heads or self.embed_dim % self.pos_groups:
            raise ValueError(
                f"{self.num_heads} heads and {self.pos_groups} groups must divide the width {self.embed_dim}"
            )
        if self.relative_buckets and not (4 <= self.relative_buckets < 4 * self.relative_distance):
            raise ValueError(
                f"{self.relative_buckets} relative buckets do not fit a relative distance of {self.relative_distance}"
            )

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return math.prod(stride for _, _, stride in self.conv_layers)

    @property
    def receptive_field(self) -> int:
        """Samples that one frame is computed from."""
        size = 1
        for _, kernel, stride in reversed(self.conv_layers):
            size = (size - 1) * stride + kernel
        return size

    @property
    def projects(self) -> bool:
        """Whether a linear map follows the front end."""
        return self.project_always or self.conv_layers[-1][0] != self.embed_dim

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EncoderConfig:
        """Return the configuration that `to_dict` converted."""
        shapes = tuple((int(c), int(k), int(s)) for c, k, s in values["conv_layers"])
        return cls(**{**values, "conv_layers": shapes})

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain JSON and YAML types."""
        return {**asdict(self), "conv_layers": [list(shape) for shape in self.conv_layers]}

    def num_frames(self, num_samples: int) -> int:
        """Return the number of frames for `num_samples` samples (50 frames a second in the usual models)."""
        return count_frames(((kernel, stride) for _, kernel, stride in self.conv_layers), num_samples)


def count_frames(convolutions: Iterable[tuple[int, int]], num_samples: int) -> int:
    """Return the number of frames that unpadded convolutions (kernel, stride) compute from `num_samples` samples."""
    for kernel, stride in convolutions:
        num_samples = max(0, (num_samples - kernel) // stride + 1)
    return num_samples
