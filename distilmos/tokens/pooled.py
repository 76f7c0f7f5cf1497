"""The layers of the frozen encoder, pooled over time: written in a pass of stage 4, read for reference scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from distilmos.data.archive import load_array, read_scp
from distilmos.errors import InputError
from distilmos.ssl.pooling import pool_recording
from distilmos.tokens.forward import POOLED, ForwardOptions, ForwardPass
from distilmos.tokens.info import TokenInfo


def dump_pooled(options: ForwardOptions) -> int:
    """Write the pooled layers of one job's share to `out_dir/shards/pooled.JOB.{ark,scp}`, matrices (L, 2 D).

    Returns:
        the number of utterances.

    Raises:
        InputError: if the data directory or the encoder is faulty, or hidden states are not finite.
    """
    forward = ForwardPass(options)

    def pooled(_: str, layers: list[Tensor]) -> list[np.ndarray]:
        return [pool_recording(layers)]

    written = forward.write(forward.data.utterances, [POOLED], pooled)
    forward.info().write(options.out_dir)
    return len(written)


def read_pooled(directory: str | Path, utterances: Sequence[str]) -> tuple[np.ndarray, TokenInfo]:
    """Read the pooled layers of utterances.

    Args:
        directory: dump/pooled_*/<set>, or dump/tokens_*/<set>.
        utterances: at least one.

    Returns:
        float32 (U, L, 2 D), see `pool_layers`, and their origin.

    Raises:
        InputError: if the directory or an utterance is missing, or a matrix is faulty.
    """
    directory = Path(directory)
    info = TokenInfo.read(directory)
    scp = directory / f"{POOLED}.scp"
    locations = read_scp(scp)
    pooled = np.empty(0, np.float32)
    for place, utterance in enumerate(utterances):
        if utterance not in locations:
            raise InputError(f"{scp}: {utterance} has no pooled layers")
        matrix = load_array(locations[utterance])
        shape = pooled.shape[1:] if place else (info.layers, *matrix.shape[1:2])
        if matrix.ndim != 2 or matrix.shape != shape or not matrix.size or not np.issubdtype(matrix.dtype, np.floating):
            raise InputError(f"{scp}: {utterance} has {matrix.dtype} of shape {matrix.shape}, not floats of {shape}")
        if not np.isfinite(matrix).all():
            raise InputError(f"{scp}: {utterance} has a value that is not finite")
        if place == 0:  # one array: a list of all matrices would need the memory twice
            pooled = np.empty((len(utterances), *shape), np.float32)
        pooled[place] = matrix
    return pooled, info
