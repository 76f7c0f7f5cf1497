"""Stage 4: compute the token ids of every frame and layer in one forward pass; read them for training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distilmos.data.archive import load_array, read_scp
from distilmos.errors import FailedError, InputError
from distilmos.ssl.pooling import pool_recording
from distilmos.tokens.forward import POOLED, ForwardOptions, ForwardPass
from distilmos.tokens.info import TokenInfo
from distilmos.tokens.kmeans import hash_centroids, load_centroids


def nearest(frames: Tensor, centroids: Tensor) -> Tensor:
    """Return the index of the nearest centroid (K, D) to each frame (T, D), long (T,).

    |x - c|^2 = |x|^2 - 2 x.c + |c|^2, where |x|^2 does not change the order.
    """
    return (centroids.square().sum(1) - 2 * frames @ centroids.T).argmin(1)


def dump_tokens(options: ForwardOptions, kmeans_dir: str | Path) -> int:
    """Write the token ids of one job's share to `out_dir/shards/layerN.JOB.{ark,scp}`, int32 vectors.

    The same pass writes the pooled layers, see `dump_pooled`.

    Args:
        options: encoder and data.
        kmeans_dir: exp/kmeans_* of stage 3, learned from the same encoder.

    Returns:
        the number of frames.

    Raises:
        InputError: if the data directory is faulty, the k-means belongs to another encoder, or hidden states are not
            finite.
        FailedError: if the encoder's number of frames differs from its configuration.
    """
    forward = ForwardPass(options)
    info = TokenInfo.read(kmeans_dir)
    info.require_encoder(forward.encoder.fingerprint(), kmeans_dir)
    arrays = load_centroids(kmeans_dir, info)
    centroids = [torch.from_numpy(array).to(forward.device) for array in arrays]
    counts = forward.frame_counts()

    def tokens(utterance: str, layers: list[Tensor]) -> list[np.ndarray]:
        if len(layers[0]) != counts[utterance]:
            raise FailedError(f"{utterance}: {len(layers[0])} frames instead of {counts[utterance]}")
        pairs = zip(layers, centroids, strict=True)
        ids = [nearest(frames, centers).cpu().numpy().astype(np.int32) for frames, centers in pairs]
        return [*ids, pool_recording(layers)]

    written = forward.write(counts, [*forward.layer_names, POOLED], tokens)
    replace(info, kmeans=hash_centroids(arrays)).write(options.out_dir)
    return sum(counts[utterance] for utterance in written)


def read_tokens(
    directory: str | Path, layers: tuple[int, ...], counts: dict[str, int], fingerprint: str | None
) -> tuple[dict[str, np.ndarray], TokenInfo]:
    """Read the token ids of some layers and check them against the encoder's numbers of frames.

    Families of encoders count the frames at the end of a recording differently: of n samples, HuBERT and FEATURES have
    floor((n - 80) / 320), Whisper floor((n + 160) / 320), which is 0 or 1 more. If tokens of another encoder are one
    too many, the last is left out; if one is missing, the last is repeated. Frame t is 320 t samples after frame 0 in
    all of them; the centre of frame 0 is sample 200 for HuBERT, sample 0 for Whisper.

    Args:
        directory: dump/tokens_*/<set>.
        layers: target layers, counted from 1.
        counts: utterance -> number of encoder frames.
        fingerprint: fingerprint of the encoder to fine-tune; None accepts tokens of any encoder.

    Returns:
        utterance -> token ids, int32 (len(layers), T), and the origin of the tokens.

    Raises:
        InputError: if a layer or an utterance is missing, an id is not an integer in 0..K-1, there is not exactly one
            token for each frame (of another encoder: more than one is missing or too many), or the tokens were made
            with another encoder than `fingerprint`.
    """
    directory = Path(directory)
    info = TokenInfo.read(directory)
    if fingerprint is not None:
        info.require_encoder(fingerprint, directory)
    tokens = {utterance: np.empty((len(layers), frames), np.int32) for utterance, frames in counts.items()}
    for row, layer in enumerate(layers):
        scp = directory / f"layer{layer}.scp"
        locations = read_scp(scp)
        for utterance, frames in counts.items():
            if utterance not in locations:
                raise InputError(f"{scp}: {utterance} has no tokens")
            ids = load_array(locations[utterance])
            if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
                raise InputError(f"{scp}: {utterance} has {ids.dtype} of shape {ids.shape}, not a vector of integers")
            if fingerprint is None and len(ids) and abs(len(ids) - frames) == 1:
                ids = np.append(ids, ids[-1])[:frames]
            if len(ids) != frames:
                raise InputError(f"{scp}: {utterance} has {len(ids)} tokens for {frames} encoder frames")
            if ids.min(initial=0) < 0 or ids.max(initial=0) >= info.clusters:
                raise InputError(f"{scp}: {utterance} has a token id outside 0..{info.clusters - 1}")
            tokens[utterance][row] = ids
    return tokens, info
