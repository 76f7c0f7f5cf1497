"""The power spectrum from operations that ONNX has: torch's own is not exported, and that of ONNX is slow."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def power_spectrum(audio: Tensor, window: Tensor, hop: int) -> Tensor:
    """Return |torch.stft|^2 with `center=False`.

    The transform of size W = A * B is one of size A, a rotation, and one of size B (J. Cooley, J. Tukey, "An algorithm
    for the machine calculation of complex Fourier series", 1965). A single product with W * W sines and cosines loses
    ten times as much precision: weak bands of loud frames would be its rounding errors.

    Args:
        audio: waveforms (B, N).
        window: (W,).
        hop: samples from one frame to the next.

    Returns:
        the power (B, W / 2 + 1, T).
    """
    size = len(window)
    first = next(divisor for divisor in range(math.isqrt(size), 0, -1) if size % divisor == 0)
    second = size // first
    # Sample n = second * a + b contributes to frequency k = c + first * d.
    a, b, c = torch.arange(first), torch.arange(second), torch.arange(first)
    d = torch.arange(size // 2 // first + 1)
    order = second * a[None, :] + b[:, None]
    starts = hop * torch.arange((audio.shape[1] - size) // hop + 1)
    frames = audio[:, starts[:, None, None] + order] * window[order]  # (B, T, b, a)
    cosine, sine = _turns(a, c, first)
    real, imaginary = frames @ cosine, frames @ sine
    cosine, sine = _turns(b, c, size)
    real, imaginary = real * cosine - imaginary * sine, real * sine + imaginary * cosine
    real, imaginary = real.transpose(2, 3), imaginary.transpose(2, 3)  # (B, T, c, b)
    cosine, sine = _turns(b, d, second)
    real, imaginary = real @ cosine - imaginary @ sine, real @ sine + imaginary @ cosine
    power = real.square() + imaginary.square()
    return power.transpose(2, 3).flatten(2)[:, :, : size // 2 + 1].transpose(1, 2)


def _turns(left: Tensor, right: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of 2 pi * left * right / size, float32 (L, R)."""
    # Without whole turns, which cost digits.
    angles = (torch.outer(left, right) % size).double() * (2 * math.pi / size)
    return angles.cos().float(), angles.sin().float()
