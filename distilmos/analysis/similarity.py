"""Linear centred kernel alignment (CKA): how alike two layers arrange the same frames.

S. Kornblith, M. Norouzi, H. Lee, G. Hinton, "Similarity of neural network representations revisited", ICML 2019. It is
1 where one layer is a rotation and scaling of the other, and does not see which neuron does what. It is too high where
there are not many times more frames than dimensions: any two layers are alike on a few frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

MAX_BYTES = 2**31  # of the products of all pairs of layers


def columns_at_once(layers: int, width: int) -> int:
    """Return with how many layers, at least one, all `layers` can be compared in MAX_BYTES."""
    return max(1, MAX_BYTES // (8 * layers * width * width))


class LayerSimilarity:
    """Compares each of L layers with each of M, from sums over a stream of frames.

    In feature space the numerator of CKA is the squared Frobenius norm of the cross-covariance (D, D) of two layers:
    memory does not grow with the number of frames, but is L M D^2 doubles. Sums are of double precision, because means
    are subtracted from them in the end.
    """

    def __init__(self, rows: int, columns: int, width: int, device: torch.device) -> None:
        """Start with no frames of `rows` L and `columns` M layers of `width` D."""

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64, device=device)

        self._frames = 0
        self._sums = zeros(rows, width), zeros(columns, width)
        self._products = zeros(rows, width, width), zeros(columns, width, width)
        self._cross = zeros(rows * width, columns * width)

    def add(self, rows: Sequence[Tensor], columns: Sequence[Tensor]) -> None:
        """Take the same frames of L and of M layers, each (N, D)."""
        stacks = [torch.stack(list(layers)).double() for layers in (rows, columns)]
        self._frames += stacks[0].shape[1]
        for stack, sums, products in zip(stacks, self._sums, self._products, strict=True):
            sums += stack.sum(1)
            products += stack.transpose(1, 2) @ stack
        # One product for all pairs of layers.
        left, right = (stack.transpose(0, 1).flatten(1) for stack in stacks)
        self._cross.addmm_(left.T, right)

    def cka(self) -> np.ndarray:
        """Return the similarity of every pair, (L, M), in 0..1; NaN where a layer is constant."""
        norms = [
            _centred(products, sums[:, :, None] * sums[:, None, :], self._frames).flatten(1).norm(dim=1)
            for sums, products in zip(self._sums, self._products, strict=True)
        ]
        (rows, width), (columns, _) = (sums.shape for sums in self._sums)
        similar = torch.zeros(rows, columns, dtype=torch.float64)
        for row, products in enumerate(self._cross.view(rows, width, columns, width)):  # one at a time: it is large
            outer = self._sums[0][row][:, None, None] * self._sums[1]
            similar[row] = _centred(products, outer, self._frames).square().sum((0, 2)).cpu()
        return (similar / torch.outer(*norms).cpu()).numpy()


def _centred(products: Tensor, outer: Tensor, frames: int) -> Tensor:
    """Return sums of products of centred values, from those of the values and the outer product of their sums."""
    return products - outer / frames
