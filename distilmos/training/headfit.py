"""Fits the statistics head to the frozen encoder before training starts."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from distilmos.model.networks import EncoderNetwork
from distilmos.model.statistics import TimeStatistics
from distilmos.ridge import deal_folds
from distilmos.training.loader import Batch
from distilmos.training.ratedset import RatedSet


@torch.no_grad()
def fit_head(
    model: EncoderNetwork, statistics: TimeStatistics, data: RatedSet, batches: Iterable[Batch], seed: int
) -> None:
    """Fit the head of `model` to the scores of a training set; the model is left in evaluation mode.

    Args:
        model: the network; its encoder does not change.
        statistics: of the model.
        data: the training set. No system is in two folds of the cross-validation that chooses the penalty.
        batches: all recordings of the set, on the device of the model.
        seed: seed of the folds.
    """
    model.eval()
    pooled = np.empty((len(data.utterances), len(statistics.mean)), np.float32)
    for batch in batches:
        layers, num_frames = model.encoder(batch.audio, batch.num_samples)
        pooled[list(batch.plan.members)] = statistics.pool(layers, num_frames).cpu().numpy()
    units = data.systems if len(set(data.systems)) > 1 else data.utterances
    statistics.fit(model.linear, pooled, data.scores, deal_folds(units, [""] * len(units), seed))
