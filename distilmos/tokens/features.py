"""Stage 2: compute the hidden states of all layers in one forward pass and store sampled frames only.

All frames of all layers would take 52 GB for a base model on BVCC. K-means with K = 200 needs some hundred frames per
cluster, so the frames are drawn first and no others are written. In a large corpus, they are drawn from a part, and the
encoder does not run over the rest.
"""

from __future__ import annotations

import hashlib
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor

from distilmos.tokens.forward import ForwardOptions, ForwardPass

MAX_FRAMES = 40000  # of a layer, for k-means; the default
# Draw utterances until they hold SPREAD times the wanted frames. With fewer utterances, the centroids fit the others
# worse: compared with 8,000 frames from all of 80 minutes of speech (hubert_tiny, layer 4, mean of three draws), the
# inertia over all frames was 0.5 % higher with 10, 1.1 % with 5 and 2.9 % with 2. tools/bench/kmeans.py measures it.
SPREAD = 10


def sample_frames(counts: dict[str, int], max_frames: int, seed: int, spread: float = SPREAD) -> dict[str, np.ndarray]:
    """Draw frames from all utterances, or from random ones that hold `spread` times `max_frames` frames.

    Each of these utterances gets a share of `max_frames` in proportion to its length; its frames are drawn without
    replacement. The result depends on the whole set and the seed, not on the division into jobs.

    Args:
        counts: utterance -> number of frames.
        max_frames: number of frames to draw; all frames if there are fewer.
        seed: seed of the draw.
        spread: frames to draw from, as a multiple of `max_frames`.

    Returns:
        utterance -> sorted frame indices; utterances without a drawn frame are left out.
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
    # Cumulative rounding: the quotas sum to the wanted number even if the utterances are short.
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
        options: encoder and data; `data_dir` is the training set.
        max_frames: frames per layer, over all jobs.
        seed: seed of the sampling.

    Returns:
        the number of frames per layer that this job wrote.

    Raises:
        InputError: if the data directory or the encoder is faulty, or hidden states are not finite.
    """
    forward = ForwardPass(options)
    sampled = sample_frames(forward.frame_counts(), max_frames, seed)

    def chosen(utterance: str, layers: list[Tensor]) -> list[np.ndarray]:
        index = torch.from_numpy(sampled[utterance]).to(forward.device)
        return [layer[index].cpu().numpy() for layer in layers]

    written = forward.write(sampled, forward.layer_names, chosen, compress=True)
    forward.info().write(options.out_dir)
    return sum(len(sampled[utterance]) for utterance in written)
