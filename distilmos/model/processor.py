"""The feature processor, the token predictors and the decoder of DistilMOS; padding affects none of them.

In the released code padded frames become non-zero before wide convolutions, so that a score depends on the batch. Here
padding is set to zero before every convolution, like the zeros after the end of a recording that is scored alone;
batch statistics and the LSTMs use only valid frames.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from distilmos.ssl.encoder import exporting, valid_mask


class _SumOverProcesses(torch.autograd.Function):
    """Sums a tensor over all processes, and its gradient too, because the loss is the sum of their losses."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        """Return the sum of the tensor."""
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Return the sum of the gradient."""
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


class FrameNorm(nn.BatchNorm1d):
    """Batch norm of frames (N, H) with the statistics of the whole batch, which several processes may share.

    SyncBatchNorm of torch does the same, but only on GPUs.

    A single frame, from a batch of one recording shorter than two frames, has no variance and would become 0. In
    training too it is normalised with the running statistics, and does not change them.
    """

    def forward(self, frames: Tensor) -> Tensor:
        """Normalise frames (N, H); N may be 0 in a run of several processes."""
        if self.training and dist.is_available() and dist.is_initialized():
            return self._across_processes(frames)
        return self._with_running_statistics(frames) if len(frames) == 1 else super().forward(frames)

    def _with_running_statistics(self, frames: Tensor) -> Tensor:
        return F.batch_norm(frames, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)

    def _across_processes(self, frames: Tensor) -> Tensor:
        """Normalise with mean and variance over the frames of all processes, computed in float32."""
        values = frames.float()
        sums: Tensor = _SumOverProcesses.apply(torch.cat([values.sum(0), values.new_tensor([len(values)])]))
        count = int(sums[-1])
        if count == 1:
            return self._with_running_statistics(frames)
        mean = sums[:-1] / count
        centred = values - mean
        # A second sum, because the difference of mean square and squared mean would lose digits.
        variance: Tensor = _SumOverProcesses.apply(centred.square().sum(0)) / count
        self._update_running(mean.detach(), variance.detach() * (count / (count - 1)))
        return (centred * torch.rsqrt(variance + self.eps) * self.weight + self.bias).to(frames.dtype)

    def _update_running(self, mean: Tensor, variance: Tensor) -> None:
        """Update the running statistics with those of a batch, as BatchNorm1d does."""
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        momentum = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


def norm_valid(norm: FrameNorm, x: Tensor, lengths: Tensor) -> Tensor:
    """Normalise the first `lengths` (B,) frames of (B, H, T); return zero at padding."""
    mask = valid_mask(lengths, x.shape[2])
    if exporting():
        normed: Tensor = norm(x)
        return normed
    # Only valid frames go through the norm, as rows: padding must not affect its statistics.
    frames: Tensor = norm(x.transpose(1, 2)[mask])
    output = frames.new_zeros(x.shape[0], x.shape[2], x.shape[1])
    output[mask] = frames
    return output.transpose(1, 2)


def strided_lengths(lengths: Tensor, stride: int) -> Tensor:
    """Return the output lengths (B,) of a convolution whose output frame t is centred at input frame t * stride."""
    return torch.div(lengths - 1, stride, rounding_mode="floor") + 1


class SeparableBlock(nn.Module):
    """Depthwise and pointwise convolution, batch norm over valid frames, GELU."""

    def __init__(self, width: int, kernel: int, stride: int) -> None:
        """Build a block of `width` channels; `kernel` is odd, so that frame t is centred at t * stride."""
        super().__init__()
        self.stride = stride
        self.dw = nn.Conv1d(width, width, kernel, stride, padding=kernel // 2, groups=width, bias=False)
        self.pw = nn.Conv1d(width, width, 1, bias=False)
        self.bn = FrameNorm(width)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, H, T), zero at padding, to (B, H, T'), zero at padding; return the new lengths (B,) too."""
        x = self.pw(self.dw(x))
        lengths = strided_lengths(lengths, self.stride)
        return F.gelu(norm_valid(self.bn, x, lengths)), lengths


class FeatureProcessor(nn.Module):
    """Reduces the mixed layers to the shared representation of width H."""

    def __init__(self, source: int, width: int, kernels: tuple[int, ...], strides: tuple[int, ...]) -> None:
        """Build a processor from `source` to `width` channels, with one block for each kernel and stride."""
        super().__init__()
        self.proj_in = nn.Conv1d(source, width, 1)
        self.blocks = nn.ModuleList(SeparableBlock(width, k, s) for k, s in zip(kernels, strides, strict=True))
        self.ln = nn.LayerNorm(width)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Map frames (B, T, D) to (B, T', H); padded output frames are unspecified. Also return the new lengths."""
        x = self.proj_in(x.transpose(1, 2))
        # proj_in has a bias, which makes padding non-zero.
        x = x * valid_mask(lengths, x.shape[2])[:, None, :]
        for block in self.blocks:
            x, lengths = block(x, lengths)
        return self.ln(x.transpose(1, 2)), lengths


class TokenPredictor(nn.Module):
    """Classifies each frame into the k-means clusters of one encoder layer, or regresses its hidden state."""

    def __init__(self, width: int, outputs: int) -> None:
        """Build an MLP width -> width -> width -> outputs."""
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (..., K) of frames (..., H)."""
        logits: Tensor = self.layers(x)
        return logits


class Decoder(nn.Module):
    """Convolution, bidirectional LSTM and a residual connection around the LSTM."""

    def __init__(self, width: int, dropout: float) -> None:
        """Build a decoder of `width` channels."""
        super().__init__()
        self.cnn = nn.Conv1d(width, width, 3, padding=1)
        self.lstm_forward = nn.LSTM(width, width, batch_first=True)
        self.lstm_backward = nn.LSTM(width, width, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(2 * width, width)
        self.layer_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Map frames (B, T, H) to (B, T, H); padded frames are unspecified."""
        mask = valid_mask(lengths, x.shape[1])[:, :, None]
        local = self.cnn((x * mask).transpose(1, 2)).transpose(1, 2)
        # Two LSTMs, the second on sequences reversed within their lengths, equal one bidirectional LSTM on a packed
        # sequence, whose backward pass takes ten times as long on a CPU.
        reverse = _reversal(lengths, x.shape[1])[:, :, None].expand_as(local)
        backward = self.lstm_backward(local.gather(1, reverse))[0].gather(1, reverse)
        context = torch.cat([self.lstm_forward(local)[0], backward], dim=2)
        context = F.gelu(self.linear(self.dropout(context))) * mask
        normed: Tensor = self.layer_norm(context + local)
        return normed


def _reversal(lengths: Tensor, size: int) -> Tensor:
    """Return indices (B, size) that reverse each sequence within its length (B,) and keep padding in place."""
    frames = torch.arange(size, device=lengths.device)[None, :]
    mirrored = lengths[:, None] - 1 - frames
    return torch.where(mirrored >= 0, mirrored, frames)
