"""A model with random heads, and recordings of different rates and channel counts."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch

from distilmos.model.config import ModelConfig
from distilmos.model.networks import build_model
from distilmos.model.package import save_model_dir
from distilmos.ssl.load import load_ssl


@pytest.fixture
def model_dir(tmp_path):
    torch.manual_seed(0)
    model = build_model(ModelConfig(hidden_dim=32), load_ssl("hubert_tiny"), 10)
    model.init_output([3.0])
    save_model_dir(tmp_path / "exp" / "final", model)
    return tmp_path / "exp" / "final"


@pytest.fixture
def wavs(tmp_path):
    generator = np.random.default_rng(0)
    paths = []
    for index, (rate, channels) in enumerate([(16000, 1), (44100, 2), (8000, 1)]):
        paths.append(tmp_path / f"u{index}.wav")
        soundfile.write(paths[-1], 0.1 * generator.standard_normal((rate * (index + 1), channels)), rate)
    return paths
