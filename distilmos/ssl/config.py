"""The shapes of encoders: one class for each family of networks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from distilmos.data.audio import SAMPLE_RATE

# Bounds far above every published encoder: a damaged size must not decide how much time or memory loading takes.
MAX_LAYERS = 1000
MAX_HOP = 16000  # samples
MAX_POSITIONS = 1 << 25  # values of sinusoidal positions


class EncoderConfig(ABC):
    """The shape of an encoder of any family.

    Attributes:
        embed_dim: width D of the transformer.
        ffn_dim: inner width of the feed-forward parts.
        num_heads: attention heads.
        num_layers: transformer layers L.
    """

    embed_dim: int
    ffn_dim: int
    num_heads: int
    num_layers: int

    @property
    @abstractmethod
    def hop(self) -> int:
        """Samples from one frame to the next."""

    @property
    @abstractmethod
    def min_samples(self) -> int:
        """Samples of the shortest input that gives a frame."""

    @property
    def max_samples(self) -> int | None:
        """Samples of the longest input; None if any length fits."""
        return None

    @property
    def max_seconds(self) -> float | None:
        """Seconds of the longest input; None if any length fits."""
        return None if self.max_samples is None else self.max_samples / SAMPLE_RATE

    @abstractmethod
    def num_frames(self, num_samples: int) -> int:
        """Return the number of frames for `num_samples` samples (50 frames a second in the usual models)."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain JSON and YAML types."""

    def same_frames(self, other: EncoderConfig) -> bool:
        """Return whether two encoders give as many frames for a recording of any length."""
        # A further hop gives both one more frame, so the lengths within one hop decide.
        start = max(self.min_samples, other.min_samples)
        lengths = range(start, start + self.hop)
        return self.hop == other.hop and all(self.num_frames(n) == other.num_frames(n) for n in lengths)

    def _check_sizes(self, *further: str) -> None:
        """Check the sizes that every family has, and that the attributes `further` are at least 1.

        Raises:
            ValueError: names the first fault.
        """
        for name in ("embed_dim", "ffn_dim", "num_heads", "num_layers", *further):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.num_layers > MAX_LAYERS:
            raise ValueError(f"num_layers is {self.num_layers}; it must be at most {MAX_LAYERS}")
        if self.embed_dim % self.num_heads:
            raise ValueError(f"{self.num_heads} heads must divide the width {self.embed_dim}")


@dataclass(frozen=True)
class WaveformConfig(EncoderConfig):
    """The shape of a HuBERT, wav2vec 2.0 or WavLM: strided convolutions on the waveform, then a transformer.

    Attributes:
        conv_layers: (channels, kernel, stride) of each convolution in the front end.
        conv_bias: whether these convolutions have a bias.
        conv_norm: "group" normalises the first convolution over time, "layer" every convolution over channels.
        embed_dim, ffn_dim, num_heads, num_layers: see EncoderConfig.
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
        if self.hop > MAX_HOP:
            raise ValueError(f"conv_layers is {self.conv_layers}; their strides must multiply to at most {MAX_HOP}")
        self._check_sizes("pos_kernel", "pos_groups")
        if self.embed_dim % self.pos_groups:
            raise ValueError(f"{self.pos_groups} groups must divide the width {self.embed_dim}")
        if self.relative_buckets and not (4 <= self.relative_buckets < 4 * self.relative_distance):
            raise ValueError(
                f"{self.relative_buckets} relative buckets do not fit a relative distance of {self.relative_distance}"
            )

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return math.prod(stride for _, _, stride in self.conv_layers)

    @property
    def min_samples(self) -> int:
        """Samples of the shortest input that gives a frame, which are those that one frame is computed from."""
        size = 1
        for _, kernel, stride in reversed(self.conv_layers):
            size = (size - 1) * stride + kernel
        return size

    @property
    def projects(self) -> bool:
        """Whether a linear map follows the front end."""
        return self.project_always or self.conv_layers[-1][0] != self.embed_dim

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain JSON and YAML types."""
        return {**asdict(self), "conv_layers": [list(shape) for shape in self.conv_layers]}

    def num_frames(self, num_samples: int) -> int:
        """Return the number of frames for `num_samples` samples (50 frames a second in the usual models)."""
        return count_frames(((kernel, stride) for _, kernel, stride in self.conv_layers), num_samples)


