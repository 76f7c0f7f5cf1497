"""Model directories: config.yaml and model.safetensors, everything that prediction with torch needs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save

from distilmos.data.schema import MOS_SCALE, Scale
from distilmos.data.tables import read_yaml
from distilmos.errors import InputError
from distilmos.files import atomic_path, leftovers, write_text
from distilmos.model.config import ModelConfig
from distilmos.model.directory import CARD, CONFIG, ONNX, WEIGHTS, ModelInfo, corpora_of, name_of, weights_version
from distilmos.model.networks import DistilMOS, MOSNetwork, build_model
from distilmos.ssl.config import config_from_dict
from distilmos.ssl.encoder import with_weights
from distilmos.ssl.store import halve
from distilmos.ssl.weights import read_safetensors

FORMAT = 1
SCALES_FORMAT = 2  # of models with other scales than that of MOS, which older versions would ignore


def save_model_dir(
    directory: str | Path, model: MOSNetwork, about: dict[str, Any] | None = None, *, half: bool = False
) -> None:
    """Write a model for `load_model_dir`.

    Args:
        directory: created if it does not exist.
        model: the network.
        about: further information (plain YAML types), stored under "about".
        half: whether to store the weights as float16; loading converts them back to float32.

    Raises:
        InputError: if a weight is too large for float16.
    """
    directory = Path(directory)
    other_scales = model.scales != (MOS_SCALE,)
    foreign = isinstance(model, DistilMOS) and model.token_layers != model.encoder_config.num_layers
    config = {
        "format": SCALES_FORMAT if other_scales else FORMAT,
        "encoder": model.encoder_config.to_dict(),
        "clusters": model.clusters if isinstance(model, DistilMOS) else None,
        "kmeans": model.kmeans if isinstance(model, DistilMOS) else None,
        # Only tokens of another encoder can have other layers.
        **({"token_layers": model.token_layers} if foreign else {}),
        "corpora": list(model.corpus_offsets.names) if model.corpus_offsets else [],
        "model": {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in ModelConfig.model_dump(model.config, include=set(ModelConfig.model_fields)).items()
        },
        **({} if model.novelty_limit is None else {"novelty_limit": model.novelty_limit}),
        **({"scales": [[s.lowest, s.highest, s.name] for s in model.scales]} if other_scales else {}),
        "about": about or {},
    }
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    write_model_files(directory, save(halve(tensors) if half else tensors), config)


def write_model_files(directory: Path, weights: bytes, config: Mapping[str, Any]) -> None:
    """Write a safetensors file and a configuration in place of an older model, whose other files do not fit them."""
    for path in (directory / ONNX, directory / CARD, *leftovers(directory, WEIGHTS), *leftovers(directory, CONFIG)):
        path.unlink(missing_ok=True)
    with atomic_path(directory / WEIGHTS) as temporary:
        temporary.write_bytes(weights)
    write_text(directory / CONFIG, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))


def _scales(config: dict[str, Any]) -> tuple[Scale, ...]:
    listed = config.get("scales")
    if listed is None:
        return (MOS_SCALE,)
    scales = tuple(Scale(float(lowest), float(highest), str(name)) for lowest, highest, name in listed)
    if len({scale.name for scale in scales}) != max(1, len(listed)):
        raise ValueError("scales: none, or two of equal name")
    return scales


def load_model_dir(directory: str | Path) -> MOSNetwork:
    """Load a model directory in evaluation mode.

    Raises:
        InputError: if a file is missing, damaged or of a newer format.
    """
    directory = Path(directory)
    path = directory / CONFIG
    try:
        config = read_yaml(path)
        if config["format"] not in (FORMAT, SCALES_FORMAT):
            raise InputError(f"{path}: format {config['format']}, expected {SCALES_FORMAT}; use a newer distilmos")
        encoder = config_from_dict(config["encoder"])
        settings, clusters = ModelConfig(**config["model"]), config["clusters"]
        described = (corpora_of(config), _scales(config), config.get("token_layers"))
        create = partial(build_model, settings, encoder, clusters, *described)
        novelty_limit = config.get("novelty_limit")
        if not (novelty_limit is None or float(novelty_limit) > 0):
            raise ValueError(f"novelty_limit: {novelty_limit}")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a model configuration: {error}") from None
    weights = directory / WEIGHTS
    try:
        model = with_weights(create, read_safetensors(weights))
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: not a model configuration: {error}") from None
    except (RuntimeError, MemoryError) as error:
        raise InputError(f"{weights}: does not fit {path}: {error}") from None
    if isinstance(model, DistilMOS):
        model.kmeans = str(config.get("kmeans") or "")
    model.novelty_limit = None if novelty_limit is None else float(novelty_limit)
    return model.eval()


@torch.inference_mode()
def describe(model: MOSNetwork, name: str = "", weights: str = "") -> ModelInfo:
    """Return what prediction needs to know of a network; see ModelInfo for `name` and `weights`."""
    encoder, offsets = model.encoder_config, model.corpus_offsets
    return ModelInfo(
        name=name,
        weights=weights,
        hop=model.hop,
        min_samples=encoder.min_samples,
        max_samples=encoder.max_samples,
        scales=model.scales,
        offsets=dict(zip(offsets.names, offsets.centred().tolist(), strict=True)) if offsets else {},
        has_novelty=model.novelty_limit is not None,
    )


def load_described(directory: str | Path) -> tuple[MOSNetwork, ModelInfo]:
    """Load a model directory as `load_model_dir` does, with what prediction needs to know of it.

    Raises:
        InputError: as `load_model_dir`.
    """
    model = load_model_dir(directory)
    name = name_of(directory, read_yaml(Path(directory) / CONFIG))
    return model, describe(model, name, weights_version(directory))
