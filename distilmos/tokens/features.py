"""Stage 2: hidden states of all layers in one forward pass, of which only sampled frames are stored.

All frames of all layers would take 52 GB for a base model on BVCC. K-means with K = 200 needs some hundred frames a
cluster, so the frames to keep are drawn beforehand and nothing else touches the disk. They are drawn from a part of a
large corpus, so that the encoder need not run over the rest of it.
"""

from __future__ import annotations

import hashlib
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor

from distilmos.tokens.forward import ForwardOptions, ForwardPass
from distilmos.tokens.info import TokenInfo

# Utterances are drawn until they hold this many times the wanted frames. The fewer they are, the less centroids fit the
# others: against 8,000 frames drawn from all of 80 minutes of speech (hubert_tiny, layer 4, mean of three draws) the
# inertia over all frames was 0.5 % higher with 10, 1.1 % with 5 and 2.9 % with 2. tools/bench/kmeans.py measures it.
SPREAD = 10


def sample_frames(counts: dict[str, int], max_frames: int, seed: int, spread: float = SPREAD) -> dict[str, np.ndarray]:
    """Choose frames of the utterances, all of them or as many as hold `spread` times `max_frames`.

    Each chosen utterance gets its share of `max_frames` in proportion to its length, and within it frames are drawn
    without replacement. The choice depends on the whole set and the seed, not on how work is divided into jobs.

    Args:
        counts: utterance -> number of frames.
        max_frames: how many to choose; all frames are taken where there are fewer.
        seed: of the draw.
        spread: from how many times as many frames they are drawn.

    Returns:
        utterance -> sorted frame indices; utterances without a chosen frame are left out.
    """
    keys = {utterance: hashlib.sha256(f"{seed} {utterance}".encode()).digest() for utterance in counts}
    held = 0
    used: set[str] = set()
    for utterance in sorted(counts, key=keys.__getitem__):
        if held >= spread * max_frames:
            break
        used.add(utterance)
        held += counts[utterance]
    share = min(1.0, max_frames / max(1, held))
    drawn = {utterance: count for utterance, count in counts.items() if utterance in used}
    ends = accumulate(drawn.values(), initial=0)
    # Cumulative rounding: the quotas sum to the wanted number however short the utterances are.
    quotas = [int(end * share + 0.5) - int(start * share + 0.5) for start, end in pairwise(ends)]
    chosen = {}
    for (utterance, count), quota in zip(drawn.items(), quotas, strict=True):
        if quota:
            draw = np.random.default_rng(list(keys[utterance])).choice(count, size=quota, replace=False)
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

    written = forward.write(sampled, chosen, compress=True)
    encoder = forward.encoder
    TokenInfo(options.ssl, encoder.fingerprint(), encoder.config.num_layers).write(options.out_dir)
    return sum(len(sampled[utterance]) for utterance in written)
