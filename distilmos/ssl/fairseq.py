"""Reading fairseq's HuBERT checkpoints without fairseq and without executing anything from them."""

from __future__ import annotations

import ast
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distilmos.errors import InputError
from distilmos.ssl.encoder import EncoderConfig, SSLEncoder


class _Dictionary:
    """Stands in for fairseq.data.dictionary.Dictionary, which `task_state` of a checkpoint holds and we do not need."""


# The one class outside torch's own list that a HuBERT checkpoint of fairseq holds.
_ALLOWED: list[Any] = [(_Dictionary, "fairseq.data.dictionary.Dictionary")]

_CONV_LAYERS = re.compile(r"[\[\]()0-9,*+ ]+")


def load_fairseq(path: str | Path) -> SSLEncoder:
    """Load a HuBERT checkpoint that fairseq wrote.

    Raises:
        InputError: if the file is not such a checkpoint; says what was found.
    """
    checkpoint = _read(Path(path))
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("model"), dict):
        raise InputError(f"{path}: not a fairseq checkpoint: it holds no 'model'")
    settings = _section(checkpoint, "cfg", str(path))
    model = _section(settings, "model", str(path))
    if model.get("_name") != "hubert":
        name = model.get("_name") or "an unknown model"
        raise InputError(f"{path}: a fairseq checkpoint of {name}; HuBERT is supported")
    config = _config(model, _section(settings, "task", str(path)), str(path))
    encoder = SSLEncoder(config)
    try:
        encoder.load_state_dict(convert_weights(checkpoint["model"], config, str(path)))
    except (RuntimeError, IndexError) as error:
        raise InputError(f"{path}: the weights do not fit the checkpoint's own configuration: {error}") from None
    return encoder.eval()


def _read(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except pickle.UnpicklingError as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(f"{path}: refused: not plain weights and settings ({first})") from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: not readable as a PyTorch checkpoint: {error}") from None


def _section(settings: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    """Return a part of the settings; an empty one if it is not there."""
    section = settings.get(name) or {}
    if not isinstance(section, dict):
        raise InputError(f"{where}: the checkpoint's settings {name!r} are {type(section).__name__}, not a dictionary")
    return section


def _config(model: dict[str, Any], task: dict[str, Any], where: str) -> EncoderConfig:
    """Translate fairseq's `cfg.model` and `cfg.task`."""
    try:
        return EncoderConfig(
            conv_layers=_conv_layers(model["conv_feature_layers"]),
            conv_bias=bool(model["conv_bias"]),
            conv_norm={"default": "group", "layer_norm": "layer"}[model["extractor_mode"]],
            embed_dim=int(model["encoder_embed_dim"]),
            ffn_dim=int(model["encoder_ffn_embed_dim"]),
            num_heads=int(model["encoder_attention_heads"]),
            num_layers=int(model["encoder_layers"]),
            pos_kernel=int(model["conv_pos"]),
            pos_groups=int(model["conv_pos_groups"]),
            norm_first=bool(model["layer_norm_first"]),
            normalize_input=bool(task.get("normalize", False)),
        )
    except (KeyError, ValueError, TypeError, SyntaxError) as error:
        raise InputError(f"{where}: the checkpoint's configuration is incomplete or unknown: {error!r}") from None


def _conv_layers(expression: str) -> tuple[tuple[int, int, int], ...]:
    """Read fairseq's `[(512,10,5)] + [(512,3,2)] * 4`: lists joined by + and repeated by *, without `eval`.

    Raises:
        ValueError: for anything else.
    """
    if not _CONV_LAYERS.fullmatch(expression):
        raise ValueError(f"conv_feature_layers: {expression!r}")
    shapes: list[tuple[int, int, int]] = []
    for term in expression.split("+"):
        listing, _, times = term.partition("*")
        layers = ast.literal_eval(listing.strip())
        shapes += [(int(c), int(k), int(s)) for c, k, s in layers] * (int(times) if times else 1)
    return tuple(shapes)


def convert_weights(weights: dict[str, Tensor], config: EncoderConfig, where: str) -> dict[str, Tensor]:
    """Translate the parameter names of fairseq's HuBERT and wav2vec 2.0 to those of `SSLEncoder`.

    Weight normalisation of the position embedding is folded into a plain weight, and the three projections of attention
    become one; the parts that only pretraining needs (mask embedding, prediction heads) are left out.

    Raises:
        InputError: naming the first weight that is missing.
    """
    result: dict[str, Tensor] = {}

    def take(name: str, *sources: str) -> None:
        for source in sources:
            if not isinstance(weights.get(source), Tensor):
                raise InputError(f"{where}: the checkpoint has no weight {source!r}")
        tensors = [weights[source].float() for source in sources]
        result[name] = tensors[0] if len(tensors) == 1 else torch.cat(tensors)

    def take_pair(name: str, *sources: str) -> None:
        for part in ("weight", "bias"):
            take(f"{name}.{part}", *(f"{source}.{part}" for source in sources))

    for index in range(len(config.conv_layers)):
        source = f"feature_extractor.conv_layers.{index}"
        take(f"conv.layers.{index}.weight", f"{source}.0.weight")
        if config.conv_bias:
            take(f"conv.layers.{index}.bias", f"{source}.0.bias")
        if config.conv_norm == "layer":
            take_pair(f"conv.norms.{index}", f"{source}.2.1")
        elif index == 0:
            take_pair("conv.norms.0", f"{source}.2")
    take_pair("feature_norm", "layer_norm")
    if config.conv_layers[-1][0] != config.embed_dim:
        take_pair("projection", "post_extract_proj")
    if not config.norm_first:
        take_pair("norm", "encoder.layer_norm")
    take("pos_conv.bias", "encoder.pos_conv.0.bias")
    take("g", "encoder.pos_conv.0.weight_g")
    take("v", "encoder.pos_conv.0.weight_v")
    gain, direction = result.pop("g"), result.pop("v")
    result["pos_conv.weight"] = gain * direction / direction.norm(dim=(0, 1), keepdim=True)
    for index in range(config.num_layers):
        source, target = f"encoder.layers.{index}", f"layers.{index}"
        take_pair(f"{target}.qkv", *(f"{source}.self_attn.{part}_proj" for part in "qkv"))
        take_pair(f"{target}.out", f"{source}.self_attn.out_proj")
        take_pair(f"{target}.attention_norm", f"{source}.self_attn_layer_norm")
        take_pair(f"{target}.ffn_in", f"{source}.fc1")
        take_pair(f"{target}.ffn_out", f"{source}.fc2")
        take_pair(f"{target}.ffn_norm", f"{source}.final_layer_norm")
    return result
