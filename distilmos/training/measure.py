"""Measures on the training set what a model with new weights must know of it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing

import torch

from distilmos.model.networks import EncoderNetwork, MOSNetwork
from distilmos.preemption import StopRequest
from distilmos.training.batching import training_order
from distilmos.training.batchnorm import batch_norm_plans, batch_norms, recompute_batch_norm
from distilmos.training.config import TrainConfig
from distilmos.training.distributed import World
from distilmos.training.headfit import pool_recordings, set_novelty
from distilmos.training.loader import Batch, BatchReader, read_batches
from distilmos.training.ratedset import RatedSet


def passes_of(model: MOSNetwork) -> int:
    """Return how often `measure` sends its batches through the model."""
    return bool(batch_norms(model)) + (isinstance(model, EncoderNetwork) and model.statistics is not None)


def measure(model: MOSNetwork, read: Callable[[], Generator[Batch]], world: World) -> None:
    """Compute the statistics of batch norms, and the limit of novelty of a statistics head.

    Args:
        model: the network; left in evaluation mode.
        read: returns the batches of `batch_norm_plans` on the device of the network, in each process its shares.
        world: this process and the others.

    Raises:
        InputError: if a recording cannot be read.
        FailedError: if reading is stalled.
    """
    with closing(read()) as batches:
        recompute_batch_norm(model, batches)
    if isinstance(model, EncoderNetwork) and model.statistics is not None:
        with closing(read()) as batches:
            own = pool_recordings(model, model.statistics, batches)
        set_novelty(model, model.statistics, world.gather(own))


def measure_alone(model: MOSNetwork, train: RatedSet, config: TrainConfig, device: torch.device) -> None:
    """Call `measure` in a single process.

    Args:
        model: the network, on `device`; left in evaluation mode.
        train: the training set.
        config: of the run; how the set is read.
        device: of the network.

    Raises:
        InputError: if a recording cannot be read.
        FailedError: if reading is stalled.
    """

    def read() -> Generator[Batch]:
        plans = batch_norm_plans(training_order(train, config))
        with closing(read_batches(BatchReader(train), plans, config.num_workers, device, StopRequest())) as batches:
            for batch in batches:
                yield batch.to(device)

    measure(model, read, World())
