"""Probes that find token ids in frames."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from distilmos.analysis import tokens
from distilmos.analysis.tokens import LayerTokens, TokenProbe
from distilmos.tokens.labels import nearest

CLUSTERS, WIDTH = 6, 5


def clouds(seed: int, count: int = 1200) -> tuple[torch.Tensor, torch.Tensor]:
    """Return centroids and frames around them, of unequal frequency and with correlated dimensions."""
    random = np.random.default_rng(seed)
    centroids = np.random.default_rng(0).normal(size=(CLUSTERS, WIDTH)) * 2 + 10
    members = random.choice(CLUSTERS, size=count, p=np.arange(1, CLUSTERS + 1) / 21)
    frames = centroids[members] + random.normal(size=(count, WIDTH)) @ np.diag(np.linspace(0.5, 1.5, WIDTH))
    return torch.from_numpy(centroids).float(), torch.from_numpy(frames).float()


def test_probe_is_linear_discriminant_analysis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "RIDGE", 0.0)
    centroids, frames = clouds(1)
    ids = nearest(frames, centroids)
    probe = TokenProbe(CLUSTERS + 1, WIDTH, torch.device("cpu"))  # the last cluster has no frames
    for start in range(0, len(frames), 100):
        probe.add(frames[start : start + 100].double(), ids[start : start + 100])
    weights, biases = probe.discriminant()
    other = clouds(2)[1].double()
    scores = (other @ weights + biases)[:, :CLUSTERS].softmax(1).numpy()
    model = LinearDiscriminantAnalysis(solver="lsqr").fit(frames.numpy().astype(float), ids.numpy())
    assert scores == pytest.approx(model.predict_proba(other.numpy()), abs=1e-6)
    assert biases[CLUSTERS] == -torch.inf


def measured(after: torch.Tensor, centroids: torch.Tensor, frames: torch.Tensor) -> tuple[LayerTokens, list[dict]]:
    layer = LayerTokens(centroids, 2)
    held_out = torch.arange(len(frames)) % 5 == 0
    layer.learn([frames, after], held_out)
    layer.test([frames[held_out], after[held_out]], layer.discriminants())
    return layer, layer.result()


def test_an_unchanged_layer_has_forgotten_nothing() -> None:
    centroids, frames = clouds(1)
    layer, (before, after) = measured(frames, centroids, frames)
    assert before == after
    assert before["agreement"] == 1 and before["probe"] > 0.85
    ids = nearest(frames, centroids)
    assert layer.chance() == pytest.approx(ids.bincount().max().item() / len(ids))
    distances = (frames - centroids[ids]).square().sum(1)
    assert before["inertia_per_frame"] == pytest.approx(float(distances.mean()), rel=1e-5)
    assert before["explained_variance"] == pytest.approx(
        1 - float(distances.mean()) / float(frames.var(0, correction=0).sum()), rel=1e-4
    )


def test_a_rotated_layer_keeps_its_tokens_for_the_probe_but_not_for_the_centroids() -> None:
    centroids, frames = clouds(1)
    rotation = torch.from_numpy(np.linalg.qr(np.random.default_rng(4).normal(size=(WIDTH, WIDTH)))[0]).float()
    _, (before, after) = measured(frames @ rotation, centroids, frames)
    assert after["probe"] == pytest.approx(before["probe"], abs=0.005)
    assert after["agreement"] < 0.6
    assert after["explained_variance"] < before["explained_variance"]


def test_the_probe_finds_no_tokens_in_noise() -> None:
    centroids, frames = clouds(1)
    layer, (_, after) = measured(
        torch.randn(frames.shape, generator=torch.Generator().manual_seed(1)), centroids, frames
    )
    assert after["probe"] == pytest.approx(layer.chance(), abs=0.06)
