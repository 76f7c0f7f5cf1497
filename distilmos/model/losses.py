"""The multi-task loss: regression of MOS, and the token cross-entropy averaged over layers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from distilmos.model.networks import Prediction

NO_TOKEN = -1  # marks padding in token arrays


@dataclass(frozen=True)
class Losses:
    """Losses of one batch.

    Attributes:
        total: regression + token_weight * token, what is minimised; a scalar tensor.
        regression: mean over utterances; a scalar tensor.
        token: mean over layers and valid frames; a scalar tensor, or None without tokens.
        correct: how many frames of each target layer were classified right, long (L,); None without tokens.
        frames: number of valid frames that `token` is a mean of.
    """

    total: Tensor
    regression: Tensor
    token: Tensor | None
    correct: Tensor | None
    frames: int


@dataclass(frozen=True)
class ScorePairs:
    """Predicted scores and what they should be: of utterances, or of single ratings.

    Attributes:
        predicted: float (R,).
        rated: float (R,).
        weights: float (R,), sum 1.
    """

    predicted: Tensor
    rated: Tensor
    weights: Tensor


def utterance_pairs(predicted: Tensor, rated: Tensor) -> ScorePairs:
    """Compare (B,) scores of utterances, all of the same weight."""
    return ScorePairs(predicted, rated, torch.full_like(rated, 1 / rated.numel()))


def regression_loss(pairs: ScorePairs, kind: str, clip: float) -> Tensor:
    """Return the weighted mean of L1 or squared errors; an absolute error up to `clip` costs nothing.

    Clipping after T. Saeki et al., "UTMOS", Interspeech 2022: listeners disagree by more than small errors.
    """
    error = (pairs.predicted - pairs.rated).abs()
    cost = error if kind == "l1" else error.square()
    return (torch.where(error > clip, cost, torch.zeros_like(cost)) * pairs.weights).sum()


def contrastive_loss(predicted: Tensor, rated: Tensor, clip: float) -> Tensor:
    """Return the mean over all pairs of utterances of how far their difference is predicted wrong; 0 without a pair.

    It is what ranks utterances, whatever the scale. After T. Saeki et al., "UTMOS", Interspeech 2022.

    Args:
        predicted: float (B,).
        rated: float (B,).
        clip: errors of a difference cost what they are above it.
    """
    wrong = (predicted[:, None] - predicted) - (rated[:, None] - rated)
    pairs = predicted.numel() * (predicted.numel() - 1) / 2
    return F.relu(wrong.abs() - clip).triu(1).sum() / max(1.0, pairs)


def multitask_loss(
    prediction: Prediction, pairs: ScorePairs, tokens: Tensor | None, *, kind: str, clip: float, token_weight: float
) -> Losses:
    """Compute all losses of a batch.

    Args:
        prediction: of B utterances.
        pairs: what the regression compares.
        tokens: token ids of the target layers, long (B, L, T), NO_TOKEN at padding; None where there are none.
        kind: "l1" or "mse".
        clip: errors up to this cost nothing.
        token_weight: weight of the token loss.
    """
    regression = regression_loss(pairs, kind, clip)
    if tokens is None:
        return Losses(regression, regression, None, None, 0)
    layers = list(zip(prediction.token_logits, tokens.unbind(1), strict=True))
    token = torch.stack(
        [F.cross_entropy(logits.flatten(0, 1), ids.flatten(), ignore_index=NO_TOKEN) for logits, ids in layers]
    ).mean()
    correct = torch.stack([(logits.argmax(2) == ids).sum() for logits, ids in layers])
    frames = int((tokens[:, 0] != NO_TOKEN).sum())
    return Losses(regression + token_weight * token, regression, token, correct, frames)
