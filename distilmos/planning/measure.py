"""Short measurements of the computations of stages 2 to 6 on this machine.

Each takes a few batches of noise, as long as the recordings of the data; no audio is read.
"""

from __future__ import annotations

import copy
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
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

TIMED_BATCHES = 2
PREDICTED_SECONDS = 60.0
KMEANS_FRAMES = 5000
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


def _rate(batches: list[list[int]], run: Callable[[list[int]], None], device: torch.device) -> float:
    """Return the seconds of audio that `run` computes a second; each batch is a list of lengths, the first warms up."""
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
    """Return the batch with the most padded samples, for the memory, then TIMED_BATCHES spread evenly over lengths."""
    ordered = sorted(batches, key=max, reverse=True)
    largest = max(batches, key=lambda batch: max(batch) * len(batch))
    timed = ((2 * number + 1) * len(ordered) // (2 * TIMED_BATCHES) for number in range(TIMED_BATCHES))
    return [largest, *(ordered[place] for place in timed)]


@torch.inference_mode()
def measure_forward(
    encoder: SSLEncoder, lengths: Sequence[int], clusters: int, batch_seconds: float, device: torch.device
) -> float:
    """Return the rate of stages 2 and 4."""
    encoder.eval()
    packed = pack_by_length(lengths, batch_seconds * SAMPLE_RATE)
    centroids = torch.randn(clusters, encoder.config.embed_dim, device=device)

    def run(batch: list[int]) -> None:
        audio, num_samples = pad_audio([0.1 * torch.randn(length) for length in batch])
        for layer in encoder(audio.to(device), num_samples.to(device))[0]:
            nearest(layer.flatten(0, 1), centroids).cpu()

    return _rate(_chosen([[lengths[index] for index in batch] for batch in packed]), run, device)


def measure_kmeans(width: int, clusters: int) -> float:
    """Return the seconds of stage 3 for each frame of a layer."""
    from sklearn.cluster import KMeans

    frames = np.random.default_rng(0).standard_normal((max(KMEANS_FRAMES, 2 * clusters), width), np.float32)
    started = time.perf_counter()
    KMeans(clusters, n_init=1, random_state=0, tol=0, max_iter=KMEANS_ITERATIONS).fit(frames)
    return (time.perf_counter() - started) / len(frames)


def measure_prediction(model: MOSNetwork, lengths: Sequence[int], device: torch.device) -> float:
    """Return the rate of stage 6, and of the dev set in stage 5."""
    runtime = TorchRuntime(model, device)
    drawn = [lengths[index] for index in np.random.default_rng(0).permutation(len(lengths))]
    chosen = drawn[: 1 + int(np.searchsorted(np.cumsum(drawn), PREDICTED_SECONDS * SAMPLE_RATE))]

    def run(batch: list[int]) -> None:
        waves = [0.1 * np.random.default_rng(0).standard_normal(length, np.float32) for length in batch]
        recordings = ((str(number), [wave]) for number, wave in enumerate(waves))
        list(score_audio(runtime, recordings, PredictOptions()))

    return _rate([[SAMPLE_RATE], chosen], run, device)


def measure_training(model: MOSNetwork, config: TrainConfig, lengths: Sequence[int], device: torch.device) -> float:
    """Return the rate of training steps; changes the weights of the model."""
    keep_freed_memory(model.num_parameters)  # as the training does
    model.train()
    optimizer, penalty = make_optimizer(model, config), StartPenalty(model, config.l2_sp)
    order = BatchOrder(lengths, round(config.batch_seconds * SAMPLE_RATE), config.seed)
    teacher = None
    if config.distils_features and isinstance(model, EncoderNetwork):
        teacher = copy.deepcopy(model.encoder).eval()

    def run(batch: list[int]) -> None:
        size, layers = len(batch), len(model.target_layers)
        audio, num_samples = pad_audio([0.1 * torch.randn(length) for length in batch])
        tokens = torch.zeros(size, layers, model.encoder_config.num_frames(max(batch)), dtype=torch.long)
        noise = Batch(
            plan=BatchPlan(0, 0, tuple(range(size))),
            utterances=tuple(map(str, range(size))),
            audio=audio,
            num_samples=num_samples,
            scores=torch.full((size, len(model.scales)), 3.0),
            corpora=torch.full((size,), UNKNOWN),
            ratings=None,
            tokens=tokens if config.distils and config.needs_tokens else None,
        )
        optimizer.zero_grad(set_to_none=True)
        compute_objective(model, noise.to(device), config, teacher=teacher).total.backward()
        penalty.add_gradients()
        optimizer.step()

    return _rate(_chosen([[lengths[index] for index in plan.members] for plan in order.epoch(0)]), run, device)