@dataclass(frozen=True)
class WhisperConfig(EncoderConfig):
    """The shape of Whisper's encoder: log mel spectrum, two convolutions, sinusoidal positions, pre-norm transformer.

    Attributes:
        embed_dim, ffn_dim, num_heads, num_layers: see EncoderConfig.
        mel_bins: bands of the spectrum; 80, or 128 from large-v3 on.
        max_frames: frames that have a position.
        padded: whether to extend each recording with silence to `max_frames`, as Whisper was trained; its frames are
            then influenced by the silence, but the silence gives none.
    """

    embed_dim: int
    ffn_dim: int
    num_heads: int
    num_layers: int
    mel_bins: int = 80
    max_frames: int = 1500
    padded: bool = False

    FAMILY: ClassVar[str] = "whisper"
    MEL_WINDOW: ClassVar[int] = 400
    MEL_HOP: ClassVar[int] = 160

    def __post_init__(self) -> None:
        """Check the shape.

        Raises:
            ValueError: names the first fault.
        """
        self._check_sizes("mel_bins", "max_frames")
        if self.embed_dim % 2 or self.embed_dim < 4:
            raise ValueError(f"embed_dim is {self.embed_dim}; it must be even and at least 4, for sines and cosines")
        if self.mel_bins > self.MEL_WINDOW // 2 + 1:
            raise ValueError(f"mel_bins is {self.mel_bins}; the spectrum has {self.MEL_WINDOW // 2 + 1}")
        if self.max_frames * self.embed_dim > MAX_POSITIONS:
            most = MAX_POSITIONS // self.embed_dim
            raise ValueError(f"max_frames is {self.max_frames}; it must be at most {most} at this width")

    @property
    def hop(self) -> int:
        """Samples from one frame to the next: the second convolution has stride 2."""
        return 2 * self.MEL_HOP

    @property
    def min_samples(self) -> int:
        """Samples of the shortest input that gives a frame: one window of the spectrum."""
        return self.MEL_WINDOW

    @property
    def max_samples(self) -> int:
        """Samples of the longest input: 30 s in the published models."""
        return self.max_frames * self.hop + self.MEL_HOP - 1

    def num_frames(self, num_samples: int) -> int:
        """Return the number of frames for `num_samples` samples (50 frames a second)."""
        return (num_samples // self.MEL_HOP + 1) // 2 if num_samples >= self.min_samples else 0

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain JSON and YAML types."""
        return {"family": self.FAMILY, **asdict(self)}


def config_from_dict(values: dict[str, Any]) -> EncoderConfig:
    """Return the configuration that `to_dict` of any family converted.

    Raises:
        ValueError, TypeError, KeyError: if the values are not those of an encoder.
    """
    if not isinstance(values, dict):
        raise TypeError(f"the shape of the encoder is {values!r:.100}, not a mapping")
    family = values.get("family")
    if family is None:  # files written before there was a second family
        try:
            shapes = tuple((int(c), int(k), int(s)) for c, k, s in values["conv_layers"])
        except OverflowError as error:  # JSON's 1e999 is infinite
            raise ValueError(f"conv_layers is {values['conv_layers']}: {error}") from None
        return WaveformConfig(**{**values, "conv_layers": shapes})
    if family != WhisperConfig.FAMILY:
        raise ValueError(f"an encoder of family {family!r}, which this version does not have")
    return WhisperConfig(**{name: value for name, value in values.items() if name != "family"})


def count_frames(convolutions: Iterable[tuple[int, int]], num_samples: int) -> int:
    """Return the number of frames that unpadded convolutions (kernel, stride) compute from `num_samples` samples."""
    for kernel, stride in convolutions:
        num_samples = max(0, (num_samples - kernel) // stride + 1)
    return num_samples
