"""The settings of a run, read from YAML and validated; each error names its line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from distilmos.data.schema import target_table
from distilmos.data.tables import parse_yaml, scan_yaml
from distilmos.errors import InputError, raise_faults
from distilmos.files import is_file
from distilmos.model.config import ModelConfig, to_tuple
from distilmos.ssl.known import BEST_RQ, MFCC

Metric = Literal[
    "utterance_MSE",
    "utterance_LCC",
    "utterance_SRCC",
    "utterance_KTAU",
    "system_MSE",
    "system_LCC",
    "system_SRCC",
    "system_KTAU",
]


class TrainConfig(ModelConfig):
    """All settings of a run; conf/distilmos.yaml holds the defaults and the reasons for them.

    Attributes:
        ssl_model: an encoder, see `load_ssl`.
        init_model: model directory to start from, instead of the encoder and fresh heads; empty for none. Its token
            predictors are kept if its tokens are those of this run.
        head_fit: fit `head: statistics` by ridge regression before training; false keeps the head of `init_model`.
        head_penalty: penalty of this ridge regression, see `fit_ridge`; 0 chooses it by cross-validation.
        freeze_conv: do not train the convolutions of the encoder.
        targets: what to predict, each from the table utt2TARGET; the first one selects the best models. Empty for
            utt2mos alone.
        target_weights: target -> weight of its labels in the regression loss; 1 for other targets.
        regression_clip: absolute errors up to this many MOS count as 0; on another scale than 1..5, the same share of
            its width. No effect on "nll".
        contrastive_weight: weight of the contrastive loss over pairs of utterances of a batch; utterances in different
            processes form no pair.
        corpus_offsets: learn the offsets between the scales of several corpora; no effect with a single corpus or with
            `targets`.
        corpus_weights: corpus -> how often an epoch draws each of its utterances, on average; 1 for other corpora.
        listener_offsets: regress single ratings, with a learned offset for each listener.
        foreign_tokens: accept tokens of another SSL model, or of features in its place. `target_layers` are then layers
            of the tokens.
        token_weight: weight of the distillation loss; 0 trains without self-distillation.
        encoder_lr: peak learning rate of the encoder; 0 does not train it.
        head_lr: peak learning rate of the heads.
        offset_lr: peak learning rate of the offsets of corpora and listeners.
        layer_decay: rate of each layer of the encoder as a share of the rate of the layer above it.
        head_steps: steps at the start in which only the heads are trained.
        l2_sp: weight of the penalty on the squared distance of the encoder from its start.
        lora_rank: rank of the updates of the encoder's linear maps, which are then all that is trained of it; 0 trains
            all of its weights.
        weight_decay: of AdamW; not applied to biases and norms.
        warmup_steps: steps of the linear rise to the peak rates.
        max_steps: optimiser steps, warm-up included.
        decay: schedule of the rates from the peak to `max_steps`; "linear" and "cosine" end at 0.
        grad_clip: largest norm of the gradient of all weights together.
        accumulate: batches for each step.
        batch_seconds: largest padded duration of a batch, which all processes share.
        max_seconds: longest accepted recording.
        num_workers: threads of each process that read audio ahead; 0 reads each batch when it is needed. No effect on
            the result.
        eval_every: steps between evaluations on the dev set.
        checkpoint_every: steps between checkpoints; each evaluation also writes one.
        patience: evaluations without a new best after which training stops.
        best_metric: of the dev set; selects the best models.
        n_best: number of best models to average.
        precision: "auto" is bfloat16 autocast on GPUs that support it, float32 elsewhere.
        log_every: steps between lines of the log.
        seed: of initial weights, data order and dropout.
    """

    model_config = ConfigDict(allow_inf_nan=False, validate_default=True)

    ssl_model: str = Field(default="hubert_tiny", min_length=1)
    init_model: str = ""
    head_fit: bool = True
    head_penalty: float = Field(default=0.0, ge=0)
    freeze_conv: bool = True
    targets: Annotated[tuple[str, ...], BeforeValidator(to_tuple)] = ()
    target_weights: dict[str, Annotated[float, Field(gt=0, le=100)]] = Field(default_factory=dict)
    regression_clip: float = Field(default=0.1, ge=0, lt=4)
    contrastive_weight: float = Field(default=0.0, ge=0)
    corpus_offsets: bool = True
    corpus_weights: dict[str, Annotated[float, Field(gt=0, le=100)]] = Field(default_factory=dict)
    listener_offsets: bool = False
    foreign_tokens: bool = False
    token_weight: float = Field(default=0.1, ge=0)
    encoder_lr: float = Field(default=1e-4, ge=0, lt=1)
    head_lr: float = Field(default=1e-3, gt=0, lt=1)
    offset_lr: float = Field(default=1e-2, gt=0, lt=1)
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    head_steps: NonNegativeInt = 0
    l2_sp: float = Field(default=0.0, ge=0)
    lora_rank: NonNegativeInt = 0
    weight_decay: float = Field(default=0.01, ge=0, lt=1)
    max_steps: PositiveInt = 2000
    warmup_steps: NonNegativeInt = 200
    decay: Literal["linear", "cosine", "constant"] = "linear"
    grad_clip: float = Field(default=1.0, gt=0)
    accumulate: PositiveInt = 1
    max_seconds: float = Field(default=30.0, gt=0)
    batch_seconds: float = Field(default=80.0, gt=0)
    num_workers: NonNegativeInt = 2
    eval_every: PositiveInt = 100
    checkpoint_every: PositiveInt = 100
    patience: PositiveInt = 10
    best_metric: Metric = "system_SRCC"
    n_best: PositiveInt = 3
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    log_every: PositiveInt = 20
    seed: NonNegativeInt = 1

    @property
    def trains_encoder(self) -> bool:
        """Whether the network has an encoder that is trained."""
        return self.model != "spectral" and self.encoder_lr > 0

    @property
    def distils(self) -> bool:
        """Whether the frozen encoder has a part in the loss."""
        return self.model == "distilmos" and self.token_weight > 0

    @property
    def distils_features(self) -> bool:
        """Whether the loss compares with the hidden states of the frozen encoder, not with its tokens."""
        return self.distils and self.distillation == "features"

    @property
    def needs_tokens(self) -> bool:
        """Whether the network has token predictors, even if they are not trained."""
        return self.model == "distilmos" and self.distillation == "tokens"

    @field_validator("ssl_model")
    @classmethod
    def _is_an_encoder(cls, value: str) -> str:
        if value in (MFCC, BEST_RQ):
            raise ValueError(f"{value} can only make tokens (run.sh --teacher)")
        return value

    @field_validator("targets")
    @classmethod
    def _are_targets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            try:
                target_table(name)
            except InputError as error:
                raise ValueError(str(error)) from None
        if len(set(value)) != len(value):
            raise ValueError("a target is listed twice")
        return value

    @field_validator("target_weights")
    @classmethod
    def _have_targets(cls, value: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        if unknown := [name for name in value if name not in info.data.get("targets", value)]:
            raise ValueError(f"{', '.join(unknown)} not in targets")
        return value

    @field_validator("warmup_steps")
    @classmethod
    def _warmup_ends(cls, value: int, info: ValidationInfo) -> int:
        if value >= info.data.get("max_steps", value + 1):
            raise ValueError(f"must be less than max_steps ({info.data['max_steps']})")
        return value

    @field_validator("batch_seconds")
    @classmethod
    def _holds_longest(cls, value: float, info: ValidationInfo) -> float:
        if value < info.data.get("max_seconds", 0):
            raise ValueError(f"must be at least max_seconds ({info.data['max_seconds']:g})")
        return value

    @model_validator(mode="after")
    def _one_token_per_frame(self) -> TrainConfig:
        if self.distils and max(self.strides) > 1:
            raise ValueError("strides above 1 need token_weight 0: each encoder frame has one token")
        return self

    @model_validator(mode="after")
    def _encoder_is_trained(self) -> TrainConfig:
        if self.head_steps and self.head_steps + self.warmup_steps >= self.max_steps:
            raise ValueError(f"head_steps and warmup_steps must end before max_steps ({self.max_steps})")
        options = {"layer_decay": self.layer_decay < 1, "head_steps": self.head_steps, "l2_sp": self.l2_sp}
        options["lora_rank"] = self.lora_rank
        if unused := [name for name, value in options.items() if value and not self.trains_encoder]:
            raise ValueError(f"{unused[0]} has no effect: the encoder is not trained")
        if self.lora_rank and (self.l2_sp or not self.freeze_conv):
            raise ValueError("lora_rank cannot be used with l2_sp or without freeze_conv: only the updates are trained")
        return self

    @model_validator(mode="after")
    def _has_use(self) -> TrainConfig:
        if self.model == "distilmos" and self.head == "statistics" and not self.distils:
            raise ValueError("head statistics needs token_weight above 0; without distillation use model: sslmos")
        if not self.head_fit and not (self.head == "statistics" and self.init_model):
            raise ValueError("head_fit false keeps the head of init_model: it needs init_model, and head statistics")
        if self.head_penalty and not (self.head == "statistics" and self.head_fit):
            raise ValueError("head_penalty has no effect without head: statistics, or with head_fit false")
        if self.distillation == "features" and not self.distils:
            raise ValueError("distillation features needs model distilmos and token_weight above 0")
        if self.distillation == "features" and self.foreign_tokens:
            raise ValueError("distillation features has no tokens: foreign_tokens (--teacher) cannot be used with it")
        return self

    @model_validator(mode="after")
    def _mean_of_ratings(self) -> TrainConfig:
        if self.listener_offsets and self.regression_loss != "mse":
            raise ValueError(
                "listener_offsets needs regression_loss mse: l1 fits the median of the ratings, but MOS is their mean"
            )
        if self.listener_offsets and self.targets:
            raise ValueError("listener_offsets needs the ratings of utt2mos: it cannot be used with targets")
        return self


BASE = "base"


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read settings from a YAML file of `key: value` lines; missing settings have their defaults.

    `base: FILE`, relative to the directory of this file, names another file that provides the settings missing here.

    Args:
        path: the file.
        overrides: `key=value` with a YAML value; they replace the settings of the file.

    Raises:
        InputError: naming each unknown or repeated key, wrong type and invalid value, with file and line.
    """
    values, places, faults = _read_files(Path(path))
    for override in overrides:
        key, separator, value = override.partition("=")
        where = f"--set {override}"
        if not separator:
            faults.append(f"{where}: expected key=value")
            continue
        try:
            values[key] = parse_yaml(value, where)
            places[key] = where
        except InputError as error:
            faults.append(str(error))
    try:
        config = TrainConfig.model_validate(values)
    except ValidationError as error:
        faults += _describe(error.errors(), str(path), places)
    raise_faults(faults, f"{path}: settings")
    return config


