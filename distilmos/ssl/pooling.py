"""Mean and standard deviation over time of every layer of an encoder: what linear models of a recording read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from distilmos.ssl.encoder import valid_mask

EPS = 1e-5  # added to a variance, which must not be 0


def pool_layers(layers: Sequence[Tensor], num_frames: Tensor) -> Tensor:
    """Pool the layers of a batch of recordings.

    Args:
        layers: hidden states of each layer, L x (B, T, D).
        num_frames: number of valid frames of each recording, (B,).

    Returns:
        float32 (B, L, 2 D): for each layer the mean, then the standard deviation. A recording without a frame counts as
        one frame of zeros.
    """
    mask = valid_mask(num_frames, layers[0].shape[1])[:, :, None]
    count = num_frames.clamp(min=1)[:, None]
    pooled = []
    for layer in layers:
        frames = layer.float() * mask
        mean = frames.sum(1) / count
        variance = ((frames - mean[:, None]) * mask).square().sum(1) / count
        pooled.append(torch.cat([mean, (variance + EPS).sqrt()], dim=1))
    return torch.stack(pooled, dim=1)


def pool_recording(layers: Sequence[Tensor]) -> np.ndarray:
    """Pool the hidden states L x (T, D) of one recording: float32 (L, 2 D), see `pool_layers`."""
    num_frames = torch.tensor([len(layers[0])], device=layers[0].device)
    return pool_layers([layer[None] for layer in layers], num_frames)[0].cpu().numpy()
