"""Imports the checkpoints that the authors of DistilMOS released."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from distilmos.data.hub import Files, fetch_hub
from distilmos.data.schema import MOS_SCALE
from distilmos.data.tables import read_yaml
from distilmos.errors import InputError
from distilmos.model.config import ModelConfig
from distilmos.model.networks import DistilMOS
from distilmos.ssl.config import WaveformConfig
from distilmos.ssl.encoder import SSLEncoder
from distilmos.ssl.fairseq import wavlm_config
from distilmos.ssl.huggingface import transformers_config
from distilmos.ssl.pickles import read_pickle
from distilmos.ssl.weights import FAIRSEQ, TRANSFORMERS, build_encoder

BACKBONES = ("wavlm", "w2v2")
CHECKPOINT, SETTINGS = "model.pth.tar", "model_cfg.yaml"

# Defaults of the released code.
_HEADS = {"hidden_dim": 256, "downsample_kernels": [5, 3, 3], "downsample_strides": [1, 1, 1]}
_WAVLM = {"relative_position_embedding": True, "gru_rel_pos": True, "num_buckets": 320, "max_distance": 800}
# Parameters that the forward pass of the released network does not use.
_UNUSED = ("weighted_sum.layer_weights", "decoder.batch_norm.")
# Parameters of pretraining, and of the norm after pre-norm layers: hidden states are taken before it.
_UNUSED_ENCODER = ("mask_emb", "masked_spec_embed", "encoder.layer_norm.")
_LSTM = "decoder.bilstm."


def fetch_official(repository: str, backbone: str) -> tuple[Path, Path]:
    """Fetch checkpoint and configuration from the Hugging Face hub; return their paths.

    Args:
        repository: OWNER/NAME; the authors use BaleYang/DistilMOS.
        backbone: one of BACKBONES.

    Raises:
        FailedError: if they cannot be fetched.
    """
    root = fetch_hub(repository, Files([[f"{backbone}/{SETTINGS}"]], [[f"{backbone}/{CHECKPOINT}"]]))
    return root / backbone / CHECKPOINT, root / backbone / SETTINGS


def load_official(checkpoint: str | Path, settings: str | Path) -> DistilMOS:
    """Load a released model, in evaluation mode.

    Args:
        checkpoint: `model.pth.tar`, {"model": weights}.
        settings: `model_cfg.yaml`.

    Raises:
        InputError: if a file is missing, damaged or of another network.
    """
    config = _read_settings(Path(settings))
    weights = _read_weights(Path(checkpoint))
    parts: dict[bool, dict[str, Tensor]] = {True: {}, False: {}}
    for name, tensor in weights.items():
        parts[name.startswith("ssl.")][name.removeprefix("ssl.")] = tensor
    encoder = _encoder(config, parts[True], str(settings), str(checkpoint))
    heads = {_our_name(name): tensor for name, tensor in parts[False].items() if not name.startswith(_UNUSED)}
    try:
        create = partial(
            DistilMOS,
            ModelConfig(
                hidden_dim=config["hidden_dim"],
                kernels=config["downsample_kernels"],
                strides=config["downsample_strides"],
                target_layers=config.get("target_layers", "all"),
            ),
            encoder,
            corpora=(),
            scales=(MOS_SCALE,),
            clusters=len(heads["predictors.0.layers.4.bias"]),
            token_layers=encoder.config.num_layers,
        )
        with torch.device("meta"):  # the shapes are compared before memory is allocated for them
            shapes = create()
    except ValidationError as error:
        fault = error.errors()[0]
        raise InputError(f"{settings}: {': '.join([*map(str, fault['loc']), fault['msg']])}") from None
    except (ValueError, TypeError, OverflowError, RuntimeError) as error:
        raise InputError(f"{settings}: {error}") from None
    except KeyError as error:
        raise InputError(f"{checkpoint}: not a released DistilMOS: it has no weight {error}") from None
    expected = {name for name in shapes.state_dict() if not name.startswith("encoder.")}
    if expected != set(heads):
        raise InputError(f"{checkpoint}: does not fit {settings}: {_difference(expected, set(heads))}")
    try:
        shapes.load_state_dict(heads, strict=False, assign=True)  # the encoder already has its weights
        model = create()
        model.load_state_dict(heads, strict=False)
    except RuntimeError as error:
        raise InputError(f"{checkpoint}: does not fit {settings}: {error}") from None
    return model.eval()


def _read_settings(path: Path) -> dict[str, Any]:
    config = read_yaml(path)
    backbone = config.get("ssl_backbone", "wavlm")
    if backbone not in BACKBONES:
        raise InputError(f"{path}: unknown ssl_backbone {backbone!r}; use {' or '.join(BACKBONES)}")
    return {**_HEADS, **config, "ssl_backbone": backbone}


def _read_weights(path: Path) -> dict[str, Tensor]:
    stored = read_pickle(path)
    for key in ("model", "state_dict"):
        if isinstance(stored, dict) and isinstance(stored.get(key), dict):
            stored = stored[key]
    if not isinstance(stored, dict) or not stored or not all(isinstance(value, Tensor) for value in stored.values()):
        raise InputError(f"{path}: not a released DistilMOS: it holds no weights under 'model'")
    return stored


def _encoder(config: dict[str, Any], weights: dict[str, Tensor], settings: str, checkpoint: str) -> SSLEncoder:
    """Build the encoder; the released network never normalises waveforms, even if the pretrained encoder did."""
    shape: WaveformConfig
    if config["ssl_backbone"] == "wavlm":
        given = config.get("wavlm_cfg") or _WAVLM
        shape = replace(wavlm_config(given, settings), normalize_input=False)
        return build_encoder(shape, weights, FAIRSEQ, checkpoint, _UNUSED_ENCODER)
    shape = transformers_config(config.get("w2v2_cfg") or {}, settings, wavlm=False, normalize=False)
    return build_encoder(shape, weights, TRANSFORMERS, checkpoint, _UNUSED_ENCODER)


def _our_name(name: str) -> str:
    """Return our name of a weight: the released decoder has one bidirectional LSTM, ours has one per direction."""
    if not name.startswith(_LSTM):
        return name
    part = name.removeprefix(_LSTM)
    direction = "backward" if part.endswith("_reverse") else "forward"
    return f"decoder.lstm_{direction}.{part.removesuffix('_reverse')}"


def _difference(expected: set[str], found: set[str]) -> str:
    missing, unknown = sorted(expected - found), sorted(found - expected)
    parts = [f"{len(missing)} weights are missing, such as {missing[0]}"] if missing else []
    parts += [f"{len(unknown)} are unknown, such as {unknown[0]}"] if unknown else []
    return "; ".join(parts)
