"""Prediction with onnxruntime on CPUs, without torch: a window is never padded, so that it has no batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from distilmos.devices import threads
from distilmos.errors import InputError
from distilmos.inference.runtime import ScoreWindows, WindowScores
from distilmos.model.directory import ONNX
from distilmos.model.onnx_file import AUDIO, open_onnx

POOL_SECONDS = 120.0  # collected for each core: the more, the less often a core waits for the last window of another


class OnnxRuntime:
    """The graph `model.onnx` of a model directory.

    Attributes:
        info: what prediction needs to know of the model.
    """

    def __init__(self, directory: Path) -> None:
        """Open the graph.

        Raises:
            InputError: if it or the weights are missing or faulty.
        """
        self._path = directory / ONNX
        self._session, self.info = open_onnx(self._path)

    def pool_seconds(self, batch_seconds: float) -> float:
        """Return how much audio to collect before it is scored; `batch_seconds` is not used."""
        return POOL_SECONDS * threads()

    @contextmanager
    def lanes(self, batch_seconds: float) -> Iterator[ScoreWindows]:
        """Start a thread for each core: several small networks on one core each are faster than one on several.

        `batch_seconds` is not used: each thread computes one window at a time.
        """
        with ThreadPoolExecutor(threads()) as executor:

            def score(windows: Sequence[np.ndarray]) -> list[WindowScores]:
                # Long ones first, so that all threads end at about the same time.
                order = sorted(range(len(windows)), key=lambda index: -windows[index].size)
                found = dict(zip(order, executor.map(lambda index: self._run(windows[index]), order), strict=True))
                return [found[index] for index in range(len(windows))]

            yield score

    def _run(self, samples: np.ndarray) -> WindowScores:
        try:
            scores, *novelty = self._session.run(None, {AUDIO: samples})
        except Exception as error:  # see open_onnx
            raise InputError(f"{self._path}: cannot be computed: {(str(error).splitlines() or [''])[0]}") from None
        if scores.shape[1:] != (len(self.info.scales),) or not len(scores):
            raise InputError(f"{self._path}: gives {scores.shape} for {len(self.info.scales)} outputs")
        return WindowScores(scores, float(novelty[0][0]) if novelty else math.nan)
