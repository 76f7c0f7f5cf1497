"""`distilmos confidence`: signals of doubt against errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from distilmos.analysis.confidence import ENTROPY, EXPECTED, NOVELTY, doubts_of, judge
from distilmos.cli import main
from distilmos.data.datadir import Utterance, write_data_dir
from distilmos.data.dump import dump_audio, merge_shards
from distilmos.data.schema import MOS_SCALE, Scale
from distilmos.model.config import ModelConfig
from distilmos.model.networks import build_model
from distilmos.model.package import save_model_dir
from distilmos.ssl.config import WaveformConfig
from distilmos.training.ratedset import RatedSet, read_rated_set

SMALL = WaveformConfig(
    ((16, 10, 5), *[(16, 3, 2)] * 4, *[(16, 2, 2)] * 2), False, "group", 16, 32, 2, 2, 15, 4, False, False
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    rated = []
    for number in range(6):
        path = tmp_path / f"u{number}.wav"
        soundfile.write(path, 0.1 * random.standard_normal(4000 + 1000 * number), 16000)
        rated.append(Utterance(path.stem, path, f"system{number % 3}", 1 + number / 2))
    write_data_dir(tmp_path / "data", rated)
    dump_audio(tmp_path / "data", tmp_path / "raw" / "rated", 1, 1)
    merge_shards(tmp_path / "raw" / "rated", 1)
    return tmp_path / "raw" / "rated"


def network(scales: tuple[Scale, ...] = (MOS_SCALE,), **settings: object):
    torch.manual_seed(0)
    return build_model(ModelConfig(hidden_dim=16, **settings), SMALL, 8, scales=scales).eval()


def waves_of(rated: RatedSet, tmp_path: Path) -> list[torch.Tensor]:
    paths = [tmp_path / f"{name}.wav" for name in rated.utterances]
    return [torch.from_numpy(soundfile.read(path, dtype="float32")[0])[None] for path in paths]


def confidence(model, data: Path, tmp_path: Path) -> dict[str, object]:
    save_model_dir(tmp_path / "model", model)
    command = ["confidence", str(tmp_path / "model"), "--data", str(data), "--out", str(tmp_path / "out.json")]
    assert main(command) == 0
    (found,) = json.loads((tmp_path / "out.json").read_text())
    return found


def test_a_network_has_the_signals_of_its_parts(data, tmp_path, capsys):
    found = confidence(network(head="statistics", regression_loss="nll"), data, tmp_path)
    assert found["path"] == str(data) and found["utterances"] == 6
    assert set(found["signals"]) == {ENTROPY, EXPECTED, NOVELTY}
    said = capsys.readouterr().out
    assert all(name in said for name in (ENTROPY, EXPECTED, NOVELTY))


def test_the_error_of_all_utterances_is_that_of_the_scores(data, tmp_path):
    model = network()
    found = confidence(model, data, tmp_path)
    assert set(found["signals"]) == {ENTROPY}
    rated = read_rated_set(data, 30.0)
    waves = waves_of(rated, tmp_path)
    with torch.inference_mode():
        scores = [float(model(wave, torch.tensor([wave.shape[1]])).mos) for wave in waves]
    assert found["MAE"] == pytest.approx(np.abs(np.array(scores) - rated.mos).mean(), abs=1e-3)
    assert found["signals"][ENTROPY]["risk"]["1"] == pytest.approx(found["MAE"])


def test_errors_are_those_of_the_first_target(data, tmp_path):
    """Ratings of another quality in utt2mos are not what the model predicts."""
    before = confidence(network(scales=(Scale(0, 10, "fluency"),)), data, tmp_path)
    (data / "utt2fluency").write_text("".join(f"u{number} 9\n" for number in range(6)))
    (data / "scale").write_text("1 5 MOS\n0 10 fluency\n")
    after = confidence(network(scales=(Scale(0, 10, "fluency"),)), data, tmp_path)
    rated = read_rated_set(data, 30.0, targets=("fluency",))
    scores, _ = doubts_of(network(scales=(Scale(0, 10, "fluency"),)), rated, torch.device("cpu"))
    assert after["MAE"] == pytest.approx(np.abs(scores - 4.6).mean(), abs=1e-3)
    assert after["MAE"] != pytest.approx(before["MAE"], abs=1e-3)


def test_novelty_is_1_in_the_mean_of_the_data_that_standardised_the_features(data, tmp_path):
    model = network(model="sslmos", head="statistics")
    rated = read_rated_set(data, 30.0)
    waves = waves_of(rated, tmp_path)
    with torch.inference_mode():
        pooled = [model.statistics.pool(*model.encoder(wave, torch.tensor([wave.shape[1]]))) for wave in waves]
    features = torch.cat(pooled).numpy()
    model.statistics.standardise(model.linear, features)
    novelty = doubts_of(model, rated, torch.device("cpu"))[1][NOVELTY]
    assert novelty.mean() == pytest.approx(1, abs=0.02)


def test_a_network_without_a_signal_is_refused(data, tmp_path, capsys):
    save_model_dir(tmp_path / "model", network(model="sslmos"))
    assert main(["confidence", str(tmp_path / "model"), "--data", str(data), "--out", str(tmp_path / "out.json")]) == 2
    assert f"{tmp_path / 'model'}: " in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


def test_a_signal_that_ranks_the_errors():
    errors = np.linspace(0.1, 0.8, 8)
    judged = judge(errors**2, errors, [f"s{number % 4}" for number in range(8)])
    assert judged["SRCC"]["value"] == pytest.approx(1)
    assert judged["SRCC"]["low"] == pytest.approx(1)
    assert np.isnan(judge(np.ones(8), errors, ["a", "b"] * 4)["SRCC"]["value"])
    assert judge(np.ones(1), np.array([0.5]), ["a"])["risk"] == {"0.25": 0.5, "0.5": 0.5, "0.75": 0.5, "1": 0.5}
    assert judged["risk"] == pytest.approx({"0.25": 0.15, "0.5": 0.25, "0.75": 0.35, "1": 0.45})
    assert judge(-errors, errors, ["a", "b"] * 4)["SRCC"]["value"] == pytest.approx(-1)
