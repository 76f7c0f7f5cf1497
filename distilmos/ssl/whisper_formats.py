"""Read Whisper's encoder from files of transformers and of OpenAI."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from distilmos.errors import InputError
from distilmos.ssl.config import WhisperConfig
from distilmos.ssl.encoder import with_weights
from distilmos.ssl.weights import LayerNames
from distilmos.ssl.whisper import WhisperEncoder, sinusoids

MODEL_TYPE = "whisper"  # in config.json of transformers

# transformers leaves settings with these default values out of config.json.
_DEFAULTS: dict[str, Any] = {
    "d_model": 384,
    "encoder_layers": 4,
    "encoder_attention_heads": 6,
    "encoder_ffn_dim": 1536,
    "num_mel_bins": 80,
    "max_source_positions": 1500,
}
_SUPPORTED: dict[str, Any] = {"activation_function": "gelu", "scale_embedding": False}
# Positions in float16 differ from the sinusoids by up to 5e-4.
_POSITION_TOLERANCE = 1e-3


@dataclass(frozen=True)
class WhisperNames(LayerNames):
    """The names of the encoder's parts in a library; the keys have no bias.

    Attributes:
        prefixes: possible beginnings of the names of the encoder's weights.
        layer: beginning of the names of a layer; {} is its index.
        positions: the sinusoidal positions.
        norm: the final norm, which `WhisperEncoder` lacks.
        unused: beginnings of names of other parts of a model.
    """

    prefixes: tuple[str, ...]
    layer: str
    positions: str
    norm: str
    unused: tuple[str, ...]


TRANSFORMERS = WhisperNames(
    prefixes=("model.encoder.", "encoder."),
    layer="layers.{}.",
    positions="embed_positions.weight",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    out="self_attn.out_proj",
    attention_norm="self_attn_layer_norm",
    ffn_in="fc1",
    ffn_out="fc2",
    ffn_norm="final_layer_norm",
    norm="layer_norm",
    # Of the classes for transcription and for classification.
    unused=("model.decoder.", "decoder.", "proj_out.", "projector.", "classifier.", "layer_weights"),
)
OPENAI = WhisperNames(
    prefixes=("encoder.",),
    layer="blocks.{}.",
    positions="positional_embedding",
    query="attn.query",
    key="attn.key",
    value="attn.value",
    out="attn.out",
    attention_norm="attn_ln",
    ffn_in="mlp.0",
    ffn_out="mlp.2",
    ffn_norm="mlp_ln",
    norm="ln_post",
    unused=("decoder.",),
)


def whisper_config(settings: Mapping[str, Any], where: str) -> WhisperConfig:
    """Translate the settings of transformers' WhisperConfig.

    Args:
        settings: content of config.json.
        where: path of the file, for errors.

    Raises:
        InputError: if a setting has an unsupported value.
    """
    for key, value in _SUPPORTED.items():
        if settings.get(key, value) != value:
            raise InputError(f"{where}: {key} {settings[key]!r} is not supported, only {value!r} is")
    settings = {**_DEFAULTS, **settings}
    return _config(
        where,
        embed_dim=settings["d_model"],
        ffn_dim=settings["encoder_ffn_dim"],
        num_heads=settings["encoder_attention_heads"],
        num_layers=settings["encoder_layers"],
        mel_bins=settings["num_mel_bins"],
        max_frames=settings["max_source_positions"],
    )


def is_openai(checkpoint: Any) -> bool:
    """Return whether the content of a checkpoint is that of OpenAI's Whisper."""
    return isinstance(checkpoint, dict) and "dims" in checkpoint and "model_state_dict" in checkpoint


def from_openai(checkpoint: Mapping[str, Any], where: str) -> WhisperEncoder:
    """Build the encoder of OpenAI's checkpoint, {"dims": sizes, "model_state_dict": weights}.

    Raises:
        InputError: if a size or a weight is missing, unknown or does not fit.
    """
    dims, weights = checkpoint["dims"], checkpoint["model_state_dict"]
    if not isinstance(dims, dict) or not isinstance(weights, dict):
        raise InputError(f"{where}: not a checkpoint of OpenAI's Whisper: dims and model_state_dict are not mappings")
    sizes = {"n_audio_state", "n_audio_head", "n_audio_layer", "n_mels", "n_audio_ctx"}
    if missing := sorted(sizes - dims.keys()):
        raise InputError(f"{where}: a Whisper of another version: its dims have no {', '.join(missing)}")
    config = _config(
        where,
        embed_dim=dims["n_audio_state"],
        ffn_dim=4 * dims["n_audio_state"] if isinstance(dims["n_audio_state"], int) else None,
        num_heads=dims["n_audio_head"],
        num_layers=dims["n_audio_layer"],
        mel_bins=dims["n_mels"],
        max_frames=dims["n_audio_ctx"],
    )
    return build_whisper(config, weights, OPENAI, where)


