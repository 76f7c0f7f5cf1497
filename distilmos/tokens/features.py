"""Stage 2: hidden states of all layers in one forward pass, of which only sampled frames are stored.

All frames of all layers would take 52 GB for a base model on BVCC. K-means with K = 200 needs some hundred frames a
cluster, so the frames to keep are drawn beforehand and nothing else touches the disk.
"""

from __future__ import annotations

import hashlib
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor

from distilmos.tokens.forward import ForwardOptions, ForwardPass
from distilmos.tokens.info import TokenInfo


def sample_frames(counts: dict[str, int], max_frames: int, seed: int) -> dict[str, np.ndarray]:
    """Choose frames evenly over all utterances.

    Each utterance gets its share of `max_frames` in proportion to its length, and within it frames are drawn without
    replacement. The choice for an utterance depends on the whole set and the seed, not on how work is divided into
    jobs.

    Args:
        counts: utterance -> number of frames.
        max_frames: how many to choose; all frames are taken where there are fewer.
        seed: of the draw.

    Returns:
        utterance -> sorted frame indices; utterances without a chosen frame are left out.
    """
    share = min(1.0, max_frames / max(1, sum(counts.values())))
    ends = accumulate(counts.values(), initial=0)
    # Cumulative rounding: the quotas sum to the wanted number however short the utterances are.
    quotas = [int(end * share + 0.5) - int(start * share + 0.5) for start, end in pairwise(ends)]
    chosen = {}
    for (utterance, count), quota in zip(counts.items(), quotas, strict=True):
        if quota:
            key = hashlib.sha256(f"{seed} {utterance}".encode()).digest()
            draw = np.random.default_rng(list(key)).choice(count, size=quota, replace=False)
            chosen[utterance] = np.sort(draw)
    return chosen


def dump_features(options: ForwardOptions, max_frames: int, seed: int) -> int:
    """Write the sampled hidden states of one job's share to `out_dir/shards/layerN.JOB.{ark,scp}`.

    Args:
        options: what to run; `data_dir` is the training set.
        max_frames: frames of each layer over all jobs.
        seed: of the sampling.

    Returns:
        the number of frames that this job wrote for each layer.

    Raises:
        InputError: for a faulty data directory or encoder.
    """
    forward = ForwardPass(options)
    sampled = sample_frames(forward.frame_counts(), max_frames, seed)

    def chosen(utterance: str, layers: list[Tensor]) -> list[np.ndarray]:
        index = torch.from_numpy(sampled[utterance]).to(forward.device)
        return [layer[index].cpu().numpy() for layer in layers]

    written = forward.write(sampled, chosen)
    encoder = forward.encoder
    TokenInfo(options.ssl, encoder.fingerprint(), encoder.config.num_layers).write(options.out_dir)
    return sum(len(sampled[utterance]) for utterance in written)
