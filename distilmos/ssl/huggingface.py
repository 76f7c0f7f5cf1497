"""Load HuBERT, wav2vec 2.0, WavLM and Whisper in the format of Hugging Face transformers, without that package."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from torch import Tensor

from distilmos.data.tables import read_json
from distilmos.errors import InputError
from distilmos.ssl.config import WaveformConfig
from distilmos.ssl.encoder import SSLEncoder
from distilmos.ssl.pickles import read_pickle
from distilmos.ssl.weights import TRANSFORMERS, build_encoder, read_safetensors
from distilmos.ssl.whisper_formats import MODEL_TYPE as WHISPER
from distilmos.ssl.whisper_formats import TRANSFORMERS as WHISPER_NAMES
from distilmos.ssl.whisper_formats import build_whisper, whisper_config

CONFIG = "config.json"
Settings = dict[str, Any]
# Settings of a feature extractor, which prepares the waveform, and of a processor, which adds a tokenizer to one. From
# version 5 on, transformers saves a processor in the second file only.
EXTRACTOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
# In order of preference; each is one file, or shards with an index.
WEIGHTS = ("model.safetensors", "pytorch_model.bin")

# transformers leaves settings with these default values out of config.json.
_DEFAULTS: dict[str, Any] = {
    "conv_dim": [512] * 7,
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "conv_bias": False,
    "feat_extract_norm": "group",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16,
    "do_stable_layer_norm": False,
    "num_buckets": 320,
    "max_bucket_distance": 800,
}
_SUPPORTED: dict[str, Any] = {
    "hidden_act": "gelu",
    "feat_extract_activation": "gelu",
    "layer_norm_eps": 1e-5,
    "feat_proj_layer_norm": True,
    "conv_pos_batch_norm": False,
    "adapter_attn_dim": None,
}
MODEL_TYPES = ("hubert", "wav2vec2", "wavlm")


def load_huggingface(directory: Path) -> SSLEncoder:
    """Load the encoder of a directory that `save_pretrained` of transformers wrote, with or without a head.

    The states equal the hidden_states of transformers 5.0 and later. The waveform is normalised first if the settings
    of the feature extractor (preprocessor_config.json or processor_config.json) say so. Without these settings a
    message says that the waveform is normalised as in the pretraining of the published models.

    Raises:
        InputError: if a file is missing, damaged or of another model.
    """
    settings = read_json(directory / CONFIG, Settings)
    kind = settings.get("model_type")
    if kind == WHISPER:
        shape = whisper_config(settings, str(directory / CONFIG))
        return build_whisper(shape, _read_weights(directory), WHISPER_NAMES, str(directory))
    if kind not in MODEL_TYPES:
        known = ", ".join([*MODEL_TYPES, WHISPER])
        raise InputError(f"{directory / CONFIG}: a model of type {kind!r}; only {known} are supported")
    normalize = _normalizes(directory, settings)
    config = transformers_config(settings, str(directory / CONFIG), wavlm=kind == "wavlm", normalize=normalize)
    weights = _read_weights(directory)
    prefix = f"{kind}."
    if any(name.startswith(prefix) for name in weights):  # the encoder of a model with a head
        weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    return build_encoder(config, weights, TRANSFORMERS, str(directory))


def transformers_config(settings: dict[str, Any], where: str, *, wavlm: bool, normalize: bool) -> WaveformConfig:
    """Translate the settings of transformers' HubertConfig, Wav2Vec2Config or WavLMConfig.

    Args:
        settings: content of config.json.
        where: path of the file, for errors.
        wavlm: whether the model is a WavLM.
        normalize: whether to normalise waveforms first.

    Raises:
        InputError: if the settings are not a mapping, or have an unsupported value.
    """
    if not isinstance(settings, dict):
        raise InputError(f"{where}: the settings of the encoder are {type(settings).__name__}, not a mapping")
    for key, value in _SUPPORTED.items():
        if settings.get(key, value) != value:
            raise InputError(f"{where}: {key} {settings[key]!r} is not supported, only {value!r} is")
    settings = {**_DEFAULTS, **settings}
    try:
        shapes = zip(settings["conv_dim"], settings["conv_kernel"], settings["conv_stride"], strict=True)
        if settings["feat_extract_norm"] not in ("group", "layer"):
            raise ValueError(f"feat_extract_norm {settings['feat_extract_norm']!r}")
        if not isinstance(settings["do_stable_layer_norm"], bool):
            raise ValueError(f"do_stable_layer_norm {settings['do_stable_layer_norm']!r}")
        return WaveformConfig(
            conv_layers=tuple((int(c), int(k), int(s)) for c, k, s in shapes),
            conv_bias=bool(settings["conv_bias"]),
            conv_norm=settings["feat_extract_norm"],
            embed_dim=int(settings["hidden_size"]),
            ffn_dim=int(settings["intermediate_size"]),
            num_heads=int(settings["num_attention_heads"]),
            num_layers=int(settings["num_hidden_layers"]),
            pos_kernel=int(settings["num_conv_pos_embeddings"]),
            pos_groups=int(settings["num_conv_pos_embedding_groups"]),
            norm_first=settings["do_stable_layer_norm"],
            normalize_input=normalize,
            normalize_eps=1e-7,
            project_always=True,
            relative_buckets=int(settings["num_buckets"]) if wavlm else 0,
            relative_distance=int(settings["max_bucket_distance"]) if wavlm else 0,
            relative_gate=wavlm,
        )
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{where}: the configuration is incomplete or unknown: {error}") from None


def _normalizes(directory: Path, settings: dict[str, Any]) -> bool:
    """Return whether a model's feature extractor normalises waveforms; the default of an extractor is to normalise.

    HuBERT, wav2vec 2.0 and WavLM were pretrained on normalised waveforms if their front end has layer norms (Large,
    XLS-R), and on others if it has a group norm (Base): the recipes of fairseq and Microsoft. This holds if `directory`
    has no settings of an extractor, with a message.
    """
    extractor: Any = None
    if (directory / EXTRACTOR).exists():
        extractor = read_json(directory / EXTRACTOR, Settings)
    elif (directory / PROCESSOR).exists():
        extractor = read_json(directory / PROCESSOR, Settings).get("feature_extractor")
    if isinstance(extractor, dict):
        return bool(extractor.get("do_normalize", True))
    norm = settings.get("feat_extract_norm", _DEFAULTS["feat_extract_norm"])
    print(
        f"{directory}: neither {EXTRACTOR} nor {PROCESSOR} says whether waveforms are normalised; "
        f"they are{'' if norm == 'layer' else ' not'}, as in the pretraining of published models with {norm} norm",
        file=sys.stderr,
    )
    return bool(norm == "layer")


def _read_weights(directory: Path) -> dict[str, Tensor]:
    """Read the first of WEIGHTS that exists."""
    for name in WEIGHTS:
        index = directory / f"{name}.index.json"
        if (directory / name).exists():
            return _read_file(directory / name)
        if index.exists():
            shards = read_json(index, Settings).get("weight_map")
            if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
                raise InputError(f"{index}: has no weight_map")
            # Use the name alone: an index must not point outside its directory.
            files = sorted({directory / Path(shard).name for shard in shards.values()})
            return {key: tensor for file in files for key, tensor in _read_file(file).items()}
    raise InputError(f"{directory}: has {CONFIG}, but neither {' nor '.join(WEIGHTS)}")


def _read_file(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    weights = read_pickle(path)
    if not isinstance(weights, dict):
        raise InputError(f"{path}: holds {type(weights).__name__}, not weights")
    return {str(name): tensor for name, tensor in weights.items()}
