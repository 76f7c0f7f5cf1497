"""Measures on the training set what a model with new weights must know of it."""

from __future__ import annotations

from contextlib import closing
from functools import partial

import torch

from distilmos.model.networks import EncoderNetwork, MOSNetwork
from distilmos.preemption import StopRequest
from distilmos.training.batching import training_order
from distilmos.training.batchnorm import batch_norm_plans, recompute_batch_norm
from distilmos.training.config import TrainConfig
from distilmos.training.headfit import pool_recordings, set_novelty
from distilmos.training.loader import BatchReader, read_batches
from distilmos.training.ratedset import RatedSet


def measure(model: MOSNetwork, train: RatedSet, config: TrainConfig, device: torch.device) -> None:
    """Compute the statistics of batch norms and the limit of novelty as the end of training does.

    Args:
        model: the network, on `device`; left in evaluation mode.
        train: the training set.
        config: of the run; how the set is read.
        device: of the network.

    Raises:
        InputError: if a recording cannot be read.
        FailedError: if reading is stalled.
    """
    plans = batch_norm_plans(training_order(train, config))
    read = partial(read_batches, BatchReader(train), plans, config.num_workers, device, StopRequest())
    with closing(read()) as batches:
        recompute_batch_norm(model, (batch.to(device) for batch in batches))
    if isinstance(model, EncoderNetwork) and model.statistics is not None:
        with closing(read()) as batches:
            pooled = pool_recordings(model, model.statistics, (batch.to(device) for batch in batches))
        set_novelty(model, model.statistics, [pooled])
