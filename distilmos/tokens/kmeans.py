"""Stage 3: k-means of each layer on sampled training frames, or a random codebook; and a table of its quality."""

from __future__ import annotations

import hashlib
import tokenize
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from pydantic import FiniteFloat

from distilmos.data.archive import load_array, read_scp
from distilmos.data.tables import read_json
from distilmos.errors import InputError
from distilmos.files import atomic_path, write_json, write_text
from distilmos.ssl.known import BEST_RQ
from distilmos.tokens.info import INFO, TokenInfo

CLUSTERS = 200  # of a layer; the default
TINY = 0.1  # a cluster with less than this fraction of an even share of the frames is called tiny
# What numpy.load raises for damaged files.
NPY_FAULTS: tuple[type[Exception], ...] = (
    *(EOFError, OSError, SyntaxError, TypeError, ValueError, OverflowError, RecursionError),
    *(tokenize.TokenError, zipfile.BadZipFile),
)
PART = 10000  # frames per block of a sum


@dataclass(frozen=True)
class LayerQuality:
    """Fit of the centroids of one layer, over the sampled frames.

    Attributes:
        layer: counted from 1.
        clusters: K.
        frames: number of frames.
        inertia_per_frame: mean squared distance to the nearest centroid.
        explained_variance: 1 - inertia / total variance.
        empty: clusters without a frame.
        tiny: clusters with fewer than TINY * frames / K frames, including the empty ones.
        perplexity: exp of the entropy of the cluster distribution; K if all clusters are equally frequent.
        iterations: iterations until k-means stopped; 0 for a random codebook.
    """

    layer: int
    clusters: int
    frames: int
    inertia_per_frame: FiniteFloat
    explained_variance: FiniteFloat
    empty: int
    tiny: int
    perplexity: FiniteFloat
    iterations: int


def learn_kmeans(feats_dir: str | Path, layer: int, clusters: int, seed: int, out_dir: str | Path) -> LayerQuality:
    """Cluster the frames of one layer; for features of BEST-RQ, draw a random codebook instead.

    Writes `layerN.npy` (the centroids, float32 (K, D), which later stages read without unpickling), `layerN.json` (the
    quality) and, of k-means, `layerN.joblib` (the scikit-learn model, for users).

    Args:
        feats_dir: dump/feats of stage 2.
        layer: counted from 1.
        clusters: K.
        seed: seed of the initialisation (k-means++), or of the codebook.
        out_dir: exp/kmeans_*.

    Returns:
        the quality of the clustering.

    Raises:
        InputError: if the features are missing, damaged or not finite, or hold fewer distinct frames than clusters (for
            a codebook: than two).
    """
    import joblib
    from sklearn.cluster import KMeans
    from sklearn.metrics import pairwise_distances_argmin_min

    info = TokenInfo.read(feats_dir)
    scp = Path(feats_dir) / f"layer{layer}.scp"
    frames = _read_frames(scp)
    random = info.ssl == BEST_RQ
    needed = 2 if random else max(2, clusters)  # a layer with equal frames says nothing, not even to one cluster
    if (distinct := _count_distinct(frames, needed)) < needed:
        raise InputError(
            f"{scp}: layer {layer} has {len(frames)} frames, but only {distinct} distinct ones for {clusters} clusters"
        )
    out = Path(out_dir)
    if random:
        centroids, iterations = _random_codebook(clusters, frames.shape[1], seed), 0
        labels, distances = pairwise_distances_argmin_min(frames, centroids)
        inertia = float(np.square(distances, dtype=np.float64).sum())
    else:
        # scikit-learn centres the frames in place and undoes it: a copy would be the largest array in memory.
        model = KMeans(clusters, n_init=1, random_state=seed, copy_x=False).fit(frames)
        centroids, iterations = model.cluster_centers_.astype(np.float32), int(model.n_iter_)
        labels, inertia = model.labels_, model.inertia_
        with atomic_path(out / f"layer{layer}.joblib") as temporary:
            joblib.dump(model, temporary)
    counts = np.bincount(labels, minlength=clusters)
    share = counts[counts > 0] / len(frames)
    quality = LayerQuality(
        layer=layer,
        clusters=clusters,
        frames=len(frames),
        inertia_per_frame=float(inertia / len(frames)),
        explained_variance=float(1 - inertia / _squared_deviations(frames)),
        empty=int((counts == 0).sum()),
        tiny=int((counts < TINY * len(frames) / clusters).sum()),
        perplexity=float(np.exp(-(share * np.log(share)).sum())),
        iterations=iterations,
    )
    with atomic_path(out / f"layer{layer}.npy") as temporary, temporary.open("wb") as stream:
        np.save(stream, centroids, allow_pickle=False)
    write_json(out / f"layer{layer}.json", asdict(quality))
    TokenInfo(info.ssl, info.fingerprint, info.layers, clusters).write(out)
    return quality


