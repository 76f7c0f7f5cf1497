"""Load checkpoints of fairseq (HuBERT, wav2vec 2.0, XLS-R) and of Microsoft's WavLM, which is derived from it.

The encoder of a model that fairseq fine-tuned for recognition is loaded too, and files that s3prl converted from those
of fairseq.
"""

from __future__ import annotations

import argparse
import ast
import re
from typing import Any

from torch import Tensor

from distilmos.errors import InputError
from distilmos.ssl.config import WaveformConfig
from distilmos.ssl.encoder import SSLEncoder
from distilmos.ssl.weights import FAIRSEQ, build_encoder

_CONV_LAYERS = re.compile(r"[\[\]()0-9,*+ ]+")
# Name of the encoder in fairseq's models for recognition (Wav2VecCtc, HubertCtc, Wav2Vec2Seq2SeqModel, ...).
_WRAPPED = re.compile(r"^(?:w2v_encoder|encoder)\.w2v_model\.")
# Settings of the encoder that fairseq's Wav2VecEncoder replaces by those of fine-tuning.
_REPLACED = ("layer_type", "adp_num", "adp_dim", "adp_act_fn", "adp_trf_idx")
# Sections of a file of s3prl's `upstream/hubert/convert.py` and `upstream/wav2vec2/convert.py`.
_S3PRL = ("model_cfg", "task_cfg", "model_weight")

# fairseq's command line and WavLMConfig leave out settings with these default values.
_DEFAULTS: dict[str, Any] = {
    "extractor_mode": "default",
    "conv_bias": False,
    "conv_feature_layers": "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2",
    "encoder_embed_dim": 768,
    "encoder_ffn_embed_dim": 3072,
    "encoder_attention_heads": 12,
    "encoder_layers": 12,
    "conv_pos": 128,
    "conv_pos_groups": 16,
    "layer_norm_first": False,
    "activation_fn": "gelu",
    "pos_conv_depth": 1,
    "layer_type": "transformer",
    "conv_pos_batch_norm": False,
}
_WAVLM_DEFAULTS: dict[str, Any] = {
    **_DEFAULTS,
    "normalize": False,
    "relative_position_embedding": False,
    "num_buckets": 320,
    "max_distance": 1280,
    "gru_rel_pos": False,
}


def as_fairseq(content: Any) -> Any:
    """Return the content of a file of s3prl in fairseq's layout; any other content unchanged."""
    if not isinstance(content, dict) or not content.keys() >= set(_S3PRL):
        return content
    model, task, weights = (content[section] for section in _S3PRL)
    return {"cfg": {"model": model, "task": task}, "model": weights}


def unwrap(checkpoint: dict[str, Any], where: str) -> tuple[dict[str, Any], bool]:
    """Take the encoder out of a model that fairseq fine-tuned for recognition.

    Args:
        checkpoint: content of the file, in fairseq's layout.
        where: its path, for errors.

    Returns:
        a checkpoint of the encoder, and whether it was part of such a model; if not, it is `checkpoint` itself.

    Raises:
        InputError: if the settings of the encoder are missing.
    """
    weights = checkpoint["model"]
    inner = {_WRAPPED.sub("", name): weights[name] for name in weights if _WRAPPED.match(str(name))}
    if not inner:
        return checkpoint, False
    outer, _ = _settings(checkpoint, where)
    # Settings of the pretraining. Its task says whether waveforms are normalised; fairseq demands the same of
    # fine-tuning. They are sections, or in older versions a command line.
    settings = _section(outer, "w2v_args", where)
    if not settings:
        raise InputError(
            f"{where}: has no settings of the encoder (w2v_args), which was fine-tuned from {outer.get('w2v_path')}; "
            "use that file"
        )
    replaced = {key: outer[key] for key in _REPLACED if outer.get(key) is not None}
    found: dict[str, Any]
    if model := _section(settings, "model", where):
        found = {"args": None, "cfg": {**settings, "model": {**model, **replaced}}}
    else:
        found = {"args": argparse.Namespace(**{str(key): settings[key] for key in settings} | replaced), "cfg": None}
    return {**checkpoint, **found, "model": inner}, True


def from_fairseq(checkpoint: dict[str, Any], where: str) -> SSLEncoder:
    """Build the encoder from fairseq's checkpoint of a HuBERT or wav2vec 2.0, also of one fine-tuned for recognition.

    Args:
        checkpoint: content of the file.
        where: its path, for errors.

    Raises:
        InputError: if it is a checkpoint of another model, or incomplete.
    """
    checkpoint, _ = unwrap(checkpoint, where)
    model, task = _settings(checkpoint, where)
    name = model.get("_name")
    if name not in ("hubert", "wav2vec2"):
        raise InputError(
            f"{where}: a fairseq checkpoint of {name or 'an unknown model'}; only HuBERT and wav2vec 2.0 are supported "
            "(others for tokens only, with --backend fairseq and the file that fairseq wrote)"
        )
    normalize = task.get("normalize", model.get("normalize"))
    if isinstance(normalize, str):  # such as an unresolved reference to another setting
        raise InputError(f"{where}: normalize is {normalize!r}, neither true nor false")
    config = _config({**_DEFAULTS, **model}, where, normalize=bool(normalize))
    return build_encoder(config, checkpoint["model"], FAIRSEQ, where)


