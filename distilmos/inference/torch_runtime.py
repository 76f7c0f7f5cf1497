"""Prediction with torch, on CPUs and GPUs, in padded batches; the network makes sure that no score depends on them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch

from distilmos.data.audio import SAMPLE_RATE
from distilmos.data.packing import pack_by_length
from distilmos.inference.runtime import ScoreWindows, WindowScores
from distilmos.model.directory import ModelInfo
from distilmos.model.networks import MOSNetwork
from distilmos.model.package import describe
from distilmos.ssl.forward import pad_audio, to_device

# Batches at a time. On a CPU each gets a share of the cores: two batches on one core each run a fifth faster than one
# batch on two cores, because the LSTM and many small steps of a small network leave cores idle. On a GPU, one batch is
# prepared while the other is computed.
LANES = 2
POOL = 16  # batches are formed from windows of similar length among this many batches of audio


class TorchRuntime:
    """A network.

    Attributes:
        model: the network, in evaluation mode, on `device`.
        device: device to compute on.
        info: what prediction needs to know of the model.
    """

    def __init__(self, model: MOSNetwork, device: torch.device, info: ModelInfo | None = None) -> None:
        """Move `model` to `device`, in evaluation mode; without `info`, it has no name and no version."""
        self.model = model.to(device).eval()
        self.device = device
        self.info = info or describe(model)

    def pool_seconds(self, batch_seconds: float) -> float:
        """Return how much audio to collect before it is scored."""
        return POOL * batch_seconds

    @contextmanager
    def lanes(self, batch_seconds: float) -> Iterator[ScoreWindows]:
        """Start up to LANES threads that run batches, each with an equal share of the CPU cores."""
        threads = torch.get_num_threads()
        count = LANES if self.device.type != "cpu" else min(LANES, threads)
        share = max(1, threads // count)
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(share,)) as executor:

            def score(windows: Sequence[np.ndarray]) -> list[WindowScores]:
                batches = pack_by_length([window.size for window in windows], batch_seconds * SAMPLE_RATE / LANES)
                found: dict[int, WindowScores] = {}
                for batch, scores in zip(
                    batches,
                    executor.map(lambda batch: self._run([windows[index] for index in batch]), batches),
                    strict=True,
                ):
                    found.update(zip(batch, scores, strict=True))
                return [found[index] for index in range(len(windows))]

            try:
                yield score
            finally:
                torch.set_num_threads(threads)  # a lane's setting becomes the default of later threads

    @torch.inference_mode()
    def _run(self, windows: list[np.ndarray]) -> list[WindowScores]:
        audio, num_samples = pad_audio([torch.from_numpy(window) for window in windows])
        prediction = self.model(to_device(audio, self.device), num_samples.to(self.device), with_tokens=False)
        scores, counts = prediction.frame_scores.float().cpu().numpy(), prediction.num_frames.tolist()
        novelty = [math.nan] * len(windows) if prediction.novelty is None else prediction.novelty.tolist()
        return [
            WindowScores(found[:count].copy(), new) for found, count, new in zip(scores, counts, novelty, strict=True)
        ]
