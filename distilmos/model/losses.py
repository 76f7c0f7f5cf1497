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


def regression_loss(predicted: Tensor, rated: Tensor, kind: str, clip: float) -> Tensor:
    """Return the mean L1 or squared error of (B,) scores; an absolute error up to `clip` costs nothing.

    Clipping after T. Saeki et al., "UTMOS", Interspeech 2022: listeners disagree by more than small errors.
    """
    error = (predicted - rated).abs()
    cost = error if kind == "l1" else error.square()
    return torch.where(error > clip, cost, torch.zeros_like(cost)).mean()


def multitask_loss(
    prediction: Prediction, rated: Tensor, tokens: Tensor | None, *, kind: str, clip: float, token_weight: float
) -> Losses:
    """Compute all losses of a batch.

    Args:
        prediction: of B utterances.
        rated: mean opinion scores, float (B,).
        tokens: token ids of the target layers, long (B, L, T), NO_TOKEN at padding; None where there are none.
        kind: "l1" or "mse".
        clip: errors up to this cost nothing.
        token_weight: weight of the token loss.
    """
    regression = regression_loss(prediction.mos, rated, kind, clip)
    if tokens is None or not prediction.token_logits:
        return Losses(regression, regression, None, None, 0)
    pairs = list(zip(prediction.token_logits, tokens.unbind(1), strict=True))
    token = torch.stack(
        [F.cross_entropy(logits.flatten(0, 1), ids.flatten(), ignore_index=NO_TOKEN) for logits, ids in pairs]
    ).mean()
    correct = torch.stack([(logits.argmax(2) == ids).sum() for logits, ids in pairs])
    frames = int((tokens[:, 0] != NO_TOKEN).sum())
    return Losses(regression + token_weight * token, regression, token, correct, frames)
