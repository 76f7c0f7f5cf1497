"""Forgetting, frame by frame: what can still be read of the token ids of the frozen encoder, and how k-means fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from distilmos.tokens.labels import nearest

# Times the mean variance, this is added to the covariance (J. H. Friedman, "Regularized discriminant analysis", JASA
# 1989), most of which is noise where a wide layer has a hundred frames of each id. Of 0.001 to 10, with 3,000 and
# 10,000 frames of hubert_tiny (100 ids), 1 reads the fine-tuned last layer within 0.01 of the best. Frozen layers are
# read ever better with more of it, which turns the reader into k-means itself.
RIDGE = 1.0


class TokenReader:
    """Linear discriminant analysis of frames into token ids, learned from sums over a stream.

    Classes have means of their own and one covariance; the best class is linear in the frame, as for k-means itself.
    Closed form: nothing to be tuned, and the same result each time.
    """

    def __init__(self, clusters: int, width: int, device: torch.device) -> None:
        """Start with no frames of `width` D and token ids 0..`clusters`-1."""
        self._counts = torch.zeros(clusters, dtype=torch.float64, device=device)
        self._sums = torch.zeros(clusters, width, dtype=torch.float64, device=device)
        self._products = torch.zeros(width, width, dtype=torch.float64, device=device)

    def add(self, frames: Tensor, tokens: Tensor) -> None:
        """Take frames, double (N, D), and their token ids (N,)."""
        # A product, because index_add_ is not deterministic on a GPU.
        members = torch.nn.functional.one_hot(tokens, len(self._counts)).to(frames.dtype)
        self._counts += members.sum(0)
        self._sums += members.T @ frames
        self._products += frames.T @ frames

    def discriminant(self) -> tuple[Tensor, Tensor]:
        """Return weights (D, K) and biases (K,), with which the best class has the largest value.

        Log posterior but for a constant: x S^-1 m_k - m_k S^-1 m_k / 2 + log(N_k / N), with the class means m_k and
        the covariance S within classes. A class without frames has the bias log 0.
        """
        total = self._counts.sum()
        means = self._sums / self._counts.clamp(min=1)[:, None]
        within = (self._products - means.T @ self._sums) / total
        within.diagonal().add_(RIDGE * within.diagonal().mean().clamp(min=torch.finfo(torch.float32).tiny))
        weights = torch.linalg.solve(within, means.T)
        biases = torch.log(self._counts / total) - (means * weights.T).sum(1) / 2
        return weights, biases


class LayerTokens:
    """One layer before fine-tuning and, where there is one, after it, against the centroids of the former."""

    def __init__(self, centroids: Tensor, encoders: int) -> None:
        """Start with no frames for float32 `centroids` (K, D), with one encoder or two."""
        clusters, width = centroids.shape
        self._centroids = centroids
        self._readers = [TokenReader(clusters, width, centroids.device) for _ in range(encoders)]
        self._counts = torch.zeros(clusters, dtype=torch.long)
        self._inertia = [0.0] * encoders
        self._squares = [0.0] * encoders
        self._sums = [torch.zeros(width, dtype=torch.float64, device=centroids.device) for _ in range(encoders)]
        self._agreeing = [0] * encoders
        self._tested = 0
        self._read = [0] * encoders

    def learn(self, frames: Sequence[Tensor], held_out: Tensor) -> None:
        """Take frames of this layer in each encoder, (N, D), of which only those not `held_out` (N,) teach a reader."""
        tokens = nearest(frames[0], self._centroids)
        self._counts += torch.bincount(tokens, minlength=len(self._counts)).cpu()
        for place, own in enumerate(frames):
            found = nearest(own, self._centroids)
            self._agreeing[place] += int((found == tokens).sum())
            exact = own.double()
            self._inertia[place] += float((exact - self._centroids[found]).square().sum())
            self._squares[place] += float(exact.square().sum())
            self._sums[place] += exact.sum(0)
            self._readers[place].add(exact[~held_out], tokens[~held_out])

    def test(self, frames: Sequence[Tensor], discriminants: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Let the readers, as `discriminants` gave them, read frames of held-out utterances, (N, D) of each encoder."""
        tokens = nearest(frames[0], self._centroids)
        self._tested += len(tokens)
        for place, (own, (weights, biases)) in enumerate(zip(frames, discriminants, strict=True)):
            self._read[place] += int(((own.double() @ weights + biases).argmax(1) == tokens).sum())

    def discriminants(self) -> list[tuple[Tensor, Tensor]]:
        """Return what each encoder's reader has learned."""
        return [reader.discriminant() for reader in self._readers]

    def result(self) -> list[dict[str, Any]]:
        """Return what was found in each encoder.

        Returns:
            agreement: share of frames whose nearest centroid is still the one that it was before; probe: share of
            held-out frames whose token id before a linear reader of this layer finds; inertia_per_frame and
            explained_variance of the centroids, as in stage 3's table.
        """
        count = int(self._counts.sum())
        rows = []
        for place in range(len(self._readers)):
            variance = self._squares[place] - float(self._sums[place].square().sum()) / count
            rows.append(
                {
                    "agreement": self._agreeing[place] / count,
                    "probe": self._read[place] / self._tested,
                    "inertia_per_frame": self._inertia[place] / count,
                    "explained_variance": 1 - self._inertia[place] / variance if variance > 0 else None,
                }
            )
        return rows

    def chance(self) -> float:
        """Return the share of the most frequent token id, which a reader that hears nothing would get right."""
        return int(self._counts.max()) / int(self._counts.sum())
