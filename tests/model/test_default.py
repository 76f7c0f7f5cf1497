"""The models of the package predict offline, with the scores that egs/tcdvoip measured."""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.recipes import EGS

import distilmos
from distilmos.cli import main
from distilmos.errors import InputWarning
from distilmos.model.directory import DEFAULT, MODELS, model_names

STUDY = EGS / "tcdvoip" / "study"
sys.path.append(str(EGS / "TEMPLATE" / "study"))
from records import read_kept  # noqa: E402


@pytest.mark.parametrize(("name", "most"), [("whisper_voip", 22e6), ("spectral_voip", 1e6)])
def test_each_ships_with_a_card(name: str, most: float):
    assert name in model_names() and DEFAULT in model_names()
    assert "Not good for" in (MODELS / name / "README.md").read_text()
    assert sum(path.stat().st_size for path in (MODELS / name).iterdir()) < most


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


@pytest.mark.parametrize(
    ("model", "study", "run", "tolerance"),
    [
        # Its weights are stored in float16.
        (EGS / "tcdvoip" / "whisper", STUDY / "pretrained", ("whisper_3e-5", 1), 0.01),
        ("spectral_voip", STUDY, ("spectral_pretrained", 3), 0.001),
    ],
)
def test_a_model_that_is_a_run_of_a_study_has_its_scores(model, study, run, tolerance, tcdvoip_release: Path):
    rows = read_kept(study).scored["conditions", *run]["test"][::8]
    found = distilmos.load(model).predict([recording(tcdvoip_release, row.utterance) for row in rows])
    assert [score.mos for score in found] == pytest.approx([row.predicted for row in rows], abs=tolerance)


def test_the_default_model_is_as_good_as_its_card_says(tcdvoip_release: Path):
    rows = read_kept(STUDY / "pretrained").scored["conditions", DEFAULT, None]["test"]
    found = distilmos.load().predict([recording(tcdvoip_release, row.utterance) for row in rows])
    assert [score.mos for score in found] == pytest.approx([row.predicted for row in rows], abs=1e-3)
    correlation = np.corrcoef([row.mos for row in rows], [score.mos for score in found])[0, 1]
    said = re.search(r"\| this model: [^|]*\| (\.\d+) ", (MODELS / DEFAULT / "README.md").read_text())
    assert said and correlation == pytest.approx(float(said[1]), abs=0.002)
    assert max(score.novelty for score in found) < 1  # no recording of this corpus is new to it


def recording(release: Path, utterance: str) -> Path:
    return next((release / "Test Set").glob(f"*/{utterance}.wav"))


def test_gain_polarity_and_silence_hardly_change_its_scores(tcdvoip_release: Path):
    rows = read_kept(STUDY).scored["conditions", "spectral_pretrained", 3]["test"][::8]
    waves = [soundfile.read(recording(tcdvoip_release, row.utterance), dtype="float32")[0] for row in rows]
    model, silence = distilmos.load(), np.zeros(8000, np.float32)
    plain = np.array([score.mos for score in model.predict(waves, 16000)])
    changes = {
        "louder": lambda wave: wave * 10**0.5,
        "quieter": lambda wave: wave / 10**0.5,
        "inverted": lambda wave: -wave,
        "padded": lambda wave: np.concatenate([silence, wave, silence]),
    }
    for name, change in changes.items():
        with warnings.catch_warnings(action="ignore", category=InputWarning):  # louder than full scale
            found = np.array([score.mos for score in model.predict([change(wave) for wave in waves], 16000)])
        assert np.abs(found - plain).mean() < (0.1 if name == "padded" else 0.01), name


def test_it_warns_of_what_is_no_speech():
    time = np.arange(48000) / 16000
    noise = 0.1 * np.random.default_rng(0).standard_normal(48000)
    chord = sum(0.05 * np.sin(2 * np.pi * pitch * time) * np.exp(-2 * (time % 0.5)) for pitch in (262, 330, 392, 523))
    for wave in (noise, chord, noise[:4800]):
        with pytest.warns(InputWarning, match=DEFAULT):
            assert distilmos.load().predict(wave.astype(np.float32), sampling_rate=16000).novelty > 1.5


def test_degradation_lowers_the_score_of_real_speech(tcdvoip_release: Path, tmp_path):
    """Heavy noise against none, on a recording of the release."""
    source = sorted((tcdvoip_release / "Test Set" / "echo").glob("C_01_*"))[0]
    samples, rate = soundfile.read(source)
    noisy = samples + 0.1 * np.random.default_rng(0).standard_normal(samples.size)
    soundfile.write(tmp_path / "noisy.wav", np.clip(noisy, -1, 1), rate)
    clean, degraded = distilmos.load().predict([source, tmp_path / "noisy.wav"])
    assert degraded.mos < clean.mos - 0.5
