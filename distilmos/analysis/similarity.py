"""Linear centred kernel alignment (CKA): the similarity of two layers on the same frames.

S. Kornblith, M. Norouzi, H. Lee, G. Hinton, "Similarity of neural network representations revisited", ICML 2019. CKA is
1 if one layer is a rotation and scaling of the other, and does not depend on the order of neurons. It is too high
unless there are many times more frames than dimensions: on few frames any two layers look alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

MAX_BYTES = 2**31  # memory for the products of pairs of layers


def columns_at_once(layers: int, width: int) -> int:
    """Return how many layers (at least one) can be compared with all `layers` at once within MAX_BYTES."""
    return max(1, MAX_BYTES // (8 * layers * width * width))


class LayerSimilarity:
    """CKA of each of L layers with each of M layers, from sums over a stream of frames.

    In feature space the numerator of CKA is the squared Frobenius norm of the cross-covariance (D, D) of two layers, so
    memory is L M D^2 doubles for any number of frames. The sums have double precision because the means are subtracted
    from them at the end.
    """

    def __init__(self, rows: int, columns: int, width: int, device: torch.device) -> None:
        """Start without frames, for `rows` L and `columns` M layers of `width` D."""

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64, device=device)

        self._frames = 0
        self._sums = zeros(rows, width), zeros(columns, width)
        self._products = zeros(rows, width, width), zeros(columns, width, width)
        self._cross = zeros(rows * width, columns * width)

    def add(self, rows: Sequence[Tensor], columns: Sequence[Tensor]) -> None:
        """Add the same frames of the L and of the M layers, each (N, D)."""
        stacks = [torch.stack(list(layers)).double() for layers in (rows, columns)]
        self._frames += stacks[0].shape[1]
        for stack, sums, products in zip(stacks, self._sums, self._products, strict=True):
            sums += stack.sum(1)
            products += stack.transpose(1, 2) @ stack
        # One product for all pairs of layers.
        left, right = (stack.transpose(0, 1).flatten(1) for stack in stacks)
        self._cross.addmm_(left.T, right)

    def cka(self) -> np.ndarray:
        """Return the CKA of every pair, (L, M), in 0..1; NaN if a layer is constant."""
        norms = [
            _centred(products, sums[:, :, None] * sums[:, None, :], self._frames).flatten(1).norm(dim=1)
            for sums, products in zip(self._sums, self._products, strict=True)
        ]
        (rows, width), (columns, _) = (sums.shape for sums in self._sums)
        similar = torch.zeros(rows, columns, dtype=torch.float64)
        for row, products in enumerate(self._cross.view(rows, width, columns, width)):  # row by row: it is large
            outer = self._sums[0][row][:, None, None] * self._sums[1]
            similar[row] = _centred(products, outer, self._frames).square().sum((0, 2)).cpu()
        return (similar / torch.outer(*norms).cpu()).numpy()


def _centred(products: Tensor, outer: Tensor, frames: int) -> Tensor:
    """Return the sums of products of centred values from `products` of raw values and `outer` product of their sums."""
    return products - outer / frames