def _read_files(path: Path) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """Read a file and its bases; return key -> value, key -> file and line, and the errors."""
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    faults: list[str] = []
    seen: set[Path] = set()
    while path.resolve() not in seen:
        seen.add(path.resolve())
        table = scan_yaml(path)
        faults += table.faults
        base = table.values.pop(BASE, None)
        place = f"{path}:{table.lines.pop(BASE, 0)}"
        values = {**table.values, **values}
        places |= {key: f"{path}:{line}" for key, line in table.lines.items() if key not in places}
        if base is None:
            return values, places, faults
        if not isinstance(base, str) or not is_file(path.parent / base):
            return values, places, [*faults, f"{place}: {BASE}: no file {base!r} in {path.parent}"]
        path = path.parent / base
    return values, places, [*faults, f"{place}: {BASE}: {base} leads back to this file"]


def _describe(errors: list[ErrorDetails], path: str, places: dict[str, str]) -> list[str]:
    """Convert pydantic's errors to one line for each setting."""
    messages: dict[str, list[str]] = {}
    for error in errors:
        message = error["msg"].removeprefix("Value error, ").replace("a valid tuple", "a list")
        # An error about several settings has no location; its message starts with the name of one.
        key = str(error["loc"][0]) if error["loc"] else message.partition(" ")[0]
        if error["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key, TrainConfig.model_fields, n=1)
            message = "no such setting" + (f"; did you mean {near[0]}?" if near else "")
        elif key in places and error["loc"]:
            message += f", found {error['input']!r}"
        # The fault may be in the other setting that it names.
        others = [word for word in re.findall(r"\w+", message) if word in places and word != key]
        message += "".join(f"; {other} is set in {places[other]}" for other in dict.fromkeys(others))
        messages.setdefault(key, []).append(message[:1].lower() + message[1:])
    in_order = [key for key in dict.fromkeys([*places, *messages]) if key in messages]
    return [f"{places.get(key, path)}: {key}: {' or '.join(dict.fromkeys(messages[key]))}" for key in in_order]
