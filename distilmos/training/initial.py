"""Builds the network of a run with its initial weights."""

from __future__ import annotations

from statistics import fmean

import torch

from distilmos.errors import InputError
from distilmos.model.networks import DistilMOS, EncoderNetwork, MOSNetwork, SpectralMOS, build_model
from distilmos.model.offsets import Offsets
from distilmos.training.config import TrainConfig
from distilmos.training.inputs import Inputs
from distilmos.training.optimizer import freeze
from distilmos.training.ratedset import RatedSet


def initial_model(config: TrainConfig, inputs: Inputs) -> MOSNetwork:
    """Build the network on the CPU, with its untrained parts frozen.

    Raises:
        InputError: if the settings do not fit the encoder or `init_model`.
    """
    torch.manual_seed(config.seed)
    corpora = tuple(sorted(set(inputs.train.corpora))) if config.corpus_offsets and not config.targets else ()
    clusters, layers = (inputs.tokens.clusters, inputs.tokens.layers) if inputs.tokens else (None, None)
    initial = inputs.initial
    encoder = initial.encoder if isinstance(initial, EncoderNetwork) else inputs.encoder
    try:
        corpora = corpora if len(corpora) > 1 else ()
        model = build_model(config, encoder, clusters, corpora, inputs.train.scales, layers)
    except ValueError as error:
        raise InputError(f"settings: {error} ({config.ssl_model})") from None
    if isinstance(model, DistilMOS) and inputs.tokens:
        model.kmeans = inputs.tokens.kmeans
    if isinstance(model, DistilMOS) and inputs.teacher:
        model.kmeans = inputs.teacher.fingerprint()
    if config.listener_offsets:
        model.listener_offsets = _listener_offsets(inputs.train)
    if initial:
        _check_targets(model, initial, config.init_model)
        _check_strides(model, initial, config.init_model)
        _copy_weights(model, initial, config.init_model)
    else:
        model.init_output([_mean(scores) for scores in inputs.train.scores.T.tolist()])
    freeze(model, config)
    return model


def _mean(scores: list[float]) -> float:
    """Return the mean of the scores that exist."""
    known = [score for score in scores if score == score]
    return sum(known) / len(known)


def _listener_offsets(train: RatedSet) -> Offsets:
    """Return offsets for all listeners; each starts from the mean difference of its ratings from the mean scores."""
    differences: dict[str, list[float]] = {}
    corpora: dict[str, str] = {}
    for index, pairs in enumerate(train.ratings):
        for listener, score in pairs:
            differences.setdefault(listener, []).append(score - train.mos[index])
            corpora.setdefault(listener, train.corpora[index] if train.corpora else "")
    names = tuple(sorted(differences))
    numbers = {corpus: number for number, corpus in enumerate(sorted(set(corpora.values())))}
    offsets = Offsets(names, tuple(numbers[corpora[name]] for name in names))
    offsets.values.data = torch.tensor([fmean(differences[name]) for name in names])
    return offsets


def _check_targets(model: MOSNetwork, initial: MOSNetwork, path: str) -> None:
    """Check that the outputs of `initial`, if there are several, are those of `model` in the same order."""
    here, there = ([scale.name for scale in network.scales] for network in (model, initial))
    if len(there) > 1 and here != there:
        raise InputError(f"init_model {path}: predicts {', '.join(there)}; the settings have {', '.join(here)}")


def _check_strides(model: MOSNetwork, initial: MOSNetwork, path: str) -> None:
    """Check that both networks score the same frames, which the shapes of their weights do not show."""
    if not (isinstance(model, DistilMOS) and isinstance(initial, DistilMOS)):
        return
    here, there = (list(network.config.strides) for network in (model, initial))
    if here != there:
        raise InputError(f"init_model {path}: does not fit these settings: strides is {there} there, {here} here")


def _copy_weights(model: MOSNetwork, initial: MOSNetwork, path: str) -> None:
    """Copy the weights of `initial` to `model`.

    A spectral network gives only its spectral branch. Weights that belong to other data are not copied: the offsets of
    corpora and listeners, and the token predictors unless both models use the same k-means, because token ids are
    arbitrary numbers.
    """
    same_tokens = isinstance(model, DistilMOS) and model.has_tokens_of(initial)
    fresh = ("corpus_offsets.", "listener_offsets.") + (() if same_tokens else ("predictors.",))
    branch = "spectral." if isinstance(initial, SpectralMOS) else ""

    def shared(network: MOSNetwork) -> dict[str, torch.Tensor]:
        weights = network.state_dict()
        return {name: weights[name] for name in weights if name.startswith(branch) and not name.startswith(fresh)}

    given, wanted = shared(initial), shared(model)
    shapes = [{name: tuple(value.shape) for name, value in weights.items()} for weights in (given, wanted)]
    if shapes[0] != shapes[1]:
        differs = next(name for name in [*given, *wanted] if shapes[0].get(name) != shapes[1].get(name))
        raise InputError(
            f"init_model {path}: does not fit these settings: {differs} is {shapes[0].get(differs)} there, "
            f"{shapes[1].get(differs)} here"
        )
    model.load_state_dict(given, strict=False)
    model.novelty_limit = initial.novelty_limit
    if branch and isinstance(model, EncoderNetwork):
        # The first scores are those of the branch, which has a bias of its own.
        torch.nn.init.zeros_(model.linear.weight)
        torch.nn.init.zeros_(model.linear.bias)
