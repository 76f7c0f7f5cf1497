"""The weighted sum of encoder layers, with weights that can be exactly zero."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def entmax15(scores: Tensor) -> Tensor:
    """Return the 1.5-entmax of a vector, which is between softmax and sparsemax and has exact zeros.

    p_i = max(0, s_i / 2 - tau)^2 with tau such that the p_i sum to 1; tau is found exactly by sorting (B. Peters,
    V. Niculae, A. Martins, "Sparse Sequence-to-Sequence Models", ACL 2019, algorithm 2).

    Args:
        scores: shape (L,).

    Returns:
        shape (L,), non-negative, sum 1; differentiable.
    """
    # A common offset does not change the result; removing it keeps the squares below accurate.
    halves = (scores - scores.max()) / 2
    ordered = halves.sort(descending=True).values
    count = torch.arange(1, scores.numel() + 1, device=scores.device, dtype=scores.dtype)
    mean = ordered.cumsum(0) / count
    mean_square = ordered.square().cumsum(0) / count
    # tau if the k largest scores are the support, for every k; the support is the largest k whose k-th score is >= tau.
    thresholds = mean - ((1 - count * (mean_square - mean.square())) / count).clamp(min=0).sqrt()
    support = int((thresholds <= ordered).sum())
    return (halves - thresholds[support - 1]).clamp(min=0).square()


class LayerMix(nn.Module):
    """Weighted sum of the layers, then a linear map."""

    def __init__(self, num_layers: int, width: int) -> None:
        """Start with equal weights for `num_layers` layers of width `width`."""
        super().__init__()
        self.layer_logits = nn.Parameter(torch.zeros(num_layers))
        self.out_proj = nn.Linear(width, width)

    def weights(self) -> Tensor:
        """Return the layer weights, shape (L,)."""
        return entmax15(self.layer_logits - self.layer_logits.mean())

    def forward(self, layers: list[Tensor], mask: Tensor) -> Tensor:
        """Mix layers (L tensors (B, T, D)) to (B, T, D), zero where `mask` (B, T) is False."""
        mixed = sum(weight * layer for weight, layer in zip(self.weights(), layers, strict=True))
        projected: Tensor = self.out_proj(mixed)
        return projected * mask[:, :, None]
