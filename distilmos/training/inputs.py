"""Reads and checks the inputs of a run: data, tokens, encoder and initial model."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path

from distilmos.data.schema import SCALE
from distilmos.errors import InputError
from distilmos.model.networks import MOSNetwork, SpectralMOS
from distilmos.model.package import load_model_dir
from distilmos.ssl.encoder import SSLEncoder
from distilmos.ssl.load import load_ssl
from distilmos.tokens.info import TokenInfo
from distilmos.training.config import TrainConfig
from distilmos.training.ratedset import RatedSet, read_rated_set, with_tokens


@dataclass(frozen=True)
class InputPaths:
    """The files of a run, besides those that its settings name.

    Attributes:
        train: training set, a data directory of stage 1.
        dev: dev set, another one; it selects the best models.
        train_tokens: token directory of stage 4; None for a baseline.
        dev_tokens: token directory of stage 4; None for a baseline.
    """

    train: Path
    dev: Path
    train_tokens: Path | None
    dev_tokens: Path | None


@dataclass(frozen=True)
class Inputs:
    """The inputs of a run.

    Attributes:
        encoder: the SSL encoder to fine-tune.
        train: the training set.
        dev: the dev set.
        tokens: origin of the tokens; None for a model without tokens.
        teacher: the frozen encoder; None unless features are distilled.
        initial: the model of `init_model`; None without it.
    """

    encoder: SSLEncoder
    train: RatedSet
    dev: RatedSet
    tokens: TokenInfo | None
    teacher: SSLEncoder | None
    initial: MOSNetwork | None


def read_inputs(config: TrainConfig, paths: InputPaths) -> Inputs:
    """Read and check all inputs.

    Raises:
        InputError: if one is missing or faulty, or they do not fit each other or the settings.
    """
    encoder = load_ssl(config.ssl_model)
    longest = encoder.config.max_seconds
    if longest is not None and config.max_seconds > longest:
        raise InputError(
            f"settings: max_seconds is {config.max_seconds:g}; {config.ssl_model} reads at most {longest:.2f} s: "
            "set it to at most that, and leave longer recordings out"
        )
    limits = (config.max_seconds, longest)
    train, dev = (read_rated_set(path, *limits, config.targets) for path in (paths.train, paths.dev))
    # All scores are mapped to 1..5, so a training set that is joined from several corpora may have another scale.
    if train.scales != dev.scales and not train.corpora:
        found = ["; ".join(map(str, data.scales)) for data in (train, dev)]
        raise InputError(f"{dev.path / SCALE}: the scale is {found[1]}; in {train.path} it is {found[0]}")
    check_metric(dev, config)
    _check_raters(train, config)
    tokens = None
    if config.needs_tokens:
        train, dev, tokens = _add_tokens(config, paths, train, dev, encoder)
    teacher = copy.deepcopy(encoder).eval().requires_grad_(False) if config.distils_features else None
    initial = _read_initial(config, encoder) if config.init_model else None
    return Inputs(encoder, train, dev, tokens, teacher, initial)


def _read_initial(config: TrainConfig, encoder: SSLEncoder) -> MOSNetwork:
    """Load `init_model`; its frames must be those of `encoder`, which made the tokens."""
    initial = load_model_dir(config.init_model)
    ours, theirs = initial.encoder_config, encoder.config
    if isinstance(initial, SpectralMOS) and ours.hop == theirs.hop:
        return initial
    if config.distils_features and ours.embed_dim != theirs.embed_dim:
        raise InputError(
            f"{config.init_model}: its encoder has width {ours.embed_dim}; the features of {config.ssl_model} have "
            f"width {theirs.embed_dim}"
        )
    if ours.num_layers != theirs.num_layers or not ours.same_frames(theirs):
        raise InputError(
            f"{config.init_model}: its encoder has {ours.num_layers} layers and a frame every {ours.hop} samples; "
            f"ssl_model {config.ssl_model} has {theirs.num_layers} layers and other frames, every {theirs.hop} samples"
        )
    return initial


def check_metric(dev: RatedSet, config: TrainConfig) -> None:
    """Raise InputError unless the dev set can select the best models."""
    level, metric = config.best_metric.split("_")
    value = dev.agreement(dict(zip(dev.utterances, dev.mos, strict=True)))[level][metric]
    if value != value:
        where = " in one of its corpora" if len(set(dev.corpora)) > 1 else ""
        raise InputError(
            f"{dev.path}: best_metric {config.best_metric} is undefined{where}: it needs two {level}s with "
            f"different scores ({len(dev.utterances)} utterances, {len(set(dev.systems))} systems)"
        )


def _check_raters(train: RatedSet, config: TrainConfig) -> None:
    known = set(train.corpora)
    unknown = [name for name in config.corpus_weights if name not in known]
    if unknown:
        listing = f"its corpora are {', '.join(sorted(known))}" if known else "it has no utt2corpus"
        raise InputError(f"{train.path}: no corpus {', '.join(unknown)}, which corpus_weights names; {listing}")
    if config.listener_offsets and not any(train.ratings):
        raise InputError(f"{train.path / 'ratings'}: no such file; listener_offsets needs it")


def _add_tokens(
    config: TrainConfig, paths: InputPaths, train: RatedSet, dev: RatedSet, encoder: SSLEncoder
) -> tuple[RatedSet, RatedSet, TokenInfo]:
    """Return both sets with their tokens, and the origin of the tokens."""
    if paths.train_tokens is None or paths.dev_tokens is None:
        raise InputError("model distilmos needs --train-tokens and --dev-tokens")
    layers = _target_layers(config, encoder, paths.train_tokens)
    if config.token_weight == 0:
        layers = ()  # without self-distillation the tokens only shape the network
    foreign = config.foreign_tokens
    train, info = with_tokens(train, paths.train_tokens, layers, encoder, foreign=foreign)
    dev, dev_info = with_tokens(dev, paths.dev_tokens, layers, encoder, foreign=foreign)
    if (info.clusters, info.kmeans) != (dev_info.clusters, dev_info.kmeans):
        raise InputError(
            f"{paths.dev_tokens}: tokens of another k-means ({dev_info.clusters} clusters, {dev_info.kmeans}) than in "
            f"{paths.train_tokens} ({info.clusters} clusters, {info.kmeans})"
        )
    return train, dev, info


def _target_layers(config: TrainConfig, encoder: SSLEncoder, tokens: Path) -> tuple[int, ...]:
    num_layers, source = encoder.config.num_layers, config.ssl_model
    if config.foreign_tokens:
        num_layers, source = TokenInfo.read(tokens).layers, str(tokens)
    try:
        return config.layers(num_layers)
    except ValueError as error:
        raise InputError(f"settings: {error} ({source})") from None


def move_audio(inputs: Inputs, copies: dict[Path, Path]) -> Inputs:
    """Return the inputs with audio that is read from copies (file -> copy)."""
    return replace(inputs, train=inputs.train.moved(copies), dev=inputs.dev.moved(copies))
