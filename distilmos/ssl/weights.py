"""Parameter names of encoders in other libraries, and their translation to the names of `SSLEncoder`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from distilmos.errors import InputError
from distilmos.ssl.config import WaveformConfig
from distilmos.ssl.encoder import with_weights
from distilmos.ssl.waveform import WaveformEncoder


@dataclass(frozen=True)
class LayerNames:
    """The names of the parts of a transformer layer in a library.

    Attributes:
        query, key, value, out: linear maps of the attention.
        attention_norm, ffn_in, ffn_out, ffn_norm: other parts.
    """

    query: str
    key: str
    value: str
    out: str
    attention_norm: str
    ffn_in: str
    ffn_out: str
    ffn_norm: str


@dataclass(frozen=True)
class WeightNames(LayerNames):
    """The names of an encoder's parts in a library; {} is the index of a convolution.

    Attributes:
        conv: a convolution of the front end.
        group_norm: the norm over time of the first convolution.
        layer_norm: the norm over channels of a convolution.
        feature_norm: the norm after the front end.
        projection: the linear map to the transformer's width.
        pos_conv: the convolutional position embedding.
        gate: the linear map of WavLM's gate, in a transformer layer.
        gate_scale: the scale of that gate.
        relative: WavLM's table of relative positions, in the first transformer layer.
    """

    conv: str
    group_norm: str
    layer_norm: str
    feature_norm: str
    projection: str
    pos_conv: str
    gate: str
    gate_scale: str
    relative: str


# fairseq's HuBERT and wav2vec 2.0, and Microsoft's WavLM, which is derived from them.
FAIRSEQ = WeightNames(
    conv="feature_extractor.conv_layers.{}.0",
    group_norm="feature_extractor.conv_layers.{}.2",
    layer_norm="feature_extractor.conv_layers.{}.2.1",
    feature_norm="layer_norm",
    projection="post_extract_proj",
    pos_conv="encoder.pos_conv.0",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    out="self_attn.out_proj",
    attention_norm="self_attn_layer_norm",
    ffn_in="fc1",
    ffn_out="fc2",
    ffn_norm="final_layer_norm",
    gate="self_attn.grep_linear",
    gate_scale="self_attn.grep_a",
    relative="self_attn.relative_attention_bias",
)
TRANSFORMERS = WeightNames(
    conv="feature_extractor.conv_layers.{}.conv",
    group_norm="feature_extractor.conv_layers.{}.layer_norm",
    layer_norm="feature_extractor.conv_layers.{}.layer_norm",
    feature_norm="feature_projection.layer_norm",
    projection="feature_projection.projection",
    pos_conv="encoder.pos_conv_embed.conv",
    query="attention.q_proj",
    key="attention.k_proj",
    value="attention.v_proj",
    out="attention.out_proj",
    attention_norm="layer_norm",
    ffn_in="feed_forward.intermediate_dense",
    ffn_out="feed_forward.output_dense",
    ffn_norm="final_layer_norm",
    gate="attention.gru_rel_pos_linear",
    gate_scale="attention.gru_rel_pos_const",
    relative="attention.rel_attn_embed",
)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file.

    Raises:
        InputError: if the file is missing or damaged.
    """
    try:
        return load_file(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: damaged: {error}") from None


def build_encoder(
    config: WaveformConfig,
    weights: Mapping[str, Any],
    names: WeightNames,
    where: str,
    unused: tuple[str, ...] = ("",),
) -> WaveformEncoder:
    """Build an encoder from another library's weights, in evaluation mode.

    Args:
        config: shape of the encoder.
        weights: name -> tensor.
        names: the library's names.
        where: path of the checkpoint, for errors.
        unused: prefixes of weights that may be left out.

    Raises:
        InputError: if a weight is missing, unknown or does not fit `config`.
    """
    try:
        encoder = with_weights(partial(WaveformEncoder, config), convert_weights(config, weights, names, where, unused))
    except (RuntimeError, IndexError, MemoryError, OverflowError, TypeError) as error:
        raise InputError(f"{where}: the weights do not fit the checkpoint's own configuration: {error}") from None
    return encoder.eval()


def convert_weights(
    config: WaveformConfig,
    weights: Mapping[str, Any],
    names: WeightNames,
    where: str,
    unused: tuple[str, ...] = ("",),
) -> dict[str, Tensor]:
    """Translate parameter names to those of `SSLEncoder`.

    The weight normalisation of the position embedding is folded into a plain weight, and the three input projections of
    the attention are joined. Parts that only pretraining needs (mask embedding, prediction heads) are left out. See
    `build_encoder` for the arguments.

    Raises:
        InputError: if a weight is missing or unknown.
    """
    weights = {str(name): tensor for name, tensor in weights.items()}
    result: dict[str, Tensor] = {}
    taken: set[str] = set()

    def take(name: str, *sources: str) -> None:
        for source in sources:
            if not isinstance(weights.get(source), Tensor):
                raise InputError(f"{where}: the checkpoint has no weight {source!r}")
        taken.update(sources)
        tensors = [weights[source].float() for source in sources]
        result[name] = tensors[0] if len(tensors) == 1 else torch.cat(tensors)

    def take_pair(name: str, *sources: str) -> None:
        for part in ("weight", "bias"):
            take(f"{name}.{part}", *(f"{source}.{part}" for source in sources))

    if any(name.startswith(f"encoder.layers.{config.num_layers}.") for name in weights):
        raise InputError(f"{where}: the checkpoint has more than the {config.num_layers} layers of its configuration")
    for index in range(len(config.conv_layers)):
        source = names.conv.format(index)
        take(f"conv.layers.{index}.weight", f"{source}.weight")
        if config.conv_bias:
            take(f"conv.layers.{index}.bias", f"{source}.bias")
        if config.conv_norm == "layer":
            take_pair(f"conv.norms.{index}", names.layer_norm.format(index))
        elif index == 0:
            take_pair("conv.norms.0", names.group_norm.format(index))
    take_pair("feature_norm", names.feature_norm)
    if config.projects:
        take_pair("projection", names.projection)
    if not config.norm_first:
        take_pair("norm", "encoder.layer_norm")
    if f"{names.pos_conv}.weight" in weights:  # the weight normalisation is folded already
        take_pair("pos_conv", names.pos_conv)
    else:
        take("pos_conv.bias", f"{names.pos_conv}.bias")
        # The newer and the older parameter names of torch's weight normalisation.
        new_form = f"{names.pos_conv}.parametrizations.weight.original"
        forms = (f"{new_form}0", f"{new_form}1") if f"{new_form}0" in weights else None
        sources = forms or (f"{names.pos_conv}.weight_g", f"{names.pos_conv}.weight_v")
        for part, source in zip("gv", sources, strict=True):
            take(part, source)
        gain, direction = result.pop("g"), result.pop("v")
        result["pos_conv.weight"] = gain * direction / direction.norm(dim=(0, 1), keepdim=True)
    if config.relative_buckets:
        take("relative.values", f"encoder.layers.0.{names.relative}.weight")
    for index in range(config.num_layers):
        source, target = f"encoder.layers.{index}", f"layers.{index}"
        take_pair(f"{target}.qkv", *(f"{source}.{part}" for part in (names.query, names.key, names.value)))
        take_pair(f"{target}.out", f"{source}.{names.out}")
        take_pair(f"{target}.attention_norm", f"{source}.{names.attention_norm}")
        take_pair(f"{target}.ffn_in", f"{source}.{names.ffn_in}")
        take_pair(f"{target}.ffn_out", f"{source}.{names.ffn_out}")
        take_pair(f"{target}.ffn_norm", f"{source}.{names.ffn_norm}")
        if config.relative_gate:
            take_pair(f"{target}.gate", f"{source}.{names.gate}")
            take(f"{target}.gate_scale", f"{source}.{names.gate_scale}")
            result[f"{target}.gate_scale"] = result[f"{target}.gate_scale"].flatten()
    if unknown := sorted(name for name in weights.keys() - taken if not name.startswith(unused)):
        raise InputError(f"{where}: the checkpoint has {len(unknown)} unknown weights, such as {unknown[0]!r}")
    return result
