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
        conv_layers: (channels, kernel, stride) of each convolution of the front end.
        conv_bias: whether these convolutions have a bias.
        conv_norm: "group" normalises the first convolution over time, "layer" each of them over channels.
        embed_dim: width D of the transformer.
        ffn_dim: inner width of its feed-forward parts.
        num_heads: attention heads.
        num_layers: transformer layers L.
        pos_kernel: kernel of the convolutional position embedding.
        pos_groups: its groups.
        norm_first: layer norms before (True, Large models) or after (False, Base) each part of a layer.
        normalize_input: whether a waveform is brought to zero mean and unit variance first.
        project_always: whether the linear map from the front end's width to D is there even where they are equal;
            transformers has it, fairseq leaves it out.
        normalize_eps: added to the variance then; fairseq's and Microsoft's is 1e-5, that of transformers 1e-7.
        relative_buckets: distances between frames that WavLM's relative position bias tells apart; 0 without one.
        relative_distance: frames from which on all distances are the same to it.
        relative_gate: whether each layer scales this bias by what it hears.
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
        """Refuse a shape that no encoder has.

        Raises:
            ValueError: says what is wrong.
        """
        sizes = [size for shape in self.conv_layers for size in shape]
        sizes += [self.embed_dim, self.ffn_dim, self.num_heads, self.num_layers, self.pos_kernel, self.pos_groups]
        if self.conv_norm not in ("group", "layer"):
            raise ValueError(f"conv_norm {self.conv_norm!r} is neither 'group' nor 'layer'")
        if not self.conv_layers or min(sizes) < 1:
            raise ValueError("an encoder needs convolutions, and every size must be at least 1")
        if self.embed_dim % self.num_heads or self.embed_dim % self.pos_groups:
            raise ValueError(
                f"{self.num_heads} heads and {self.pos_groups} groups must divide the width {self.embed_dim}"
            )
        if self.relative_buckets and not (4 <= self.relative_buckets < 4 * self.relative_distance):
            raise ValueError(
                f"{self.relative_buckets} buckets of relative positions do not go with a distance of "
                f"{self.relative_distance}"
            )

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return math.prod(stride for _, _, stride in self.conv_layers)

    @property
    def receptive_field(self) -> int:
        """Samples that the front end needs for one frame."""
        size = 1
        for _, kernel, stride in reversed(self.conv_layers):
            size = (size - 1) * stride + kernel
        return size

    @property
    def projects(self) -> bool:
        """Whether there is a linear map behind the front end."""
        return self.project_always or self.conv_layers[-1][0] != self.embed_dim

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EncoderConfig:
        """Return the configuration that `to_dict` gave."""
        shapes = tuple((int(c), int(k), int(s)) for c, k, s in values["conv_layers"])
        return cls(**{**values, "conv_layers": shapes})

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain JSON and YAML types."""
        return {**asdict(self), "conv_layers": [list(shape) for shape in self.conv_layers]}

    def num_frames(self, num_samples: int) -> int:
        """Return how many frames (50 a second in the usual models) the encoder gives for `num_samples` samples."""
        return count_frames(((kernel, stride) for _, kernel, stride in self.conv_layers), num_samples)


def count_frames(convolutions: Iterable[tuple[int, int]], num_samples: int) -> int:
    """Return how many frames convolutions without padding, given as (kernel, stride), make of `num_samples` samples."""
    for kernel, stride in convolutions:
        num_samples = max(0, (num_samples - kernel) // stride + 1)
    return num_samples
