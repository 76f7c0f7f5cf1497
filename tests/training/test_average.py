"""`distilmos average`: several models become one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from distilmos.cli import main
from distilmos.model.package import load_model_dir


@pytest.fixture(scope="module")
def further(corpus, tmp_path_factory) -> list[str]:
    """Three models, trained further from one with other seeds."""
    top = tmp_path_factory.mktemp("further")
    assert main(corpus.arguments(top / "first", "max_steps=12")) == 0
    settings = {"init_model": str(top / "first" / "final"), "max_steps": 4, "warmup_steps": 0, "eval_every": 4}
    for seed in (1, 2, 3):
        assert main(corpus.arguments(top / f"seed{seed}", **settings, seed=seed)) == 0
    return [str(top / f"seed{seed}" / "final") for seed in (1, 2, 3)]


def average(corpus, models: list[str], out: Path) -> int:
    return main(["average", *models, "--data", str(corpus.raw("train")), "--out", str(out), "--device", "cpu"])


def test_weights_are_the_mean_and_batch_norm_fits_them(corpus, further, tmp_path):
    assert average(corpus, further, tmp_path / "mean") == 0
    states = [load_model_dir(model).state_dict() for model in further]
    mean = load_model_dir(tmp_path / "mean").state_dict()
    statistics = [name for name in mean if "running_" in name]
    for name in mean.keys() - set(statistics):
        if mean[name].is_floating_point():
            expected = torch.stack([state[name] for state in states]).mean(0)
            torch.testing.assert_close(mean[name], expected, atol=1e-6, rtol=1e-5)
    assert statistics
    assert any(not torch.equal(mean[n], torch.stack([s[n] for s in states]).mean(0)) for n in statistics)
    # They are those of the recordings: of one model alone it makes nothing else than training did.
    assert average(corpus, further[:1], tmp_path / "one") == 0
    one = load_model_dir(tmp_path / "one").state_dict()
    for name in statistics:
        torch.testing.assert_close(one[name], states[0][name], atol=0.05, rtol=0.2)
    assert "averaged_models" in (tmp_path / "mean" / "config.yaml").read_text()


def test_models_of_another_kind_have_no_mean(corpus, further, tmp_path, capsys):
    arguments = corpus.arguments(tmp_path / "other", "hidden_dim=24", "max_steps=2", "warmup_steps=0")
    assert main(arguments) == 0
    capsys.readouterr()
    assert average(corpus, [*further, str(tmp_path / "other" / "final")], tmp_path / "mean") == 2
    assert "hidden_dim is 24" in capsys.readouterr().err
    assert not (tmp_path / "mean").exists()
