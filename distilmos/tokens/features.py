"""Stage 2: hidden states of all layers in one forward pass, of which only sampled frames are stored.

All frames of all layers would take 52 GB for a base model on BVCC. K-means with K = 200 needs some hundred frames a
cluster, so the frames to keep are drawn beforehand and nothing else touches the disk.
"""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import torch

from distilmos.data.archive import open_archive, shard_of
from distilmos.data.audio import SAMPLE_RATE
from distilmos.data.datadir import DataDir, read_data_dir
from distilmos.data.dump import SHARDS
from distilmos.ssl.encoder import EncoderConfig
from distilmos.ssl.forward import choose_device, hidden_states
from distilmos.ssl.load import load_ssl
from distilmos.tokens.info import TokenInfo


def frame_counts(data: DataDir, config: EncoderConfig) -> dict[str, int]:
    """Return how many encoder frames each utterance has, in the order of `data.utterances`."""
    return {u: config.num_frames(round(data.durations[u] * SAMPLE_RATE)) for u in data.utterances}


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


def dump_features(
    ssl: str,
    data_dir: str | Path,
    out_dir: str | Path,
    *,
    max_frames: int,
    seed: int,
    device: str,
    batch_seconds: float,
    job: int,
    jobs: int,
) -> int:
    """Write the sampled hidden states of one job's share to `out_dir/shards/layerN.JOB.{ark,scp}`.

    Args:
        ssl: name or path of the encoder.
        data_dir: dump/raw/<training set>.
        out_dir: dump/feats.
        max_frames: frames of each layer over all jobs.
        seed: of the sampling.
        device: "auto", "cpu", "cuda", ...
        batch_seconds: padded seconds in one forward pass.
        job: number of this job, 1..jobs.
        jobs: number of jobs.

    Returns:
        the number of frames that this job wrote for each layer.

    Raises:
        InputError: for a faulty data directory or encoder.
    """
    target = choose_device(device)
    encoder = load_ssl(ssl).to(target)
    data = read_data_dir(data_dir, rated=False)
    sampled = sample_frames(frame_counts(data, encoder.config), max_frames, seed)
    share = [utterance for utterance in shard_of(data.utterances, job, jobs) if utterance in sampled]
    shards = Path(out_dir) / SHARDS
    num_layers = encoder.config.num_layers
    with ExitStack() as stack:
        archives = [stack.enter_context(open_archive(shards / f"layer{n}.{job}")) for n in range(1, num_layers + 1)]
        durations = {utterance: data.durations[utterance] for utterance in share}
        for utterance, layers in hidden_states(encoder, data.wavs, durations, target, batch_seconds):
            index = torch.from_numpy(sampled[utterance]).to(target)
            for archive, layer in zip(archives, layers, strict=True):
                archive.write(utterance, layer[index].cpu().numpy())
    TokenInfo(ssl, encoder.fingerprint(), num_layers).write(out_dir)
    return sum(len(sampled[utterance]) for utterance in share)
