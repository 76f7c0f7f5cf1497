"""K-means of one layer: scikit-learn's KMeans on sampled frames, as in stage 3, against other methods.

Measures time, and the inertia of the centroids over ALL frames. The second part draws the sampled frames from fewer
utterances.
"""

from __future__ import annotations

import math
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import numpy as np
import soundfile
import torch
from corpus import make_corpus, mixed_lengths
from harness import Goal, Report, Side, parser, without_folders
from sklearn.cluster import KMeans, MiniBatchKMeans, kmeans_plusplus

from distilmos.ssl.forward import hidden_states
from distilmos.ssl.load import load_ssl
from distilmos.tokens.features import MAX_FRAMES, SPREAD, sample_frames
from distilmos.tokens.kmeans import CLUSTERS
from distilmos.tokens.labels import nearest

SEEDS = 3


def main() -> None:
    """Measure and report."""
    options = parser(__doc__, repeats=3)
    options.add_argument("--ssl", default="hubert_tiny", help="encoder (default: hubert_tiny)")
    options.add_argument("--layer", type=int, default=4, help="layer number, from 1 (default: 4)")
    options.add_argument("--seconds", type=float, default=7200.0, help="seconds of audio (default: 7200)")
    args = options.parse_args()
    warnings.simplefilter("ignore")  # scikit-learn warns that there are few frames for its batch size
    with tempfile.TemporaryDirectory() as scratch:
        audio = make_corpus(Path(scratch) / "wav", mixed_lengths(args.seconds), args.speech)
        states = _states(Path(scratch) / "wav", args.ssl, args.layer)
    frames = np.concatenate(list(states.values()))
    report = Report(
        "kmeans",
        "K-means of one layer",
        f"{audio}: {len(frames):,} frames of layer {args.layer} of {without_folders(args.ssl)}, width "
        f"{frames.shape[1]}; K = {CLUSTERS}. Sampled: {MAX_FRAMES:,} frames, drawn as in stage 2.",
    )
    sampled = _sampled(states, MAX_FRAMES, seed=1)

    def fitted(fit: Callable[[], np.ndarray]) -> Callable[[], dict[str, float]]:
        def run() -> dict[str, float]:
            started = time.perf_counter()
            centroids = fit()
            return {"seconds": time.perf_counter() - started, "inertia": _inertia(frames, centroids)}

        return run

    report.measure(
        [
            Side(
                "simple_kmeans",
                "scikit-learn's MiniBatchKMeans on all frames, with the settings of fairseq's learn_kmeans.py",
                fitted(lambda: _minibatch(frames)),
            ),
            Side("the same, sampled", "the same on the sampled frames", fitted(lambda: _minibatch(sampled))),
            Side(
                "distilmos",
                "scikit-learn's KMeans, n_init=1, on the sampled frames",
                fitted(lambda: KMeans(CLUSTERS, n_init=1, random_state=1).fit(sampled).cluster_centers_),
            ),
            Side(
                "torch",
                "Lloyd's iterations in torch from scikit-learn's first centroids, on the sampled frames",
                fitted(lambda: _lloyd(torch.from_numpy(sampled))),
            ),
        ],
        args.repeats,
    )
    few = MAX_FRAMES // 10
    even = _of_spread(states, few, frames, math.inf)
    for spread in (SPREAD, 2, 1):
        ratio = _of_spread(states, few, frames, spread) / even
        name = f"inertia with {few:,} frames from utterances with {spread} times as many, against {few:,} from all"
        report.facts[name] = f"{ratio:.4f} times"
    ours, theirs = (report.runs[name][0]["inertia"] for name in ("distilmos", "simple_kmeans"))
    report.goals = [Goal("inertia no worse than simple_kmeans'", f"{ours / theirs:.4f} times", ours <= theirs)]
    report.finish()


def _states(directory: Path, ssl: str, layer: int) -> dict[str, np.ndarray]:
    """Return the hidden states of one layer, utterance -> (T, D)."""
    paths = {path.stem: path for path in sorted(directory.iterdir())}
    durations = {name: soundfile.info(path).duration for name, path in paths.items()}
    wavs: dict[str, tuple[Path, int | None]] = {name: (path, None) for name, path in paths.items()}
    found = hidden_states(load_ssl(ssl), wavs, durations, torch.device("cpu"), 60.0)
    states = {name: layers[layer - 1].numpy() for name, layers in found}
    return {name: states[name] for name in sorted(states)}


def _of_spread(states: dict[str, np.ndarray], count: int, frames: np.ndarray, spread: float) -> float:
    """Return the inertia over all frames of centroids fitted to sampled frames, as the mean of SEEDS draws."""
    found = []
    for seed in range(1, SEEDS + 1):
        sampled = _sampled(states, count, seed, spread)
        found.append(_inertia(frames, KMeans(CLUSTERS, n_init=1, random_state=seed).fit(sampled).cluster_centers_))
    return fmean(found)


def _sampled(states: dict[str, np.ndarray], count: int, seed: int, spread: float = SPREAD) -> np.ndarray:
    chosen = sample_frames({name: len(frames) for name, frames in states.items()}, count, seed, spread)
    return np.concatenate([states[name][index] for name, index in chosen.items()])


def _minibatch(frames: np.ndarray) -> np.ndarray:
    model = MiniBatchKMeans(
        CLUSTERS,
        batch_size=10000,
        compute_labels=False,
        tol=0.0,
        max_no_improvement=100,
        n_init=20,
        reassignment_ratio=0.0,
        random_state=1,
    )
    centers: np.ndarray = model.fit(frames).cluster_centers_
    return centers


def _lloyd(frames: torch.Tensor, iterations: int = 300, tolerance: float = 1e-4) -> np.ndarray:
    """Run Lloyd's iterations until the centroids move by less than scikit-learn's tolerance."""
    centroids = torch.from_numpy(kmeans_plusplus(frames.numpy(), CLUSTERS, random_state=1)[0])
    limit = float(frames.var(0).mean()) * tolerance
    for _ in range(iterations):
        labels = nearest(frames, centroids)
        counts = labels.bincount(minlength=CLUSTERS)[:, None]
        sums = torch.zeros_like(centroids).index_add_(0, labels, frames)
        moved = torch.where(counts > 0, sums / counts.clamp(min=1), centroids)
        distance, centroids = float((moved - centroids).square().sum()), moved
        if distance <= limit:
            break
    return centroids.numpy()


def _inertia(frames: np.ndarray, centroids: np.ndarray) -> float:
    """Return the mean squared distance to the nearest centroid."""
    centres = torch.from_numpy(centroids.astype(np.float32))
    parts = torch.from_numpy(frames).split(10000)
    return float(sum((part - centres[nearest(part, centres)]).double().square().sum() for part in parts)) / len(frames)


if __name__ == "__main__":
    main()
