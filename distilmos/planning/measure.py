"""Short measurements of the computations of stages 2 to 6 on this machine.

Each takes a few batches of noise, as long as the recordings of the data; no audio is read.
"""

from __future__ import annotations

import copy
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from distilmos.data.audio import SAMPLE_RATE
from distilmos.data.packing import pack_by_length
from distilmos.inference.predict import PredictOptions, score_audio
from distilmos.inference.torch_runtime import TorchRuntime
from distilmos.memory import keep_freed_memory
from distilmos.model.networks import EncoderNetwork, MOSNetwork
from distilmos.model.offsets import UNKNOWN
from distilmos.ssl.encoder import SSLEncoder
from distilmos.ssl.forward import pad_audio
from distilmos.tokens.labels import nearest
from distilmos.training.batching import BatchOrder, BatchPlan
from distilmos.training.config import TrainConfig
from distilmos.training.loader import Batch
from distilmos.training.objective import compute_objective
from distilmos.training.optimizer import StartPenalty, make_optimizer
from distilmos.training.validation import dev_plans

TIMED_BATCHES = 2
PREDICTED_SECONDS = 150.0  # with fewer batches, their number would not be a multiple of that of the lanes
KMEANS_FRAMES = 20_000  # at most: with fewer, which fit in the CPU cache, a frame takes less time
KMEANS_ITERATIONS = 80  # 40,000 frames of hubert_tiny and K = 200 took 30 to 95


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Limit torch and scikit-learn to `count` CPU threads."""
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        torch.set_num_threads(before)


def peak_memory(device: torch.device) -> int:
    """Return the peak memory in bytes: of this process on a CPU, allocated since the last call on a GPU."""
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return peak
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _rate(
    first: Sequence[list[int]], timed: Sequence[list[int]], run: Callable[[list[int]], None], device: torch.device
) -> float:
    """Run batches, each given as the lengths of its recordings; return seconds of audio a second of those `timed`."""
    for batch in first:
        run(batch)
    _synchronize(device)
    started = time.perf_counter()
    for batch in timed:
        run(batch)
    _synchronize(device)
    return sum(map(sum, timed)) / SAMPLE_RATE / (time.perf_counter() - started)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _largest(batches: list[list[int]]) -> list[int]:
    """Return the batch with the most padded samples, which shows the memory."""
    return max(batches, key=lambda batch: max(batch) * len(batch))


def _typical(batches: list[list[int]]) -> list[list[int]]:
    """Return TIMED_BATCHES, spread evenly over lengths."""
    ordered = sorted(batches, key=max, reverse=True)
    return [ordered[(2 * number + 1) * len(ordered) // (2 * TIMED_BATCHES)] for number in range(TIMED_BATCHES)]


@torch.inference_mode()
def measure_forward(
    encoder: SSLEncoder, lengths: Sequence[int], clusters: int, batch_seconds: float, device: torch.device
) -> float:
    """Return the rate of stages 2 and 4."""
    encoder.eval()
    batches = _lengths_of(pack_by_length(lengths, batch_seconds * SAMPLE_RATE), lengths)
    centroids = torch.randn(clusters, encoder.config.embed_dim, device=device)

    def run(batch: list[int]) -> None:
        audio, num_samples = pad_audio([0.1 * torch.randn(length) for length in batch])
        for layer in encoder(audio.to(device), num_samples.to(device))[0]:
            nearest(layer.flatten(0, 1), centroids).cpu()

    return _rate([_largest(batches)], _typical(batches), run, device)


def _lengths_of(batches: Iterable[Sequence[int]], lengths: Sequence[int]) -> list[list[int]]:
    return [[lengths[index] for index in batch] for batch in batches]


def measure_kmeans(width: int, clusters: int, sampled: int) -> float:
    """Return the seconds of stage 3 for each of the `sampled` frames of a layer."""
    from sklearn.cluster import KMeans

    count = max(2 * clusters, min(sampled, KMEANS_FRAMES))
    frames = np.random.default_rng(0).standard_normal((count, width), np.float32)
    started = time.perf_counter()
    KMeans(clusters, n_init=1, random_state=0, tol=0, max_iter=KMEANS_ITERATIONS).fit(frames)
    return (time.perf_counter() - started) / len(frames)


def measure_prediction(model: MOSNetwork, lengths: Sequence[int], device: torch.device) -> float:
    """Return the rate of stage 6."""
    runtime = TorchRuntime(model, device)
    drawn = [lengths[index] for index in np.random.default_rng(0).permutation(len(lengths))]
    chosen = drawn[: 1 + int(np.searchsorted(np.cumsum(drawn), PREDICTED_SECONDS * SAMPLE_RATE))]

    def run(batch: list[int]) -> None:
        waves = [0.1 * np.random.default_rng(0).standard_normal(length, np.float32) for length in batch]
        recordings = ((str(number), [wave]) for number, wave in enumerate(waves))
        list(score_audio(runtime, recordings, PredictOptions()))

    return _rate([[SAMPLE_RATE]], [chosen], run, device)


def measure_training(
    model: MOSNetwork, config: TrainConfig, lengths: Sequence[int], device: torch.device
) -> tuple[float, float]:
    """Return the rates of training steps and of evaluations in stage 5; changes the weights of the model."""
    keep_freed_memory(model.num_parameters)  # as the training does
    optimizer, penalty = make_optimizer(model, config), StartPenalty(model, config.l2_sp)
    teacher = None
    if config.distils_features and isinstance(model, EncoderNetwork):
        teacher = copy.deepcopy(model.encoder).eval()

    def step(batch: list[int]) -> None:
        if config.accumulate == 1:  # otherwise a batch may find the gradients of the one before
            optimizer.zero_grad(set_to_none=True)
        compute_objective(model, _noise(batch, model, config).to(device), config, teacher=teacher).total.backward()
        penalty.add_gradients()
        optimizer.step()

    @torch.no_grad()
    def evaluate(batch: list[int]) -> None:
        compute_objective(model, _noise(batch, model, config).to(device), config, teacher=teacher)

    model.train()
    plans = BatchOrder(lengths, round(config.batch_seconds * SAMPLE_RATE), config.seed).epoch(0)
    batches = _lengths_of((plan.members for plan in plans), lengths)
    # The first step makes the states of the optimizer, which the largest batch then finds in memory.
    steps = _rate([[min(lengths)] * 2, _largest(batches)], _typical(batches), step, device)
    model.eval()
    batches = _lengths_of((plan.members for plan in dev_plans(lengths, config)), lengths)
    return steps, _rate([], _typical(batches), evaluate, device)


def _noise(lengths: list[int], model: MOSNetwork, config: TrainConfig) -> Batch:
    """Return a batch of noise."""
    size, layers = len(lengths), len(model.target_layers)
    audio, num_samples = pad_audio([0.1 * torch.randn(length) for length in lengths])
    tokens = torch.zeros(size, layers, model.encoder_config.num_frames(max(lengths)), dtype=torch.long)
    return Batch(
        plan=BatchPlan(0, 0, tuple(range(size))),
        utterances=tuple(map(str, range(size))),
        audio=audio,
        num_samples=num_samples,
        scores=torch.full((size, len(model.scales)), 3.0),
        corpora=torch.full((size,), UNKNOWN),
        ratings=None,
        tokens=tokens if config.distils and config.needs_tokens else None,
    )
