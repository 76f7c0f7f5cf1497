"""Recomputes batch norm statistics after weights were averaged or interpolated."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from distilmos.model.networks import MOSNetwork
from distilmos.training.batching import BatchOrder, BatchPlan
from distilmos.training.loader import Batch

STATISTICS_BATCHES = 50  # more hardly change the statistics


def batch_norm_plans(order: BatchOrder) -> list[BatchPlan]:
    """Return the batches of the training set for `recompute_batch_norm`: the first ones of the first epoch."""
    return order.epoch(0)[:STATISTICS_BATCHES]


def batch_norms(model: MOSNetwork) -> list[nn.BatchNorm1d]:
    """Return the batch norms of a network."""
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]


@torch.no_grad()
def recompute_batch_norm(model: MOSNetwork, batches: Iterable[Batch]) -> None:
    """Replace the running statistics of all batch norms by the mean of the statistics of `batches`.

    Averaged statistics do not fit the activations of the averaged weights (P. Izmailov et al., "Averaging weights leads
    to wider optima and better generalization", UAI 2018, section 3.2). Even for a single model, a running mean over the
    last few small batches is a poor estimate (Y. Wu, J. Johnson, "Rethinking 'batch' in BatchNorm", arXiv 2105.07576,
    section 3). Only the batch norms are in training mode, so that dropout does not affect the statistics.

    Args:
        model: with the new weights; left in evaluation mode.
        batches: of the training set, on the device of the model; each process has its shares of the same batches.
    """
    model.eval()
    norms = batch_norms(model)
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over batches
        norm.train()
    for batch in batches:
        if batch.utterances:
            model(batch.audio, batch.num_samples)
        else:
            model.without_recordings()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()
