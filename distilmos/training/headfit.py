"""The statistics head before training, fitted to the frozen encoder, and after it: what is unlike the training set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from distilmos.model.networks import EncoderNetwork
from distilmos.model.statistics import TimeStatistics
from distilmos.ridge import PENALTIES, deal_whole
from distilmos.training.config import TrainConfig
from distilmos.training.loader import Batch
from distilmos.training.ratedset import RatedSet

FAMILIAR = 0.99  # share of the training set whose novelty is at most `novelty_limit`

Pooled = tuple[list[int], np.ndarray]  # N recordings of the training set, and their statistics, float32 (N, P)


@torch.no_grad()
def pool_recordings(model: EncoderNetwork, statistics: TimeStatistics, batches: Iterable[Batch]) -> Pooled:
    """Compute the statistics of recordings; the model is left in evaluation mode.

    Args:
        model: the network; its encoder does not change.
        statistics: of the model.
        batches: the share of one process, on the device of the model.
    """
    model.eval()
    members: list[int] = []
    rows = [np.empty((0, len(statistics.mean)), np.float32)]
    for batch in batches:
        if batch.utterances:
            members += batch.plan.members
            rows.append(statistics.pool(*model.hidden_states(batch.audio, batch.num_samples)).cpu().numpy())
    return members, np.concatenate(rows)


def fit_head(
    model: EncoderNetwork, statistics: TimeStatistics, data: RatedSet, parts: Sequence[Pooled], config: TrainConfig
) -> None:
    """Fit the head of `model` to the scores of a training set.

    A model that started from another one keeps the standardisation of its features, see `set_novelty`.

    Args:
        model: the network.
        statistics: of the model.
        data: the training set. No system is in two folds of the cross-validation that chooses the penalty.
        parts: from `pool_recordings`; together they hold all recordings of the set.
        config: settings of the run.
    """
    pooled = np.empty((len(data.utterances), len(statistics.mean)), np.float32)
    for members, rows in parts:
        pooled[members] = rows
    if model.novelty_limit is None:
        statistics.standardise(model.linear, pooled)
    folds = deal_whole(data.systems, data.utterances, config.seed)
    penalties = (config.head_penalty,) if config.head_penalty else PENALTIES
    statistics.fit(model.linear, pooled, data.scores, folds, penalties)


@torch.no_grad()
def set_novelty(model: EncoderNetwork, statistics: TimeStatistics, parts: Sequence[Pooled]) -> None:
    """Set `novelty_limit` of a trained model; its scores stay the same.

    A model that started from another one with a limit keeps the features' standardisation: recordings like those of
    either training set are familiar to it.

    Args:
        model: the network.
        statistics: of the model.
        parts: from `pool_recordings`; together they hold a sample of the training set.
    """
    pooled = np.concatenate([rows for _, rows in parts])
    if model.novelty_limit is None:
        statistics.standardise(model.linear, pooled)
    novelty = statistics.novelty(torch.from_numpy(pooled).to(statistics.mean.device)).cpu().numpy()
    # Recordings that are all the same leave no limit.
    model.novelty_limit = max(float(np.quantile(novelty, FAMILIAR)), model.novelty_limit or 0.0) or None
