"""`head: statistics` starts from a ridge regression on the frozen encoder."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from distilmos.cli import main
from distilmos.data.audio import read_audio
from distilmos.data.tables import read_floats, write_table
from distilmos.model.networks import EncoderNetwork
from distilmos.model.package import load_model_dir
from distilmos.ridge import deal_folds, fit_ridge
from distilmos.training.ratedset import read_rated_set

FROZEN = ("head=statistics", "encoder_lr=0", "head_lr=1e-12", "max_steps=1", "warmup_steps=0", "eval_every=1")


def pooled(model: EncoderNetwork, data) -> np.ndarray:
    """Return mean and deviation over time of each layer, in float64, (N, P)."""
    rows = []
    for location in data.locations:
        audio = torch.from_numpy(read_audio(*location))[None]
        with torch.inference_mode():
            layers, _ = model.encoder(audio, torch.tensor([audio.shape[1]]))
        states = [layer[0].double().numpy() for layer in layers]
        rows.append(np.concatenate([part for x in states for part in (x.mean(0), x.std(0))]))
    return np.stack(rows)


@pytest.mark.parametrize("settings", [("model=distilmos",), ("model=sslmos", "token_weight=0")])
def test_it_starts_from_the_ridge_regression_on_the_frozen_encoder(settings, corpus, tmp_path) -> None:
    assert main(corpus.arguments(tmp_path / "exp", *FROZEN, *settings)) == 0
    model = load_model_dir(tmp_path / "exp" / "final")
    assert isinstance(model, EncoderNetwork)
    train, dev = (read_rated_set(corpus.raw(name), 9.0) for name in ("train", "dev"))
    folds = deal_folds(train.systems, [""] * len(train.systems), 1)
    ridge = fit_ridge(pooled(model, train), np.array(train.mos)[:, None], folds)
    expected = ridge.predict(pooled(model, dev))[:, 0]
    out = tmp_path / "utt2mos"
    assert main(["predict", str(corpus.raw("dev")), "--model", str(tmp_path / "exp" / "final"), "--out", str(out)]) == 0
    np.testing.assert_allclose(list(read_floats(out).values()), expected, atol=2e-3)


def test_missing_labels_of_a_target_are_left_out_of_its_fit(corpus, tmp_path) -> None:
    """A second target with half of the labels of the first starts from the fit to these labels."""
    paths = {}
    for name in ("train", "dev"):
        paths[name] = tmp_path / name
        assert main(["subset-data", str(corpus.raw(name)), str(paths[name]), "--count", "8"]) == 0
        mos = read_floats(paths[name] / "utt2mos")
        write_table(paths[name] / "utt2whole", mos)
        write_table(paths[name] / "utt2half", dict(list(mos.items())[::2]))
    arguments = corpus.arguments(tmp_path / "exp", *FROZEN, "model=sslmos", "token_weight=0", "targets=[whole, half]")
    for name, path in paths.items():
        arguments[arguments.index(f"--{name}") + 1] = str(path)
    assert main([*arguments, "--set", "best_metric=utterance_MSE"]) == 0
    model = load_model_dir(tmp_path / "exp" / "final")
    assert isinstance(model, EncoderNetwork)
    train = read_rated_set(paths["train"], 9.0)
    folds = deal_folds(train.systems, [""] * len(train.systems), 1)
    features = pooled(model, train)
    half = fit_ridge(features[::2], np.array(train.mos)[::2, None], folds[::2]).predict(features)[:, 0]
    out = tmp_path / "utt2mos"
    assert main(["predict", str(paths["train"]), "--model", str(tmp_path / "exp" / "final"), "--out", str(out)]) == 0
    np.testing.assert_allclose(list(read_floats(tmp_path / "utt2half").values()), half, atol=5e-3)


@pytest.mark.parametrize("head", ["decoder", "statistics"])
def test_a_network_learns_its_expected_error(head, corpus, tmp_path) -> None:
    settings = ["model=sslmos", "token_weight=0", "encoder_lr=0", f"head={head}", "regression_loss=nll", "head_lr=0.03"]
    steps = ["max_steps=40", "warmup_steps=0", "eval_every=40", "n_best=1"]
    assert main(corpus.arguments(tmp_path / "exp", *settings, *steps)) == 0
    model = load_model_dir(tmp_path / "exp" / "final")
    dev = read_rated_set(corpus.raw("dev"), 9.0)
    errors, expected = [], []
    for location, mos in zip(dev.locations, dev.mos, strict=True):
        audio = torch.from_numpy(read_audio(*location))[None]
        with torch.inference_mode():
            prediction = model(audio, torch.tensor([audio.shape[1]]))
        errors.append(abs(prediction.mos.item() - mos))
        expected.append(prediction.log_errors.exp().item())
    assert prediction.scores.shape == prediction.log_errors.shape == (1, 1)
    assert np.std(expected) > 0.02  # it started from 1 for all
    end = json.loads((tmp_path / "exp" / "log.jsonl").read_text().splitlines()[-1])
    likelihood = np.mean([e / b + np.log(2 * b) for e, b in zip(errors, expected, strict=True)])
    assert end["dev"]["regression"] == pytest.approx(likelihood, abs=1e-3)


def test_recordings_unlike_the_training_set_are_told_apart(corpus, tmp_path, capsys) -> None:
    """Also after another run that starts from the model; speech as in the first training set is then still familiar."""
    settings = ["head=statistics", "model=sslmos", "token_weight=0", "max_steps=4", "warmup_steps=0", "eval_every=4"]
    assert main(corpus.arguments(tmp_path / "first", *settings)) == 0
    few = tmp_path / "few"
    assert main(["subset-data", str(corpus.raw("train")), str(few), "--count", "4"]) == 0
    arguments = corpus.arguments(tmp_path / "second", *settings, f"init_model={tmp_path / 'first' / 'final'}")
    arguments[arguments.index("--train") + 1] = str(few)
    assert main(arguments) == 0
    tone = tmp_path / "tone.wav"
    soundfile.write(tone, 0.1 * np.sin(np.arange(64000) / 5), 16000)
    for run in ("first", "second"):
        capsys.readouterr()
        out, model = tmp_path / f"{run}.csv", tmp_path / run / "final"
        assert main(["predict", str(corpus.raw("train")), str(tone), "--model", str(model), "--out", str(out)]) == 0
        with out.open(newline="") as stream:
            *speech, unlike = [float(row["novelty"]) for row in csv.DictReader(stream)]
        assert np.mean(np.array(speech) > 1) <= 0.05
        assert unlike > 1.5
        assert str(tone) in capsys.readouterr().err


def test_a_training_set_of_one_recording_leaves_a_model_that_loads(corpus, tmp_path) -> None:
    settings = ["head=statistics", "model=sslmos", "token_weight=0", "max_steps=1", "warmup_steps=0", "eval_every=1"]
    assert main(["subset-data", str(corpus.raw("train")), str(tmp_path / "one"), "--count", "1"]) == 0
    arguments = corpus.arguments(tmp_path / "exp", *settings)
    arguments[arguments.index("--train") + 1] = str(tmp_path / "one")
    assert main(arguments) == 0
    assert load_model_dir(tmp_path / "exp" / "final").novelty_limit is None


def test_a_spectral_network_expects_no_error(corpus, tmp_path, capsys) -> None:
    assert main(corpus.arguments(tmp_path / "exp", "model=spectral", "spectral_dim=8", "regression_loss=nll")) == 2
    assert "regression_loss" in capsys.readouterr().err


def test_it_needs_the_frames_of_the_encoder(corpus, tmp_path, capsys) -> None:
    for settings, named in ((("strides=[1, 1, 2]", "model=sslmos"), "strides"), (("model=distilmos",), "sslmos")):
        assert main(corpus.arguments(tmp_path / "exp", "head=statistics", "token_weight=0", *settings)) == 2
        assert re.search(rf"head.*{named}", capsys.readouterr().err)


def test_the_head_of_the_initial_model_is_kept(corpus, tmp_path, capsys) -> None:
    settings = ["head=statistics", "model=sslmos", "token_weight=0", "max_steps=1", "warmup_steps=0", "eval_every=1"]
    still = ["encoder_lr=0", "head_lr=1e-9", "head_fit=false"]
    assert main(corpus.arguments(tmp_path / "alone", *settings, *still)) == 2
    assert "--set head_fit=false: head_fit: " in capsys.readouterr().err
    weights = {}
    for run, more in {"first": [], "second": [*still, f"init_model={tmp_path / 'first' / 'final'}"]}.items():
        assert main(corpus.arguments(tmp_path / run, *settings, *more)) == 0
        weights[run] = load_file(tmp_path / run / "final" / "model.safetensors")["linear.weight"].numpy()
    np.testing.assert_allclose(weights["second"], weights["first"], atol=1e-6)
