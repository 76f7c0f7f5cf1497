"""Statistics over time: the mean and the standard deviation of all layers, for a linear head."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from distilmos.ridge import fit_ridge, standardisation
from distilmos.ssl.encoder import valid_mask
from distilmos.ssl.pooling import EPS, pool_layers


def deviations(frames: Tensor, num_frames: Tensor) -> Tensor:
    """Return the contribution of each frame to the standard deviation over time of frames (B, T, W).

    It is the squared difference from the mean over time, divided by the deviation: (B, T, W). Its mean over the
    `num_frames` (B,) valid frames is the deviation.
    """
    mask = valid_mask(num_frames, frames.shape[1])[:, :, None]
    count = num_frames[:, None, None]
    mean = (frames * mask).sum(1, keepdim=True) / count
    squares = (frames - mean).square() + EPS
    return squares * ((squares * mask).sum(1, keepdim=True) / count).rsqrt()


class TimeStatistics(nn.Module):
    """Standardised frames of all layers and their deviations, whose mean over time is a recording's statistics.

    A linear map of them scores each frame; the score of a recording, the mean over its frames, is then a linear map of
    the mean and the standard deviation over time of all layers. Training starts from the ridge regression of `fit`, the
    best linear head on the frozen encoder (LP-FT, A. Kumar et al., "Fine-tuning can distort pretrained features and
    underperform out-of-distribution", ICLR 2022).

    Attributes:
        mean: subtracted from each feature, (P,); P = L * 2 D, for each layer the frames, then the deviations.
        scale: divides each feature, (P,). It includes the square root of P, so that a step of the optimiser moves the
            score as little as with few features.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, num_layers: int, width: int) -> None:
        """Start from features that are not standardised."""
        super().__init__()
        size = 2 * width * num_layers
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.full((size,), size**0.5))

    def forward(self, layers: list[Tensor], num_frames: Tensor) -> Tensor:
        """Return the features (B, T, P), float32, of the hidden states of all layers, L tensors (B, T, D)."""
        # bfloat16 keeps too few digits for deviations.
        with torch.autocast(layers[0].device.type, enabled=False):
            features: Tensor = (_parts(layers, num_frames) - self.mean) / self.scale
        return features

    @staticmethod
    def pool(layers: list[Tensor], num_frames: Tensor) -> Tensor:
        """Return the statistics of recordings, not standardised, (B, P): the mean over time of `_parts`."""
        return pool_layers(layers, num_frames).flatten(1)

    def novelty(self, pooled: Tensor) -> Tensor:
        """Return how unlike those of the training set the statistics of recordings, (B, P) from `pool`, are: (B,).

        It is the mean over features of the squared difference from the mean of the training set, in its variances: 1 in
        the mean of the training set once `standardise` has seen it.
        """
        return ((pooled - self.mean) / self.scale).square().sum(1)

    @torch.no_grad()
    def standardise(self, linear: nn.Linear, pooled: np.ndarray) -> None:
        """Standardise the features by `pooled`, (N, P), and change `linear` so that its scores stay the same."""
        self.restandardise(linear, *(torch.from_numpy(values).to(self.mean) for values in standardisation(pooled)))

    @torch.no_grad()
    def restandardise(self, linear: nn.Linear, mean: Tensor, scale: Tensor) -> None:
        """Standardise the features by `mean` and `scale`, (P,); change `linear` so that its scores stay the same."""
        weights = linear.weight / self.scale
        linear.bias.add_(weights @ (mean - self.mean))
        self.mean.copy_(mean)
        self.scale.copy_(scale)
        linear.weight.copy_(weights * self.scale)

    @torch.no_grad()
    def fit(
        self, linear: nn.Linear, pooled: np.ndarray, targets: np.ndarray, folds: np.ndarray, penalties: Sequence[float]
    ) -> None:
        """Set `linear`, which maps the features to scores, to ridge regressions.

        Args:
            linear: from P features to the outputs.
            pooled: statistics of the training set, (N, P).
            targets: scores, (N, outputs), NaN where there is none.
            folds: for the choice of the penalty, (N,).
            penalties: to choose from, see `fit_ridge`.
        """
        mean, scale = (values.double().cpu().numpy() for values in (self.mean, self.scale))
        for output, scores in enumerate(targets.T):
            known = ~np.isnan(scores)
            own = folds[known]
            if len(np.unique(own)) == 1:
                own = np.arange(len(own))  # all labels are of one fold: leave out one at a time
            ridge = fit_ridge(pooled[known], scores[known, None], own, penalties)
            weights = ridge.weights[:, 0] / ridge.scale
            linear.weight[output].copy_(torch.from_numpy(weights * scale))
            linear.bias[output] = float(ridge.centre[0] + (mean - ridge.mean) @ weights)


def _parts(layers: list[Tensor], num_frames: Tensor) -> Tensor:
    """Return the frames of each layer and their deviations, float32 (B, T, P)."""
    return torch.cat([part for x in layers for part in (x.float(), deviations(x.float(), num_frames))], dim=2)
