"""Model directories without torch: their files, how they are found, and the facts of a model that prediction needs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distilmos.data.hub import HUB_ID, Files, fetch_hub
from distilmos.data.schema import Scale
from distilmos.data.tables import read_yaml
from distilmos.errors import InputError

CONFIG, WEIGHTS, ONNX, CARD = "config.yaml", "model.safetensors", "model.onnx", "README.md"
CALIBRATIONS = "calibrations.json"
MODELS = Path(__file__).parents[1] / "models"
PUBLISHED = Files(settings=[[CONFIG]], weights=[[WEIGHTS]], extra=[ONNX, CARD, CALIBRATIONS])
DEFAULT = "whisper_voip"  # the model that predicts if the user names none
FINAL, EXPORTED, LOG = "final", "model", "log.jsonl"  # of an experiment: its model, that of stage 8, and its log
DIGITS = 8  # of the hash of its weights, as the version of a model


@dataclass(frozen=True)
class ModelInfo:
    """What prediction needs to know of a model beside its network.

    Attributes:
        name: name of the model.
        weights: hash of the file of its weights; empty for a network that is not from a file.
        hop: samples from one frame score to the next.
        min_samples: samples of the shortest input that gives a frame.
        max_samples: samples of the longest input; None if any length fits.
        scales: the scale of each output; the network computes as if all were 1..5.
        offsets: corpus -> its offset from the mean scale of the training corpora; empty for a single corpus.
        has_novelty: it tells how unlike its training data a recording is.
    """

    name: str
    weights: str
    hop: int
    min_samples: int
    max_samples: int | None
    scales: tuple[Scale, ...]
    offsets: Mapping[str, float] = field(default_factory=dict)
    has_novelty: bool = False

    @property
    def label(self) -> str:
        """Name and version of the model, such as `voip@98bb4001`: the version is the start of the weights' hash."""
        return f"{self.name}@{self.weights[:DIGITS]}" if self.weights else self.name


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
        if (Path(name) / FINAL / CONFIG).exists():
            raise InputError(
                f"{name}: is an experiment; use its model, {name}/{FINAL}, or {name}/{EXPORTED} from stage 8"
            )
        return Path(name)
    if HUB_ID.fullmatch(name):
        return fetch_hub(name, PUBLISHED)
    known = ", ".join(model_names())
    raise InputError(f"{name}: is not a directory, a model that ships with distilmos ({known}), or a hub id")


def name_of(directory: str | Path, config: Mapping[str, Any]) -> str:
    """Return the name of a model: that in its configuration, or else that of its directory or its experiment."""
    path = Path(directory).resolve()
    named = config.get("name") or (path.parent.name if path.name in (FINAL, EXPORTED) else path.name)
    return str(named)


def weights_version(directory: str | Path) -> str:
    """Return the hash of the file of weights in a model directory.

    Raises:
        InputError: if there is no such file.
    """
    path = Path(directory) / WEIGHTS
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None


def read_corpora(directory: str | Path) -> tuple[str, ...]:
    """Return the corpora whose rating scales a model has learned; none for a model of a single corpus.

    Raises:
        InputError: if config.yaml is missing or not that of a model.
    """
    path = Path(directory) / CONFIG
    try:
        return corpora_of(read_yaml(path))
    except TypeError as error:
        raise InputError(f"{path}: not the configuration of a model: {error}") from None


def corpora_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the corpora that the configuration of a model lists.

    Raises:
        TypeError: if it has something else in their place.
    """
    return tuple(map(str, config.get("corpora", ())))
