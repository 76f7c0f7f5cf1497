"""Exchange model directories over the Hugging Face hub."""

from __future__ import annotations

import shutil
from pathlib import Path

from distilmos.data.hub import fetch_hub, push_hub
from distilmos.errors import InputError
from distilmos.files import temporary_name
from distilmos.model.calibration import read_calibrations
from distilmos.model.directory import CONFIG, ONNX, PUBLISHED, WEIGHTS
from distilmos.model.onnx_file import open_onnx

FILES = (CONFIG, WEIGHTS, *PUBLISHED.extra)


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
    _require_usable(Path(directory))
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
    _require_usable(source)
    temporary = temporary_name(directory)
    try:
        temporary.mkdir(parents=True)
        for name in FILES:
            if (source / name).exists():
                shutil.copyfile(source / name, temporary / name)
        temporary.replace(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _require_usable(directory: Path) -> None:
    """Load a model, by onnxruntime if it has a graph, which needs no torch; then without one by torch.

    Raises:
        InputError: if it cannot be loaded.
    """
    if (directory / ONNX).exists():
        open_onnx(directory / ONNX)
        return
    from distilmos.model.package import load_model_dir

    load_model_dir(directory)
