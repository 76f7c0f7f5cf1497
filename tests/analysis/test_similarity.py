"""Linear CKA against its definition by Gram matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distilmos.analysis import similarity
from distilmos.analysis.similarity import LayerSimilarity, columns_at_once

FRAMES, WIDTH, ROWS, COLUMNS = 300, 7, 3, 2


def layers(seed: int, count: int) -> list[torch.Tensor]:
    """Return layers that share some content and, like those of transformers, are far from zero mean."""
    random = np.random.default_rng(seed)
    shared = np.random.default_rng(99).normal(size=(FRAMES, 3))
    return [
        torch.from_numpy(
            (shared @ random.normal(size=(3, WIDTH)) + random.normal(size=(FRAMES, WIDTH)) + 5).astype(np.float32)
        )
        for _ in range(count)
    ]


def streamed(rows: list[torch.Tensor], columns: list[torch.Tensor], block: int = 64) -> np.ndarray:
    measure = LayerSimilarity(len(rows), len(columns), WIDTH, torch.device("cpu"))
    for start in range(0, FRAMES, block):
        part = slice(start, start + block)
        measure.add([layer[part] for layer in rows], [layer[part] for layer in columns])
    return measure.cka()


def gram_cka(first: torch.Tensor, other: torch.Tensor) -> float:
    """Return HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) of the Gram matrices of the frames, (N, N)."""
    centring = np.eye(FRAMES) - np.full((FRAMES, FRAMES), 1 / FRAMES)
    grams = [centring @ (x.numpy().astype(float) @ x.numpy().astype(float).T) @ centring for x in (first, other)]

    def hsic(left: np.ndarray, right: np.ndarray) -> float:
        return float(np.trace(left @ right)) / (FRAMES - 1) ** 2

    return hsic(*grams) / np.sqrt(hsic(grams[0], grams[0]) * hsic(grams[1], grams[1]))


def test_cka_is_that_of_the_gram_matrices() -> None:
    rows, columns = layers(1, ROWS), layers(2, COLUMNS)
    wanted = [[gram_cka(row, column) for column in columns] for row in rows]
    assert streamed(rows, columns) == pytest.approx(np.array(wanted), rel=1e-9)
    assert np.min(wanted) > 0.05 and np.max(wanted) < 0.95


def test_cka_ignores_rotation_and_scale_but_not_a_change_of_shape() -> None:
    rows = layers(1, ROWS)
    rotation = torch.from_numpy(np.linalg.qr(np.random.default_rng(4).normal(size=(WIDTH, WIDTH)))[0]).float()
    same = streamed(rows, [3 * layer @ rotation - 2 for layer in rows])
    assert same == pytest.approx(streamed(rows, rows), abs=1e-6)
    assert np.diag(same) == pytest.approx(1)
    stretched = [layer * torch.linspace(0.1, 3, WIDTH) for layer in rows]
    assert np.diag(streamed(rows, stretched)).max() < 0.97


def test_cka_does_not_depend_on_the_blocks_of_frames() -> None:
    rows, columns = layers(1, ROWS), layers(2, COLUMNS)
    assert streamed(rows, columns, 1) == pytest.approx(streamed(rows, columns, FRAMES), rel=1e-9)


def test_cka_with_a_constant_layer_is_nan() -> None:
    rows = layers(1, ROWS)
    found = streamed(rows, [torch.zeros(FRAMES, WIDTH), rows[0]])
    assert np.isnan(found[:, 0]).all() and np.isfinite(found[:, 1]).all()


def test_layers_that_are_compared_at_once_fit_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert columns_at_once(12, 768) == 37
    assert columns_at_once(24, 1024) == 10
    monkeypatch.setattr(similarity, "MAX_BYTES", 1)
    assert columns_at_once(24, 1024) == 1
