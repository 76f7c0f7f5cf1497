"""Averages the weights of models that were trained from the same encoder."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch

from distilmos.errors import InputError
from distilmos.model.networks import DistilMOS, EncoderNetwork, MOSNetwork


@torch.no_grad()
def average_models(models: Sequence[tuple[str, MOSNetwork]]) -> MOSNetwork:
    """Return a model whose weights are the means of those of `models`.

    The statistics of batch norms and the limit of novelty are not those of the mean; `measure` computes these. The
    offsets of corpora are left out: the model scores on the mean scale. Token predictors stay those of the first model
    if the models have learned tokens of different k-means.

    Args:
        models: paths and networks; these do not change.

    Raises:
        InputError: if the networks differ in more than their weights; it names both models.
    """
    (first, mean), *others = ((path, copy.deepcopy(model)) for path, model in models)
    mean.corpus_offsets = None
    wanted = _facts(mean)
    for path, model in others:
        if differs := [name for name, value in _facts(model).items() if value != wanted.get(name)]:
            raise InputError(f"{path}: is not the network of {first}: {', '.join(differs)}")
        model.corpus_offsets = None
        if isinstance(model, EncoderNetwork) and model.statistics:
            own = mean.state_dict()
            model.statistics.restandardise(model.linear, own["statistics.mean"], own["statistics.scale"])
    same_tokens = isinstance(mean, DistilMOS) and all(mean.has_tokens_of(model) for _, model in others)
    weights = [mean.state_dict(), *(model.state_dict() for _, model in others)]
    for name, tensor in weights[0].items():
        if tensor.is_floating_point() and (same_tokens or not name.startswith("predictors.")):
            tensor.copy_(sum(each[name].double() for each in weights) / len(weights))
    mean.novelty_limit = None
    return mean


def _facts(model: MOSNetwork) -> dict[str, object]:
    """Return what must be equal in networks with comparable weights."""
    settings = model.config.model_dump(exclude={"dropout", "encoder_dropout", "regression_loss"})
    facts = {"encoder": model.encoder_config, "scales": model.scales, **settings}
    facts["nll"] = model.config.regression_loss == "nll"  # further outputs
    if isinstance(model, DistilMOS):
        facts |= {"clusters": model.clusters, "token_layers": model.token_layers}
    return facts
