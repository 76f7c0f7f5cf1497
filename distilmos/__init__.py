"""DistilMOS: predict the mean opinion score (MOS) of speech, with layer-wise self-distillation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distilmos.api import Predictor

__version__ = "0.1.0"


def load(
    name: str | Path | None = None,
    device: str = "auto",
    runtime: str = "auto",
    calibrated: str | None = None,
    **options: float | int | str | None,
) -> Predictor:
    """Load a model for prediction: `distilmos.load().predict("some.wav").mos`.

    Args:
        name: name of an embedded model, a model directory, or a hub id (OWNER/NAME); None for the default model.
        device: "auto" (the GPU if there is one), "cpu", "cuda", ...
        runtime: "auto", "onnx" or "torch"; see distilmos.inference.runtime.load_runtime.
        calibrated: name of a calibration of the model, see `distilmos calibrate`; None for the scores of the model.
        options: batch_seconds, window_seconds, workers, corpus; see distilmos.inference.predict.PredictOptions.

    Raises:
        InputError: if the model, device, runtime or option does not exist.
        FailedError: if the model cannot be fetched from the hub.
    """
    from distilmos.api import load_predictor  # imports numpy, which `import distilmos` must not
    from distilmos.model.directory import DEFAULT

    return load_predictor(DEFAULT if name is None else name, device, runtime, calibrated, **options)
