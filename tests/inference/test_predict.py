"""Prediction of recordings with a model directory, and the export of one."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import soundfile
import torch

from distilmos.cli import main
from distilmos.data.datadir import Utterance, write_data_dir
from distilmos.data.tables import read_floats
from distilmos.model.config import ModelConfig
from distilmos.model.networks import build_model
from distilmos.model.package import save_model_dir
from distilmos.ssl.load import load_ssl


@pytest.fixture
def model_dir(tmp_path):
    torch.manual_seed(0)
    model = build_model(ModelConfig(hidden_dim=32), load_ssl("hubert_tiny"), 10)
    model.init_output(3.0)
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


def test_data_directory_scp_and_files_give_the_same_scores(tmp_path, model_dir, wavs):
    write_data_dir(tmp_path / "data", [Utterance(path.stem, path, "s") for path in wavs])
    inputs = {"data": [tmp_path / "data"], "scp": [tmp_path / "data" / "wav.scp"], "files": wavs}
    found = {}
    for name, paths in inputs.items():
        out = tmp_path / f"{name}.utt2mos"
        assert main(["predict", *map(str, paths), "--model", str(model_dir), "--out", str(out)]) == 0
        found[name] = read_floats(out)
    assert list(found["data"]) == ["u0", "u1", "u2"]
    assert found["scp"] == found["data"]
    assert list(found["files"]) == [str(path) for path in wavs]
    assert list(found["files"].values()) == pytest.approx(list(found["data"].values()), abs=1e-4)


def test_scores_do_not_depend_on_the_batch_budget(tmp_path, model_dir, wavs):
    scores = []
    for budget in ("0.5", "100"):
        out = tmp_path / "utt2mos"
        main(["predict", *map(str, wavs), "--model", str(model_dir), "--out", str(out), "--batch-seconds", budget])
        scores.append(read_floats(out))
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)


def test_bad_inputs_are_named(tmp_path, model_dir, wavs, capsys):
    (tmp_path / "x.wav").write_text("not audio")
    for inputs, message in {
        (tmp_path / "none.wav",): "none.wav: no such file",
        (tmp_path / "x.wav",): "x.wav: not readable as audio",
        (wavs[0], wavs[0]): "is in another input too",
    }.items():
        assert main(["predict", *map(str, inputs), "--model", str(model_dir), "--out", str(tmp_path / "o")]) == 2
        assert message in capsys.readouterr().err
    assert main(["predict", str(wavs[0]), "--model", str(tmp_path)]) == 2
    assert "config.yaml: no such file" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_headers_and_names_are_checked_before_anything_is_computed(tmp_path, model_dir, wavs, capsys):
    (tmp_path / "x.wav").write_text("not audio")
    soundfile.write(tmp_path / "short.wav", np.zeros(300), 16000)
    odd = wavs[1].rename(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav"))
    inputs = map(str, [tmp_path / "x.wav", wavs[0], tmp_path / "short.wav", odd, tmp_path / "none.wav", "a b.wav"])
    assert main(["predict", *inputs, "--model", str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err
    for needle in ("5 faults", "x.wav: not readable", "short.wav: 18.8 ms", "caf\\udce9.wav", "none.wav", "'a b.wav'"):
        assert needle in error
    assert "config.yaml" not in error


def test_all_recordings_that_cannot_be_decoded_are_named_and_nothing_is_written(tmp_path, model_dir, wavs, capsys):
    for path in (wavs[0], wavs[2]):
        soundfile.write(path, np.full(16000, np.nan), 16000, subtype="FLOAT")
    write_data_dir(tmp_path / "data", [Utterance(path.stem, path, "s") for path in wavs])
    out = tmp_path / "utt2mos"
    assert main(["predict", str(tmp_path / "data"), "--model", str(model_dir), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert "2 faults" in error
    for utterance in ("u0", "u2"):
        assert f"{utterance}: {tmp_path}/{utterance}.wav: holds samples that are not finite" in error
    assert not out.exists()


def test_without_out_the_order_is_that_of_the_inputs_with_4_decimals(tmp_path, model_dir, wavs, capsys):
    chosen = [str(wavs[1]), str(wavs[0])]
    assert main(["predict", *chosen, "--model", str(model_dir)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [name for name, _ in lines] == chosen
    assert all(len(mos.partition(".")[2]) == 4 for _, mos in lines)


def test_export_is_loadable_and_its_card_tells_data_scores_and_notes(tmp_path, model_dir, wavs):
    exp = model_dir.parent
    start = {"event": "start", "seed": 7, "commit": "abc123", "data": {"train": {"utterances": 12, "seconds": 3600.0}}}
    (exp / "log.jsonl").write_text(json.dumps(start) + "\n")
    scores = {name: {"value": value} for name, value in {"MSE": 0.25, "LCC": 0.5, "SRCC": None, "KTAU": 0.1}.items()}
    (exp / "results" / "test").mkdir(parents=True)
    metrics = {"utterance": scores, "notes": "The ratings are simulated."}
    (exp / "results" / "test" / "metrics.json").write_text(json.dumps(metrics))
    assert main(["export", str(exp), "--out", str(exp / "model")]) == 0
    card = (exp / "model" / "README.md").read_text()
    for text in ("abc123", "seed 7", "12 utterances, 1.00 hours", "| 0.250 | 0.500 | n/a | 0.100 |", "simulated"):
        assert text in card
    assert main(["predict", str(wavs[0]), "--model", str(exp / "model")]) == 0


def test_export_before_training_has_ended_is_refused(tmp_path, capsys):
    assert main(["export", str(tmp_path), "--out", str(tmp_path / "model")]) == 2
    assert "the training has not finished" in capsys.readouterr().err
