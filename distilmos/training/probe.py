"""What this machine does in a second: short measurements of what stages 2 to 6 compute, on batches as they have them.

Recordings are random samples of the lengths of the data, so that no audio is read.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from distilmos.data.audio import SAMPLE_RATE
from distilmos.data.packing import pack_by_length
from distilmos.inference.predict import PredictOptions, score_audio
from distilmos.memory import keep_freed_memory
from distilmos.model.losses import multitask_loss, utterance_pairs
from distilmos.model.networks import MOSNetwork
from distilmos.ssl.encoder import SSLEncoder
from distilmos.ssl.forward import pad_audio
from distilmos.tokens.labels import nearest
from distilmos.training.batching import BatchOrder
from distilmos.training.config import TrainConfig
from distilmos.training.optimizer import make_optimizer
from distilmos.training.trainer import uses_bfloat16

TIMED = 2  # batches, behind the longest one, which warms up and takes the most memory
PREDICTED = 60.0  # seconds of audio
KMEANS_FRAMES = 5000
KMEANS_ITERATIONS = 10


@dataclass(frozen=True)
class Rates:
    """What was measured.

    Attributes:
        start: seconds of computing time that a command takes before it begins, as this one did.
        forward: seconds of audio a second in stages 2 and 4, of a job with one CPU thread or a GPU.
        predict: the same of stage 6, and of the dev set in stage 5.
        step: the same of a training step, padding not counted.
        flops: of the encoder's forward pass, for each second of audio; a multiplication and an addition are two.
        model_flops: the same of the model that is trained, without its token predictors.
        kmeans_init: seconds for each frame and layer to draw first centroids, of a job with one CPU thread.
        kmeans_iteration: the same of an iteration.
        forward_memory, predict_memory, step_memory: bytes at the most; of the process on a CPU, in use on a GPU.
    """

    start: float
    forward: float
    predict: float
    step: float
    flops: float
    model_flops: float
    kmeans_init: float
    kmeans_iteration: float
    forward_memory: int
    predict_memory: int
    step_memory: int


def measure_rates(
    model: MOSNetwork,
    encoder: SSLEncoder,
    config: TrainConfig,
    lengths: Sequence[int],
    clusters: int,
    batch_seconds: float,
    device: torch.device,
    threads: int,
) -> Rates:
    """Measure all of it; the model's weights are changed.

    Args:
        model: on `device`, with the weights frozen that training freezes.
        encoder: of stages 2 and 4, on `device`; may be a part of the model.
        config: the settings of training.
        lengths: samples of each training recording.
        clusters: K.
        batch_seconds: padded seconds of a batch in stages 2 and 4.
        device: where to measure.
        threads: CPU threads of stages 5 and 6.
    """
    start = time.process_time()
    # What takes least memory comes first: on a CPU the peak of the process cannot be set back.
    with _threads(1):
        forward, flops = _forward(encoder, lengths, clusters, batch_seconds, device)
    forward_memory = _peak_memory(device)
    with _threads(threads):
        predict, model_flops = _predict(model, lengths, device)
    predict_memory = _peak_memory(device)
    with _threads(1):
        init, iteration = _kmeans(encoder.config.embed_dim, clusters)
    with _threads(threads):
        keep_freed_memory()  # as training does
        step = _train(model, config, lengths, device)
    return Rates(
        start=start,
        forward=forward,
        predict=predict,
        step=step,
        flops=flops,
        model_flops=model_flops,
        kmeans_init=init,
        kmeans_iteration=iteration,
        forward_memory=forward_memory,
        predict_memory=predict_memory,
        step_memory=_peak_memory(device),
    )


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Compute with so many CPU threads, scikit-learn included."""
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        torch.set_num_threads(before)


