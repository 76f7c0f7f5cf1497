"""A model directory: config.yaml and model.safetensors, all that prediction needs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from distilmos.data.hub import HUB_ID, fetch_hub, push_hub
from distilmos.data.tables import read_lines
from distilmos.errors import InputError
from distilmos.files import atomic_path, temporary_name, write_text
from distilmos.model.config import ModelConfig
from distilmos.model.networks import DistilMOS, MOSNetwork, build_model
from distilmos.ssl.config import EncoderConfig

FORMAT = 1
CONFIG, WEIGHTS, CARD = "config.yaml", "model.safetensors", "README.md"
MODELS = Path(__file__).parents[1] / "models"
DEFAULT = "tcdvoip"  # what predicts where no model is named


def save_model_dir(directory: str | Path, model: MOSNetwork, about: dict[str, Any] | None = None) -> None:
    """Write a model so that `load_model_dir` gives it back.

    Args:
        directory: is made if it does not exist.
        model: the network.
        about: further facts for the reader (plain YAML types), stored under "about".
    """
    directory = Path(directory)
    config = {
        "format": FORMAT,
        "encoder": model.encoder_config.to_dict(),
        "clusters": model.clusters if isinstance(model, DistilMOS) else None,
        "kmeans": model.kmeans if isinstance(model, DistilMOS) else None,
        "corpora": list(model.corpus_offsets.names) if model.corpus_offsets else [],
        "model": {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in ModelConfig.model_dump(model.config, include=set(ModelConfig.model_fields)).items()
        },
        "about": about or {},
    }
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    with atomic_path(directory / WEIGHTS) as temporary:
        temporary.write_bytes(save(tensors))
    write_text(directory / CONFIG, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))


def model_names() -> list[str]:
    """Return the names of the models that ship with the package."""
    return sorted(path.parent.name for path in MODELS.glob(f"*/{CONFIG}"))


def find_model(name_or_path: str | Path) -> Path:
    """Return the directory of a model; one with a hub id is fetched, unless it is in the hub's cache.

    Args:
        name_or_path: the name of a model that ships with the package, a directory, or a hub id (OWNER/NAME).

    Raises:
        InputError: if there is none.
        FailedError: if it cannot be fetched.
    """
    name = str(name_or_path)
    if name in model_names():
        return MODELS / name
    if Path(name).is_dir():
        if (Path(name) / "final" / CONFIG).exists():
            raise InputError(f"{name}: an experiment; its model is {name}/final, or what stage 8 writes, {name}/model")
        return Path(name)
    if HUB_ID.fullmatch(name):
        return fetch_hub(name, [CARD, CONFIG], [[WEIGHTS]])
    known = ", ".join(model_names())
    raise InputError(f"{name}: neither a directory, nor a model that ships with distilmos ({known}), nor a hub id")


def load_model_dir(directory: str | Path) -> MOSNetwork:
    """Load a model directory in evaluation mode.

    Raises:
        InputError: if a file is missing, damaged or of a newer format.
    """
    directory = Path(directory)
    path = directory / CONFIG
    try:
        config = yaml.safe_load("\n".join(read_lines(path)))
        if config["format"] != FORMAT:
            raise InputError(f"{path}: format {config['format']} is not {FORMAT}; use a newer distilmos")
        encoder = EncoderConfig.from_dict(config["encoder"])
        corpora = tuple(map(str, config.get("corpora", ())))
        model = build_model(ModelConfig(**config["model"]), encoder, config["clusters"], corpora)
        if isinstance(model, DistilMOS):
            model.kmeans = str(config.get("kmeans") or "")
    except (yaml.YAMLError, KeyError, TypeError, ValueError, ValidationError, RuntimeError, MemoryError) as error:
        raise InputError(f"{path}: not the configuration of a model: {error}") from None
    weights = directory / WEIGHTS
    try:
        model.load_state_dict(load_file(weights))
    except FileNotFoundError:
        raise InputError(f"{weights}: no such file") from None
    except (SafetensorError, OSError, RuntimeError) as error:
        raise InputError(f"{weights}: does not hold the weights of {path}: {error}") from None
    return model.eval()


def push_model(directory: str | Path, repository: str, *, private: bool) -> str:
    """Put a model directory on the Hugging Face hub, as one commit; return its address.

    Args:
        directory: of the model; it is loaded first, so that nothing broken is published.
        repository: OWNER/NAME.
        private: whether a repository that has to be made is not public.

    Raises:
        InputError: if the model cannot be loaded.
        FailedError: if the hub refuses it.
    """
    load_model_dir(directory)
    return push_hub(Path(directory), repository, [CONFIG, WEIGHTS, CARD], private=private)


def pull_model(repository: str, directory: str | Path) -> None:
    """Copy a model from the Hugging Face hub to a directory of its own; from the hub's cache if it cannot be reached.

    Raises:
        InputError: if the directory exists, or it is not a model.
        FailedError: if it cannot be fetched.
    """
    directory = Path(directory)
    if directory.exists():
        raise InputError(f"{directory}: exists already")
    source = fetch_hub(repository, [CARD, CONFIG], [[WEIGHTS]], newest=True)
    load_model_dir(source)
    temporary = temporary_name(directory)
    try:
        temporary.mkdir(parents=True)
        for name in (CONFIG, WEIGHTS, CARD):
            if (source / name).exists():
                shutil.copyfile(source / name, temporary / name)
        temporary.replace(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