def _config(where: str, **sizes: Any) -> WhisperConfig:
    for name, value in sizes.items():
        if type(value) is not int:
            raise InputError(f"{where}: the size {name} of the encoder is {value!r}, not a whole number")
    try:
        return WhisperConfig(**sizes)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None


def build_whisper(config: WhisperConfig, weights: Mapping[str, Any], names: WhisperNames, where: str) -> WhisperEncoder:
    """Build an encoder from another library's weights, in evaluation mode.

    Args:
        config: shape of the encoder.
        weights: name -> tensor; those of a decoder or of a head are left out.
        names: the library's names.
        where: path of the checkpoint, for errors.

    Raises:
        InputError: if a weight is missing, unknown or does not fit `config`.
    """
    found = {str(name): value for name, value in weights.items()}
    prefix = next((prefix for prefix in names.prefixes if f"{prefix}conv1.weight" in found), None)
    if prefix is None:
        kinds = ", ".join(sorted({name.partition(".")[0] for name in found})[:4]) or "nothing"
        raise InputError(f"{where}: holds no encoder of Whisper ({names.prefixes[-1]}conv1.weight); it holds {kinds}")
    encoder = {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}
    others = [name for name in found if not name.startswith((prefix, *names.unused))]
    taken: set[str] = set()

    def take(name: str, *shape: int) -> Tensor:
        value = encoder.get(name)
        if not isinstance(value, Tensor):
            raise InputError(f"{where}: the checkpoint has no weight {prefix + name!r}")
        if value.shape != shape:
            expected = " x ".join(map(str, shape))
            raise InputError(
                f"{where}: {prefix}{name} has the shape {' x '.join(map(str, value.shape))}; the sizes of the "
                f"checkpoint ({config.num_layers} layers of width {config.embed_dim}, {config.mel_bins} mel bins) need "
                f"{expected}"
            )
        taken.add(name)
        return value.float()

    width = config.embed_dim
    result: dict[str, Tensor] = {}

    def take_pair(target: str, source: str, *shape: int) -> None:
        result[f"{target}.weight"] = take(f"{source}.weight", *shape)
        result[f"{target}.bias"] = take(f"{source}.bias", shape[0])

    take_pair("conv.layers.0", "conv1", width, config.mel_bins, 3)
    take_pair("conv.layers.1", "conv2", width, width, 3)
    positions = take(names.positions, config.max_frames, width)
    if not torch.allclose(positions, sinusoids(config.max_frames, width), atol=_POSITION_TOLERANCE, rtol=0):
        raise InputError(f"{where}: {prefix}{names.positions} are not Whisper's sinusoids")
    for index in range(config.num_layers):
        source, target = names.layer.format(index), f"layers.{index}"
        parts = (names.query, names.key, names.value)
        result[f"{target}.qkv.weight"] = torch.cat([take(f"{source}{part}.weight", width, width) for part in parts])
        query, value = (take(f"{source}{part}.bias", width) for part in (names.query, names.value))
        result[f"{target}.qkv.bias"] = torch.cat([query, torch.zeros(width), value])
        take_pair(f"{target}.out", source + names.out, width, width)
        take_pair(f"{target}.ffn_in", source + names.ffn_in, config.ffn_dim, width)
        take_pair(f"{target}.ffn_out", source + names.ffn_out, width, config.ffn_dim)
        for norm, part in (("attention_norm", names.attention_norm), ("ffn_norm", names.ffn_norm)):
            take_pair(f"{target}.{norm}", source + part, width)
    taken |= {f"{names.norm}.weight", f"{names.norm}.bias"}
    if unknown := sorted([*others, *(prefix + name for name in encoder.keys() - taken)]):
        raise InputError(
            f"{where}: the checkpoint has {len(unknown)} weights that are not Whisper's, such as {unknown[0]!r}; "
            "merge adapters into the model first"
        )
    return with_weights(partial(WhisperEncoder, config), result).eval()