def _random_codebook(clusters: int, width: int, seed: int) -> np.ndarray:
    """Return random vectors of length 1, float32 (K, D).

    C.-C. Chiu et al., "Self-supervised learning with random-projection quantizer for speech recognition", ICML 2022,
    section 3.1.
    """
    drawn = np.random.default_rng(seed).standard_normal((clusters, width))
    codebook: np.ndarray = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
    return codebook


def _read_frames(scp: Path) -> np.ndarray:
    """Read all matrices of an scp file into one, float32 (N, D). Each is read twice, so that memory holds it once.

    Raises:
        InputError: if a value is not a matrix, differs from the first in D, or is not finite.
    """
    locations = read_scp(scp)
    shapes = [load_array(location).shape for location in locations.values()]
    width = shapes[0][-1] if shapes else 0
    for utterance, shape in zip(locations, shapes, strict=True):
        if len(shape) != 2 or shape[1] != width:
            raise InputError(f"{scp}: {utterance} has shape {shape}, not (frames, {width}); run stage 2 again")
    frames = np.empty((sum(rows for rows, _ in shapes), width), np.float32)
    first = 0
    for (utterance, location), (rows, _) in zip(locations.items(), shapes, strict=True):
        part = frames[first : first + rows]
        part[:] = load_array(location)
        if not np.isfinite(part).all():
            raise InputError(f"{scp}: {utterance} has values that are not finite; check the encoder, run stage 2 again")
        first += rows
    return frames


def _count_distinct(frames: np.ndarray, limit: int) -> int:
    """Return the number of distinct frames (N, D), counted up to `limit`."""
    seen: set[bytes] = set()
    for frame in frames:
        seen.add((frame + 0.0).tobytes())  # -0.0 becomes 0.0
        if len(seen) == limit:
            break
    return len(seen)


def _squared_deviations(frames: np.ndarray) -> float:
    """Return the sum of squared distances of frames (N, D) to their mean, in float64 without a copy of all frames."""
    mean = frames.mean(axis=0, dtype=np.float64)
    parts = (frames[first : first + PART] for first in range(0, len(frames), PART))
    return float(sum(np.square(part - mean).sum() for part in parts))


def load_centroids(kmeans_dir: str | Path, info: TokenInfo) -> list[np.ndarray]:
    """Read the centroids of all layers, each (K, D).

    Args:
        kmeans_dir: exp/kmeans_*.
        info: content of its info.json.

    Raises:
        InputError: if a layer is missing, damaged or not finite, or does not have K rows.
    """
    centroids = []
    for layer in range(1, info.layers + 1):
        path = Path(kmeans_dir) / f"layer{layer}.npy"
        try:
            array = np.load(path, allow_pickle=False)
        except FileNotFoundError:
            raise InputError(f"{path}: no such file") from None
        except NPY_FAULTS as error:
            raise InputError(f"{path}: not an array of centroids: {error}") from None
        if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype != np.float32:
            raise InputError(f"{path}: not a float32 matrix of centroids")
        if not np.isfinite(array).all():
            raise InputError(f"{path}: has centroids that are not finite; learn layer {layer} again")
        if len(array) != info.clusters:
            raise InputError(f"{path}: {len(array)} clusters, but {info.clusters} in {INFO}; learn all layers again")
        centroids.append(array)
    return centroids


def hash_centroids(centroids: list[np.ndarray]) -> str:
    """Return a hash of the centroids of all layers; token ids have the same meaning if it is equal."""
    digest = hashlib.sha256()
    for array in centroids:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


COLUMNS = {
    "layer": "d",
    "frames": ",d",
    "inertia_per_frame": ".4g",
    "explained_variance": ".3f",
    "empty": "d",
    "tiny": "d",
    "perplexity": ".1f",
    "iterations": "d",
}


def write_quality_table(kmeans_dir: str | Path) -> str:
    """Collect the quality of all layers in `quality.json` and `quality.md`.

    Returns:
        the table as Markdown.

    Raises:
        InputError: if a layer is missing or its file is damaged.
    """
    directory = Path(kmeans_dir)
    info = TokenInfo.read(directory)
    rows = []
    for layer in range(1, info.layers + 1):
        path = directory / f"layer{layer}.json"
        try:
            rows.append(asdict(read_json(path, LayerQuality)))
        except InputError as error:
            raise InputError(f"{error}; learn the k-means of layer {layer} again") from None
    kind = "random codebook" if info.ssl == BEST_RQ else "k-means"
    lines = [
        f"{kind} of {info.ssl}, K = {info.clusters}, on training frames; perplexity is at most K, "
        f"tiny clusters have less than {TINY:g} of an even share.\n",
        "| " + " | ".join(name.replace("_", " ") for name in COLUMNS) + " |",
        "|" + " ---: |" * len(COLUMNS),
        *("| " + " | ".join(format(row[name], spec) for name, spec in COLUMNS.items()) + " |" for row in rows),
    ]
    table = "\n".join(lines) + "\n"
    write_json(directory / "quality.json", {"ssl": info.ssl, "clusters": info.clusters, "layers": rows})
    write_text(directory / "quality.md", table)
    return table
