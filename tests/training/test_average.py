"""`distilmos average`: one model of several."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from distilmos.cli import main
from distilmos.data.audio import read_audio
from distilmos.model.package import load_model_dir
from distilmos.training.ratedset import read_rated_set

QUICK = ("max_steps=2", "warmup_steps=0", "eval_every=2", "num_workers=0", "encoder_lr=0.01")
STATISTICS = ("head=statistics", "normalize_level=true")


def average(corpus, out: Path, *models: Path | str, status: int = 0) -> dict[str, torch.Tensor]:
    arguments = ["average", *map(str, models), "--train", str(corpus.raw("train")), "--out", str(out)]
    assert main([*arguments, "--device", "cpu"]) == status
    return load_file(out / "model.safetensors") if status == 0 else {}


@pytest.fixture(scope="module")
def runs(corpus, tmp_path_factory) -> dict[str, Path]:
    """Final models of runs: two with the published head, two with that of statistics."""
    out = tmp_path_factory.mktemp("runs")
    for head, settings in {"decoder": (), "statistics": STATISTICS}.items():
        for seed in "12":
            assert main(corpus.arguments(out / (head + seed), *QUICK, *settings, f"seed={seed}")) == 0
    return {path.name: path / "final" for path in out.iterdir()}


def test_each_weight_is_the_mean(runs, corpus, tmp_path) -> None:
    first, second = (load_file(runs[f"decoder{seed}"] / "model.safetensors") for seed in "12")
    found = average(corpus, tmp_path / "mean", runs["decoder1"], runs["decoder2"])
    assert found.keys() == first.keys()
    for name, tensor in found.items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(tensor, (first[name] + second[name]) / 2)
    # A batch norm has its own statistics, not the mean of two.
    name = next(name for name in found if name.endswith("running_var"))
    assert not torch.allclose(found[name], (first[name] + second[name]) / 2, rtol=1e-3)
    thrice = average(corpus, tmp_path / "thrice", runs["decoder1"], runs["decoder1"], runs["decoder2"])
    torch.testing.assert_close(thrice["linear.weight"], (2 * first["linear.weight"] + second["linear.weight"]) / 3)
    assert yaml.safe_load((tmp_path / "mean" / "config.yaml").read_text())["about"] == {
        "average": ["decoder1", "decoder2"]
    }


def test_the_mean_of_a_model_with_itself_has_its_scores(runs, corpus, tmp_path) -> None:
    average(corpus, tmp_path / "mean", runs["statistics1"], runs["statistics1"])
    assert scores(tmp_path / "mean", corpus) == pytest.approx(scores(runs["statistics1"], corpus), abs=1e-4)


def test_weights_of_half_the_size(runs, corpus, tmp_path) -> None:
    """They take the place of another model, whose card does not fit them."""
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "README.md").write_text("# another")
    average(corpus, tmp_path / "half", runs["statistics1"], runs["statistics1"], "--half")
    sizes = [(path / "model.safetensors").stat().st_size for path in (tmp_path / "half", runs["statistics1"])]
    assert sizes[0] < 0.6 * sizes[1]
    assert scores(tmp_path / "half", corpus) == pytest.approx(scores(runs["statistics1"], corpus), abs=0.01)
    assert not (tmp_path / "half" / "README.md").exists()


def test_heads_with_other_standardisations_are_averaged_as_they_score(runs, corpus, tmp_path) -> None:
    """With one encoder, the mean of two linear maps of its statistics gives the mean of the scores."""
    for name in ("first", "second"):
        copied = dict(load_file(runs["statistics1"] / "model.safetensors"))
        if name == "second":
            copied["statistics.mean"] += 0.5
            copied["statistics.scale"] *= 3
            copied["linear.bias"] -= 1
        write_model(tmp_path / name, runs["statistics1"], copied)
    average(corpus, tmp_path / "mean", tmp_path / "first", tmp_path / "second")
    expected = np.mean([scores(tmp_path / name, corpus) for name in ("first", "second")], axis=0)
    assert scores(tmp_path / "mean", corpus) == pytest.approx(expected, abs=1e-3)


def test_models_of_another_scale(runs, corpus, tmp_path) -> None:
    """Its name is not that of a table: the ratings of utt2mos were on this scale."""
    for name in ("decoder1", "decoder2"):
        shutil.copytree(runs[name], tmp_path / name)
        config = yaml.safe_load((tmp_path / name / "config.yaml").read_text())
        config |= {"format": 2, "scales": [[0, 100, "MUSHRA"]]}
        (tmp_path / name / "config.yaml").write_text(yaml.safe_dump(config))
    average(corpus, tmp_path / "mean", tmp_path / "decoder1", tmp_path / "decoder2")
    assert [scale.name for scale in load_model_dir(tmp_path / "mean").scales] == ["MUSHRA"]


def test_it_knows_what_is_familiar(runs, corpus, tmp_path) -> None:
    average(corpus, tmp_path / "mean", runs["statistics1"], runs["statistics2"])
    out = tmp_path / "scores.csv"
    assert main(["predict", str(corpus.raw("train")), "--model", str(tmp_path / "mean"), "--out", str(out)]) == 0
    with out.open(newline="") as stream:
        novelty = [float(row["novelty"]) for row in csv.DictReader(stream)]
    assert np.mean(np.array(novelty) > 1) <= 0.05 and max(novelty) > 0.8


def test_token_predictors_of_other_tokens_are_not_mixed(runs, corpus, tmp_path) -> None:
    copied = load_file(runs["statistics2"] / "model.safetensors")
    write_model(tmp_path / "other", runs["statistics2"], copied, kmeans="0123456789abcdef")
    found = average(corpus, tmp_path / "mean", runs["statistics1"], tmp_path / "other")
    first = load_file(runs["statistics1"] / "model.safetensors")
    for name in (name for name in found if name.startswith("predictors.")):
        assert torch.equal(found[name], first[name])
    assert load_model_dir(tmp_path / "mean").kmeans == load_model_dir(runs["statistics1"]).kmeans


def test_another_network_is_refused(runs, corpus, tmp_path, capsys) -> None:
    capsys.readouterr()
    average(corpus, tmp_path / "mean", runs["decoder1"], runs["statistics1"], status=2)
    said = capsys.readouterr().err
    assert str(runs["decoder1"]) in said and str(runs["statistics1"]) in said and "head" in said
    assert not (tmp_path / "mean").exists()
    before = (runs["decoder1"] / "model.safetensors").read_bytes()
    average(corpus, runs["decoder1"], runs["decoder1"], runs["decoder2"], status=2)
    assert (runs["decoder1"] / "model.safetensors").read_bytes() == before


def write_model(directory: Path, source: Path, weights: dict[str, torch.Tensor], **settings: object) -> None:
    directory.mkdir()
    config = yaml.safe_load((source / "config.yaml").read_text()) | settings
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    save_file(weights, directory / "model.safetensors")


def scores(directory: Path, corpus) -> list[float]:
    model, data, found = load_model_dir(directory), read_rated_set(corpus.raw("dev"), 30), []
    for location in data.locations:
        audio = torch.from_numpy(read_audio(*location))[None]
        with torch.inference_mode():
            found.append(model(audio, torch.tensor([audio.shape[1]])).mos.item())
    return found


def test_what_a_killed_process_left_is_removed(runs, corpus, tmp_path) -> None:
    (tmp_path / "mean").mkdir()
    (tmp_path / "mean" / ".model.safetensors.1.0123456789abcdef.tmp").write_bytes(b"half")
    average(corpus, tmp_path / "mean", runs["decoder1"], runs["decoder2"])
    assert {path.name for path in (tmp_path / "mean").iterdir()} == {"config.yaml", "model.safetensors"}