def from_microsoft(checkpoint: dict[str, Any], where: str) -> SSLEncoder:
    """Build the encoder from Microsoft's checkpoint of a WavLM: {"cfg": settings, "model": weights}.

    Raises:
        InputError: if the checkpoint is incomplete.
    """
    config = wavlm_config(checkpoint["cfg"], where)
    return build_encoder(config, checkpoint["model"], FAIRSEQ, where)


def wavlm_config(settings: dict[str, Any], where: str) -> WaveformConfig:
    """Translate the settings of Microsoft's WavLM.

    Raises:
        InputError: if they are not a mapping, or have an unsupported value.
    """
    if not isinstance(settings, dict):
        raise InputError(f"{where}: the settings of WavLM are {type(settings).__name__}, not a mapping")
    _refuse_tensors(settings, where)
    settings = {**_WAVLM_DEFAULTS, **settings}
    return _config(settings, where, normalize=bool(settings["normalize"]))


def is_wavlm(checkpoint: dict[str, Any]) -> bool:
    """Return whether a checkpoint is of Microsoft's WavLM: its settings are flat and have relative positions."""
    settings = checkpoint.get("cfg")
    return isinstance(settings, dict) and "relative_position_embedding" in settings


def _settings(checkpoint: dict[str, Any], where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of model and task, from `cfg` of newer fairseq versions or the command line of older ones."""
    if isinstance(checkpoint.get("args"), argparse.Namespace):
        values = _section(checkpoint, "args", where)
        return {**values, "_name": values.get("arch")}, values
    settings = _section(checkpoint, "cfg", where)
    return _section(settings, "model", where), _section(settings, "task", where)


def _section(settings: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    """Return a section of the settings; an empty one if it is missing."""
    section = settings.get(name)
    if section is None:
        return {}
    if isinstance(section, argparse.Namespace):
        section = vars(section)
    if not isinstance(section, dict):
        raise InputError(f"{where}: the checkpoint's settings {name!r} are {type(section).__name__}, not a dictionary")
    _refuse_tensors(section, where)
    return section


def _refuse_tensors(settings: dict[str, Any], where: str) -> None:
    if tensors := [key for key, value in settings.items() if isinstance(value, Tensor)]:
        raise InputError(f"{where}: the checkpoint's setting {tensors[0]!r} is a tensor")


def _config(model: dict[str, Any], where: str, *, normalize: bool) -> WaveformConfig:
    """Translate settings under fairseq's names."""
    supported = {
        "activation_fn": "gelu",
        "pos_conv_depth": 1,
        "layer_type": "transformer",
        "conv_pos_batch_norm": False,
    }
    for key, value in supported.items():
        if model[key] != value:
            raise InputError(f"{where}: {key} {model[key]!r} is not supported, only {value!r} is")
    relative = bool(model.get("relative_position_embedding"))
    try:
        return WaveformConfig(
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
            normalize_input=normalize,
            relative_buckets=int(model["num_buckets"]) if relative else 0,
            relative_distance=int(model["max_distance"]) if relative else 0,
            relative_gate=relative and bool(model["gru_rel_pos"]),
        )
    except (KeyError, ValueError, TypeError, SyntaxError, MemoryError, OverflowError, RecursionError) as error:
        raise InputError(f"{where}: the checkpoint's configuration is incomplete or unknown: {error!r}") from None


def _conv_layers(expression: str) -> tuple[tuple[int, int, int], ...]:
    """Parse fairseq's `[(512,10,5)] + [(512,3,2)] * 4` (lists joined by + and repeated by *) without `eval`.

    Raises:
        ValueError: for anything else.
    """
    if not _CONV_LAYERS.fullmatch(expression):
        raise ValueError(f"conv_feature_layers: {expression!r}")
    shapes: list[tuple[int, int, int]] = []
    for term in expression.split("+"):
        listing, _, times = map(str.strip, term.partition("*"))
        layers = ast.literal_eval(listing)
        if len(times) > 3:  # digits
            raise ValueError(f"conv_feature_layers: {expression!r}: repeated {times} times")
        shapes += [(int(c), int(k), int(s)) for c, k, s in layers] * (int(times) if times else 1)
    return tuple(shapes)
