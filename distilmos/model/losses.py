"""Loss functions: MOS regression, differences between utterances, and distillation averaged over layers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from distilmos.ssl.encoder import valid_mask

NO_TOKEN = -1  # marks padding in token arrays
TINY = 1e-6  # far below the weight of a label; keeps a batch without labels from dividing by 0


@dataclass(frozen=True)
class ScorePairs:
    """Predicted scores and their targets, of utterances or of single ratings.

    Attributes:
        predicted: float (R,).
        rated: float (R,).
        weights: float (R,), sum 1; or all 0 if nothing is rated.
    """

    predicted: Tensor
    rated: Tensor
    weights: Tensor


def utterance_pairs(predicted: Tensor, rated: Tensor, weights: Tensor) -> ScorePairs:
    """Pair the scores of utterances.

    Args:
        predicted: float (B, targets).
        rated: float (B, targets), NaN where there is none.
        weights: of the targets, float (targets,).
    """
    each = (weights * ~rated.isnan()).flatten()
    return ScorePairs(predicted.flatten(), rated.nan_to_num().flatten(), each / each.sum().clamp(min=TINY))


def regression_loss(pairs: ScorePairs, kind: str, clip: float) -> Tensor:
    """Return the weighted mean of L1 ("l1") or squared ("mse") errors; an absolute error up to `clip` counts as 0.

    Clipping after T. Saeki et al., "UTMOS", Interspeech 2022: listeners disagree by more than small errors.
    """
    error = (pairs.predicted - pairs.rated).abs()
    cost = error if kind == "l1" else error.square()
    return (torch.where(error > clip, cost, torch.zeros_like(cost)) * pairs.weights).sum()


def likelihood_loss(pairs: ScorePairs, log_errors: Tensor) -> Tensor:
    """Return the weighted mean of the negative log-likelihood of the ratings under Laplace distributions.

    Its score is the median of a distribution and its expected error the scale: a network that expects its errors
    rightly is not punished for large ones. After A. Kendall and Y. Gal, "What uncertainties do we need in Bayesian deep
    learning for computer vision?", NeurIPS 2017.

    Args:
        pairs: scores and ratings (R,).
        log_errors: logarithms of expected absolute errors (R,).
    """
    error = (pairs.predicted - pairs.rated).abs()
    return ((error * (-log_errors).exp() + log_errors + math.log(2)) * pairs.weights).sum()


def contrastive_loss(predicted: Tensor, rated: Tensor, clip: float) -> Tensor:
    """Return the mean error of the predicted score differences over all pairs of utterances; 0 without a pair.

    It rewards the right ranking, whatever the scale. After T. Saeki et al., "UTMOS", Interspeech 2022.

    Args:
        predicted: float (B,).
        rated: float (B,).
        clip: margin: only the excess of an error over `clip` is penalised.
    """
    wrong = (predicted[:, None] - predicted) - (rated[:, None] - rated)
    pairs = predicted.numel() * (predicted.numel() - 1) / 2
    return F.relu(wrong.abs() - clip).triu(1).sum() / max(1.0, pairs)


@dataclass(frozen=True)
class DistillationLoss:
    """The distillation loss of a batch.

    Attributes:
        loss: mean over target layers and valid frames; a scalar tensor.
        correct: number of correctly classified frames of each target layer, long (L,); None for features.
        frames: number of valid frames.
    """

    loss: Tensor
    correct: Tensor | None
    frames: int


def token_loss(logits: list[Tensor], tokens: Tensor) -> DistillationLoss:
    """Compute the cross-entropy of tokens.

    Args:
        logits: one float (B, T, K) for each of the L target layers.
        tokens: token ids, long (B, L, T), NO_TOKEN at padding.
    """
    layers = list(zip(logits, tokens.unbind(1), strict=True))
    loss = torch.stack(
        [F.cross_entropy(scores.flatten(0, 1), ids.flatten(), ignore_index=NO_TOKEN) for scores, ids in layers]
    ).mean()
    correct = torch.stack([(scores.argmax(2) == ids).sum() for scores, ids in layers])
    return DistillationLoss(loss, correct, int((tokens[:, 0] != NO_TOKEN).sum()))


def feature_loss(predicted: list[Tensor], wanted: list[Tensor], num_frames: Tensor) -> DistillationLoss:
    """Compute 1 - cosine of predicted and wanted hidden states, which ignores the very different norms of layers.

    Args:
        predicted: one float (B, T, D) for each of the L target layers.
        wanted: those of the frozen encoder.
        num_frames: numbers of valid frames, long (B,).
    """
    valid = valid_mask(num_frames, predicted[0].shape[1])
    # In bfloat16, the cosines of similar vectors have two digits.
    pairs = [(ours[valid].float(), theirs[valid].float()) for ours, theirs in zip(predicted, wanted, strict=True)]
    loss = torch.stack([1 - F.cosine_similarity(ours, theirs, dim=1).mean() for ours, theirs in pairs]).mean()
    return DistillationLoss(loss, None, int(num_frames.sum()))
