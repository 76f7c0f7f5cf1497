"""The default model of the package predicts offline, with the scores that egs/tcdvoip measured."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.recipes import EGS

import distilmos
from distilmos.cli import main
from distilmos.model.directory import DEFAULT, MODELS, model_names

STUDY = EGS / "tcdvoip" / "study"
sys.path.append(str(EGS / "TEMPLATE" / "study"))
from records import read_kept  # noqa: E402


def test_it_ships_with_a_card():
    assert DEFAULT in model_names()
    assert "Not good for" in (MODELS / DEFAULT / "README.md").read_text()
    assert sum(path.stat().st_size for path in (MODELS / DEFAULT).iterdir()) < 1e6


def test_the_command_and_the_package_need_no_name(tmp_path, capsys):
    soundfile.write(tmp_path / "x.wav", 0.1 * np.random.default_rng(0).standard_normal(32000), 16000)
    assert main(["predict", str(tmp_path / "x.wav")]) == 0
    mos = float(capsys.readouterr().out.split()[1])
    assert distilmos.load().predict(tmp_path / "x.wav").mos == pytest.approx(mos, abs=1e-3)
    assert distilmos.load(DEFAULT).predict(tmp_path / "x.wav").mos == pytest.approx(mos, abs=1e-3)


def test_an_experiment_is_not_a_model(tmp_path, capsys):
    (tmp_path / "exp" / "final").mkdir(parents=True)
    (tmp_path / "exp" / "final" / "config.yaml").touch()
    assert main(["predict", "x.wav", "--model", str(tmp_path / "exp")]) == 2
    (tmp_path / "x.wav").write_bytes(b"")
    assert main(["predict", str(tmp_path / "x.wav"), "--model", str(tmp_path / "exp")]) == 2
    assert f"{tmp_path}/exp/final" in capsys.readouterr().err


def test_it_scores_the_release_as_its_card_says(tcdvoip_release: Path):
    """The shipped model is seed 3 of `spectral_pretrained`, whose scores the study keeps."""
    rows = read_kept(STUDY).scored["conditions", "spectral_pretrained", 3]["test"][::8]
    paths = [next((tcdvoip_release / "Test Set").glob(f"*/{row.utterance}.wav")) for row in rows]
    found = [score.mos for score in distilmos.load().predict(paths)]
    assert found == pytest.approx([row.predicted for row in rows], abs=1e-3)


def test_degradation_lowers_the_score_of_real_speech(tcdvoip_release: Path, tmp_path):
    """Heavy noise against none, on a recording of the release."""
    source = sorted((tcdvoip_release / "Test Set" / "echo").glob("C_01_*"))[0]
    samples, rate = soundfile.read(source)
    noisy = samples + 0.1 * np.random.default_rng(0).standard_normal(samples.size)
    soundfile.write(tmp_path / "noisy.wav", np.clip(noisy, -1, 1), rate)
    clean, degraded = distilmos.load().predict([source, tmp_path / "noisy.wav"])
    assert degraded.mos < clean.mos - 0.5