def _peak_memory(device: torch.device) -> int:
    """Return the most memory in bytes that was in use since the last call, or, on a CPU, ever."""
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return peak
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _noise(lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    return pad_audio([0.1 * torch.randn(length) for length in lengths])


def _rate(batches: list[list[int]], run: Callable[[list[int]], None], device: torch.device) -> float:
    """Return how many seconds of audio a second `run` takes in batches, each a list of lengths; the first warms up."""
    passed = 0.0
    for number, batch in enumerate(batches):
        started = time.perf_counter()
        run(batch)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if number:
            passed += time.perf_counter() - started
    return sum(map(sum, batches[1:])) / SAMPLE_RATE / passed


def _chosen(batches: list[list[int]]) -> list[list[int]]:
    """Return the largest batch, and TIMED others evenly from all of them, in order of the lengths of their members."""
    ordered = sorted(batches, key=max, reverse=True)
    largest = max(batches, key=lambda batch: max(batch) * len(batch))
    return [largest, *(ordered[(2 * number + 1) * len(ordered) // (2 * TIMED)] for number in range(TIMED))]


@torch.inference_mode()
def _forward(
    encoder: SSLEncoder, lengths: Sequence[int], clusters: int, batch_seconds: float, device: torch.device
) -> tuple[float, float]:
    encoder.eval()
    packed = pack_by_length(lengths, batch_seconds * SAMPLE_RATE)
    batches = _chosen([[lengths[index] for index in batch] for batch in packed])
    centroids = torch.randn(clusters, encoder.config.embed_dim, device=device)

    def run(batch: list[int]) -> None:
        audio, num_samples = _noise(batch)
        layers, _ = encoder(audio.to(device), num_samples.to(device))
        for layer in layers:
            nearest(layer.flatten(0, 1), centroids).cpu()

    return _rate(batches, run, device), _flops(min(batches, key=sum), run)


def _flops(batch: list[int], run: Callable[[list[int]], None]) -> float:
    """Return the FLOPs of `run` for a second of audio, by those of a batch of lengths."""
    with FlopCounterMode(display=False) as counter:
        run(batch)
    total: int = counter.get_total_flops()
    return total / sum(batch) * SAMPLE_RATE


def _kmeans(width: int, clusters: int) -> tuple[float, float]:
    """Return seconds for each frame of the first centroids and of an iteration."""
    from sklearn.cluster import KMeans

    frames = np.random.default_rng(0).standard_normal((max(KMEANS_FRAMES, 2 * clusters), width), np.float32)

    def timed(iterations: int) -> float:
        started = time.perf_counter()
        KMeans(clusters, n_init=1, random_state=0, tol=0, max_iter=iterations).fit(frames)
        return time.perf_counter() - started

    timed(1)
    once = timed(1)
    more = max(0.0, timed(1 + KMEANS_ITERATIONS) - once) / KMEANS_ITERATIONS
    return once / len(frames), more / len(frames)


def _predict(model: MOSNetwork, lengths: Sequence[int], device: torch.device) -> tuple[float, float]:
    model.eval()
    drawn = np.random.default_rng(0).permutation(len(lengths))
    held = np.cumsum([lengths[index] for index in drawn])
    chosen = drawn[: 1 + int(np.searchsorted(held, PREDICTED * SAMPLE_RATE))]

    def run(batch: list[int]) -> None:
        waves = [0.1 * np.random.default_rng(0).standard_normal(length, np.float32) for length in batch]
        recordings = ((str(number), [wave]) for number, wave in enumerate(waves))
        list(score_audio(model, recordings, device, PredictOptions()))

    return _rate([[SAMPLE_RATE], [lengths[index] for index in chosen]], run, device), _flops([SAMPLE_RATE], run)


def _train(model: MOSNetwork, config: TrainConfig, lengths: Sequence[int], device: torch.device) -> float:
    model.train()
    optimizer = make_optimizer(model, config)
    order = BatchOrder(lengths, round(config.batch_seconds * SAMPLE_RATE), config.seed)
    batches = _chosen([[lengths[index] for index in plan.members] for plan in order.epoch(0)])

    def run(batch: list[int]) -> None:
        audio, num_samples = _noise(batch)
        with torch.autocast(device.type, torch.bfloat16, enabled=uses_bfloat16(config, device)):
            prediction = model(audio.to(device), num_samples.to(device))
            layers, frames = len(prediction.token_logits), int(prediction.num_frames.max())
            tokens = torch.zeros(len(batch), layers, frames, dtype=torch.long, device=device)
            losses = multitask_loss(
                prediction,
                utterance_pairs(prediction.mos, torch.full_like(prediction.mos, 3.0)),
                tokens if layers and config.token_weight > 0 else None,
                kind=config.regression_loss,
                clip=0.0,
                token_weight=config.token_weight,
            )
        optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        optimizer.step()

    return _rate(batches, run, device)
