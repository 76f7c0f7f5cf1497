"""Model directories: config.yaml and model.safetensors, everything that prediction needs; card and calibrations."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save

from distilmos.data.hub import HUB_ID, Files, fetch_hub, push_hub
from distilmos.data.schema import MOS_SCALE, Scale
from distilmos.data.tables import read_yaml
from distilmos.errors import InputError
from distilmos.files import atomic_path, temporary_name, write_text
from distilmos.model.calibration import CALIBRATIONS, read_calibrations
from distilmos.model.config import ModelConfig
from distilmos.model.networks import DistilMOS, MOSNetwork, build_model
from distilmos.ssl.config import config_from_dict
from distilmos.ssl.encoder import with_weights
from distilmos.ssl.weights import read_safetensors

FORMAT = 1
SCALES_FORMAT = 2  # of models with other scales than that of MOS, which older versions would ignore
CONFIG, WEIGHTS, CARD = "config.yaml", "model.safetensors", "README.md"
FILES = (CONFIG, WEIGHTS, CARD, CALIBRATIONS)  # the first two are needed
MODELS = Path(__file__).parents[1] / "models"
PUBLISHED = Files(settings=[[CONFIG]], weights=[[WEIGHTS]], extra=[CARD, CALIBRATIONS])
DEFAULT = "tcdvoip"  # the model that predicts if the user names none


def save_model_dir(directory: str | Path, model: MOSNetwork, about: dict[str, Any] | None = None) -> None:
    """Write a model for `load_model_dir`.

    Args:
        directory: created if it does not exist.
        model: the network.
        about: further information (plain YAML types), stored under "about".
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
        **({"scales": [[s.lowest, s.highest, s.name] for s in model.scales]} if other_scales else {}),
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
    """Return the directory of a model; a hub id is fetched unless it is in the cache of the hub.

    Args:
        name_or_path: the name of a model that ships with the package, a directory, or a hub id (OWNER/NAME).

    Raises:
        InputError: if no such model exists.
        FailedError: if it cannot be fetched.
    """
    name = str(name_or_path)
    if name in model_names():
        return MODELS / name
    if Path(name).is_dir():
        if (Path(name) / "final" / CONFIG).exists():
            raise InputError(f"{name}: is an experiment; use its model, {name}/final, or {name}/model from stage 8")
        return Path(name)
    if HUB_ID.fullmatch(name):
        return fetch_hub(name, PUBLISHED)
    known = ", ".join(model_names())
    raise InputError(f"{name}: is not a directory, a model that ships with distilmos ({known}), or a hub id")


def read_corpora(directory: str | Path) -> tuple[str, ...]:
    """Return the corpora whose rating scales a model has learned; none for a model of a single corpus.

    Raises:
        InputError: if config.yaml is missing or not that of a model.
    """
    path = Path(directory) / CONFIG
    try:
        return _corpora(read_yaml(path))
    except TypeError as error:
        raise InputError(f"{path}: not the configuration of a model: {error}") from None


def _corpora(config: dict[str, Any]) -> tuple[str, ...]:
    return tuple(map(str, config.get("corpora", ())))


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
        described = (_corpora(config), _scales(config), config.get("token_layers"))
        create = partial(build_model, settings, encoder, clusters, *described)
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
    return model.eval()


def push_model(directory: str | Path, repository: str, *, private: bool) -> str:
    """Upload a model directory to the Hugging Face hub, as one commit; return its address.

    Args:
        directory: of the model; it is loaded first, so that no broken model is published.
        repository: OWNER/NAME.
        private: make the repository private if it has to be created.

    Raises:
        InputError: if the model cannot be loaded.
        FailedError: if the hub refuses the upload.
    """
    load_model_dir(directory)
    read_calibrations(directory)
    return push_hub(Path(directory), repository, FILES, private=private)


def pull_model(repository: str, directory: str | Path) -> None:
    """Copy a model from the Hugging Face hub to a new directory; from the cache if the hub cannot be reached.

    Raises:
        InputError: if the directory exists, or the repository is not a model.
        FailedError: if it cannot be fetched.
    """
    directory = Path(directory)
    if directory.exists():
        raise InputError(f"{directory}: already exists")
    source = fetch_hub(repository, PUBLISHED, newest=True)
    load_model_dir(source)
    temporary = temporary_name(directory)
    try:
        temporary.mkdir(parents=True)
        for name in FILES:
            if (source / name).exists():
                shutil.copyfile(source / name, temporary / name)
        temporary.replace(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
