"""Stage 4: the token ids of every frame and layer, in one forward pass; and reading them for training."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distilmos.data.archive import load_array, open_archive, read_scp, shard_of
from distilmos.data.datadir import read_data_dir
from distilmos.data.dump import SHARDS
from distilmos.errors import FailedError, InputError
from distilmos.ssl.forward import choose_device, hidden_states
from distilmos.ssl.load import load_ssl
from distilmos.tokens.features import frame_counts
from distilmos.tokens.info import TokenInfo
from distilmos.tokens.kmeans import load_centroids


def nearest(frames: Tensor, centroids: Tensor) -> Tensor:
    """Return for each frame (T, D) the index of the nearest of the centroids (K, D), long (T,).

    |x - c|^2 = |x|^2 - 2 x.c + |c|^2, of which |x|^2 does not change the order.
    """
    return (centroids.square().sum(1) - 2 * frames @ centroids.T).argmin(1)


def dump_tokens(
    ssl: str,
    kmeans_dir: str | Path,
    data_dir: str | Path,
    out_dir: str | Path,
    *,
    device: str,
    batch_seconds: float,
    job: int,
    jobs: int,
) -> int:
    """Write the token ids of one job's share to `out_dir/shards/layerN.JOB.{ark,scp}`, int32 vectors.

    Args:
        ssl: name or path of the encoder.
        kmeans_dir: of stage 3, learned from the same encoder.
        data_dir: dump/raw/<set>.
        out_dir: dump/tokens_*/<set>.
        device: "auto", "cpu", "cuda", ...
        batch_seconds: padded seconds in one forward pass.
        job: number of this job, 1..jobs.
        jobs: number of jobs.

    Returns:
        the number of frames.

    Raises:
        InputError: for a faulty data directory, or k-means models that belong to another encoder.
        FailedError: if the encoder gives another number of frames than its configuration says.
    """
    target = choose_device(device)
    encoder = load_ssl(ssl).to(target)
    info = TokenInfo.read(kmeans_dir)
    info.require_encoder(encoder.fingerprint(), kmeans_dir)
    centroids = [torch.from_numpy(c).to(target) for c in load_centroids(kmeans_dir, info.layers)]
    data = read_data_dir(data_dir, rated=False)
    counts = frame_counts(data, encoder.config)
    share = shard_of(data.utterances, job, jobs)
    shards = Path(out_dir) / SHARDS
    with ExitStack() as stack:
        archives = [stack.enter_context(open_archive(shards / f"layer{n}.{job}")) for n in range(1, info.layers + 1)]
        durations = {utterance: data.durations[utterance] for utterance in share}
        for utterance, layers in hidden_states(encoder, data.wavs, durations, target, batch_seconds):
            if len(layers[0]) != counts[utterance]:
                raise FailedError(f"{utterance}: {len(layers[0])} frames instead of {counts[utterance]}")
            for archive, frames, centers in zip(archives, layers, centroids, strict=True):
                archive.write(utterance, nearest(frames, centers).cpu().numpy().astype(np.int32))
    info.write(out_dir)
    return sum(counts[utterance] for utterance in share)


def read_tokens(
    directory: str | Path, layers: tuple[int, ...], counts: dict[str, int], fingerprint: str
) -> tuple[dict[str, np.ndarray], int]:
    """Read the token ids of some layers, checked against the frames that the encoder will give.

    Args:
        directory: dump/tokens_*/<set>.
        layers: target layers, from 1.
        counts: utterance -> number of encoder frames.
        fingerprint: of the encoder that is fine-tuned.

    Returns:
        utterance -> token ids, int16 (len(layers), T), and the number of clusters K.

    Raises:
        InputError: if a layer or an utterance is missing, an id is not in 0..K-1, there is not exactly one token for
            each frame, or the tokens were made with another encoder.
    """
    directory = Path(directory)
    info = TokenInfo.read(directory)
    info.require_encoder(fingerprint, directory)
    tokens = {utterance: np.empty((len(layers), frames), np.int16) for utterance, frames in counts.items()}
    for row, layer in enumerate(layers):
        scp = directory / f"layer{layer}.scp"
        locations = read_scp(scp)
        for utterance, frames in counts.items():
            if utterance not in locations:
                raise InputError(f"{scp}: {utterance} has no tokens")
            ids = load_array(locations[utterance])
            if ids.shape != (frames,):
                raise InputError(f"{scp}: {utterance} has {len(ids)} tokens for {frames} encoder frames")
            if ids.min(initial=0) < 0 or ids.max(initial=0) >= info.clusters:
                raise InputError(f"{scp}: {utterance} has a token that is not in 0..{info.clusters - 1}")
            tokens[utterance][row] = ids
    return tokens, info.clusters
