"""The two runtimes of prediction, ONNX and torch, with equal scores; torch is imported only where it computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from distilmos.devices import gpus
from distilmos.errors import InputError
from distilmos.model.directory import ONNX, ModelInfo, find_model
from distilmos.model.onnx_file import command_for

RUNTIMES = ("auto", "onnx", "torch")
CPU = ("auto", "cpu")  # devices with which ONNX computes


class WindowScores(NamedTuple):
    """What a network says of a window: frame scores, float32 (T, O), and its novelty; NaN if the model has none."""

    frames: np.ndarray
    novelty: float


# Maps windows, float32 samples (N,) each, to their scores.
ScoreWindows = Callable[[Sequence[np.ndarray]], list[WindowScores]]


class Runtime(Protocol):
    """A loaded model. Calls change no state, so several threads may share it.

    Attributes:
        info: what prediction needs to know of the model.
    """

    info: ModelInfo

    def pool_seconds(self, batch_seconds: float) -> float:
        """Return how much audio to collect before it is scored, in seconds; `batch_seconds` as for `lanes`."""

    def lanes(self, batch_seconds: float) -> AbstractContextManager[ScoreWindows]:
        """Start the threads that compute, and provide the function that scores windows in them.

        Args:
            batch_seconds: padded seconds in the forward passes that run at a time.
        """


def load_runtime(name: str | Path, runtime: str = "auto", device: str = "auto") -> Runtime:
    """Load a model.

    With `runtime` "auto", onnxruntime computes a model that has model.onnx, unless `device` names a GPU, or this
    machine has one and torch. Torch computes all else.

    Args:
        name: name of an embedded model, a model directory, or a hub id (OWNER/NAME).
        runtime: one of RUNTIMES.
        device: "auto", "cpu", "cuda", ...; ONNX has the CPU alone.

    Raises:
        InputError: if the model, the runtime or the device does not exist, or a file of the model is faulty.
        FailedError: if the model cannot be fetched.
        ModuleNotFoundError: if the package of the runtime is not installed.
    """
    if runtime not in RUNTIMES:
        raise InputError(f"runtime {runtime!r} is not one of {', '.join(RUNTIMES)}")
    if runtime == "onnx" and device not in CPU:
        raise InputError(f"runtime 'onnx' computes on the CPU; device {device!r} needs runtime 'torch'")
    directory = find_model(name)
    if runtime == "auto":
        runtime = _choose(directory, device)
    loaded = _load_onnx(directory) if runtime == "onnx" else _load_torch(directory, device)
    if not Path(name).is_dir():  # it has a name of its own
        loaded.info = replace(loaded.info, name=str(name))
    return loaded


def _choose(directory: Path, device: str) -> str:
    if device not in CPU:
        return "torch"
    has_torch, has_onnx = find_spec("torch") is not None, (directory / ONNX).exists()
    if not has_torch and not has_onnx:
        raise InputError(f"{directory}: has no {ONNX}, and torch is not installed; {command_for(directory)}")
    if not has_onnx or (has_torch and device == "auto" and gpus()):
        return "torch"
    return "onnx"


def _load_onnx(directory: Path) -> Runtime:
    from distilmos.inference.onnx_runtime import OnnxRuntime

    return OnnxRuntime(directory)


def _load_torch(directory: Path, device: str) -> Runtime:
    from distilmos.inference.torch_runtime import TorchRuntime
    from distilmos.model.package import load_described
    from distilmos.ssl.forward import choose_device

    chosen = choose_device(device)
    model, info = load_described(directory)
    return TorchRuntime(model, chosen, info)
