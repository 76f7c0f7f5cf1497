"""The objective: the loss that an optimiser step minimises, and its parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from distilmos.model.losses import (
    TINY,
    DistillationLoss,
    ScorePairs,
    contrastive_loss,
    feature_loss,
    likelihood_loss,
    regression_loss,
    token_loss,
    utterance_pairs,
)
from distilmos.model.networks import MOSNetwork, Prediction
from distilmos.ssl.encoder import SSLEncoder
from distilmos.training.config import TrainConfig
from distilmos.training.loader import Batch


class StepSize(NamedTuple):
    """Sum of the weights of all labels, and number of distilled frames, in all batches of a step in all processes."""

    labels: float
    frames: int


@dataclass(frozen=True)
class Objective:
    """The loss of a batch and its parts, as this batch contributes to the mean over the step.

    Attributes:
        total: the loss to minimise, regression + token_weight * token + contrastive_weight * contrastive.
        regression, token, contrastive: scalar tensors; 0 where the settings or the data have no such loss. `token` is
            the distillation loss, also of features.
        scores: scores of the B utterances on the scales of their corpora, (B, targets).
        correct: number of correctly classified frames of each target layer, long (L,); None without tokens.
        frames: number of frames with a distillation loss.
    """

    total: Tensor
    regression: Tensor
    token: Tensor
    contrastive: Tensor
    scores: Tensor
    correct: Tensor | None
    frames: int


def compute_objective(
    model: MOSNetwork,
    batch: Batch,
    config: TrainConfig,
    step: StepSize | None = None,
    teacher: SSLEncoder | None = None,
) -> Objective:
    """Compute the objective of a batch.

    Each batch is weighted by its share of the step's labels and frames. Splitting a batch in two therefore changes
    only rounding, and the pairs of the contrastive loss.

    Args:
        model: in training mode it may use bfloat16 autocast; in evaluation mode it computes in float32, as prediction
            does.
        batch: at least one recording, on the device of `model`.
        config: the settings.
        step: size of the step; None if the batch is the whole step.
        teacher: the frozen encoder, in evaluation mode on the device of `model`; None unless features are distilled.
    """
    device = batch.audio.device.type
    with torch.autocast(device, torch.bfloat16, enabled=model.training and uses_bfloat16(config, batch.audio.device)):
        distils = batch.tokens is not None or teacher is not None
        prediction = model(batch.audio, batch.num_samples, with_tokens=distils)
        scores = _on_own_scale(model, prediction.scores, batch.corpora)
        pairs = _score_pairs(model, scores, batch, config)
        if prediction.log_errors is None:
            regression = regression_loss(pairs, config.regression_loss, config.regression_clip)
        else:
            regression = likelihood_loss(pairs, prediction.log_errors.float().flatten())
        distilled = _distillation(prediction, model.target_layers, batch, teacher) if distils else None
    share = 1.0 if step is None else label_weight(batch.scores, config) / max(TINY, step.labels)
    regression = regression * share
    token = contrastive = torch.zeros_like(regression)
    if distilled is not None:
        token = distilled.loss * (1.0 if step is None else distilled.frames / step.frames)
    if config.contrastive_weight:
        contrastive = _contrastive(scores, batch.scores, config) * share
    return Objective(
        total=regression + config.token_weight * token + config.contrastive_weight * contrastive,
        regression=regression,
        token=token,
        contrastive=contrastive,
        scores=scores,
        correct=None if distilled is None else distilled.correct,
        frames=0 if distilled is None else distilled.frames,
    )


def _distillation(
    prediction: Prediction, target_layers: tuple[int, ...], batch: Batch, teacher: SSLEncoder | None
) -> DistillationLoss:
    """Return the loss against the tokens of the batch, or else the hidden states of the teacher."""
    if batch.tokens is not None:
        return token_loss(prediction.token_logits, batch.tokens)
    assert teacher is not None
    with torch.no_grad():
        layers, num_frames = teacher(batch.audio, batch.num_samples)
    return feature_loss(prediction.token_logits, [layers[layer - 1] for layer in target_layers], num_frames)


def uses_bfloat16(config: TrainConfig, device: torch.device) -> bool:
    """Return whether training on `device` runs under bfloat16 autocast."""
    # GPUs older than Ampere emulate bfloat16, which is slower than float32.
    return config.precision == "bfloat16" or (
        config.precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    )


def target_weights(config: TrainConfig) -> list[float]:
    """Return the weight of each target; 1 for utt2mos alone."""
    return [config.target_weights.get(name, 1.0) for name in config.targets] or [1.0]


def label_weight(scores: Tensor, config: TrainConfig) -> float:
    """Return the sum of the weights of all labels in scores (N, targets), NaN where there is none."""
    counts = (~scores.isnan()).sum(0)
    return float(counts.double().cpu() @ torch.tensor(target_weights(config), dtype=torch.float64))


def _on_own_scale(model: MOSNetwork, scores: Tensor, corpora: Tensor) -> Tensor:
    """Move scores (B, targets) to the scales of their corpora (B,)."""
    return scores if model.corpus_offsets is None else scores + model.corpus_offsets(corpora)[:, None]


def _score_pairs(model: MOSNetwork, scores: Tensor, batch: Batch, config: TrainConfig) -> ScorePairs:
    """Return the targets of the regression: mean scores, or single ratings with the offsets of their listeners."""
    if batch.ratings is None or model.listener_offsets is None:
        return utterance_pairs(scores, batch.scores, scores.new_tensor(target_weights(config)))
    ratings, mos = batch.ratings, scores[:, 0]
    return ScorePairs(mos[ratings.member] + model.listener_offsets(ratings.listener), ratings.score, ratings.weight)


def _contrastive(scores: Tensor, rated: Tensor, config: TrainConfig) -> Tensor:
    """Return the weighted mean over targets of the contrastive loss of scores (B, targets)."""
    weights = target_weights(config)
    total = scores.new_zeros(())
    for weight, own, labels in zip(weights, scores.unbind(1), rated.unbind(1), strict=True):
        known = ~labels.isnan()
        total = total + weight / sum(weights) * contrastive_loss(own[known], labels[known], config.regression_clip)
    return total
