"""The metric for VERSA, against a stand-in of its interface."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

import distilmos
from distilmos.data.schema import Scale
from distilmos.model.config import ModelConfig
from distilmos.model.networks import build_model
from distilmos.model.package import save_model_dir
from distilmos.ssl.load import load_ssl

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.syspath_prepend(TESTS / "helpers" / "standins")
    from versa.definition import MetricRegistry

    spec = importlib.util.spec_from_file_location(
        "versa_metric", TESTS.parent / "tools" / "versa" / "distilmos_metric.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    registry = MetricRegistry()
    module.register_distilmos_metric(registry)
    return registry


def noise(rate: int) -> np.ndarray:
    return 0.1 * np.random.default_rng(rate).standard_normal(rate).astype(np.float32)


def test_it_gives_the_score_and_the_model(registry):
    metric = registry.get_metric("distil_mos")({})
    predictor = distilmos.load(device="cpu")
    for metadata, rate in ((None, 16000), ({"sample_rate": 44100, "text": "x"}, 44100)):
        found = metric.compute(noise(rate), metadata=metadata)
        assert found == {"distilmos": predictor.predict(noise(rate), rate).mos, "distilmos_model": predictor.model}
    about = metric.get_metadata()
    assert (about.name, about.requires_reference, about.category.value) == ("distilmos", False, "independent")


def test_a_model_with_several_targets(registry, tmp_path):
    torch.manual_seed(0)
    scales = (Scale(1.0, 5.0, "MOS"), Scale(1.0, 5.0, "sig"))
    save_model_dir(
        tmp_path / "m", build_model(ModelConfig(model="sslmos"), load_ssl("hubert_tiny"), None, scales=scales)
    )
    found = registry.get_metric("distilmos")({"model": str(tmp_path / "m")}).compute(noise(16000))
    scores = distilmos.load(tmp_path / "m", device="cpu").predict(noise(16000), 16000).scores
    assert {key: found[key] for key in ("distilmos", "distilmos_sig")} == pytest.approx(
        {"distilmos": scores["MOS"], "distilmos_sig": scores["sig"]}, abs=1e-6
    )


@pytest.mark.parametrize("given", [None, np.zeros(10, np.float32), np.zeros((2, 16000), np.float32)])
def test_what_it_cannot_score(registry, given):
    with pytest.raises(ValueError, match=r"^distilmos"):
        registry.get_metric("distilmos")({}).compute(given)
