"""Prediction from Python: whatever is given, the scores are those of the command."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import distilmos
from distilmos.errors import InputError


@pytest.fixture
def predictor(model_dir):
    return distilmos.load(model_dir, device="cpu")


@pytest.fixture
def waveforms(wavs):
    return [soundfile.read(path, dtype="float32", always_2d=True) for path in wavs]


def test_paths_lists_directories_and_waveforms(predictor, wavs, waveforms, tmp_path):
    expected = [predictor.predict(path).mos for path in wavs]
    assert predictor.predict(str(wavs[0])).mos == expected[0]
    assert [score.mos for score in predictor.predict(wavs)] == pytest.approx(expected, abs=1e-4)
    (tmp_path / "in").mkdir()
    for path in wavs:
        (tmp_path / "in" / path.name).symlink_to(path)
    found = predictor.predict(tmp_path / "in")
    assert [Path(score.utterance).name for score in found] == [path.name for path in wavs]
    assert [score.mos for score in found] == pytest.approx(expected, abs=1e-4)
    for (samples, rate), mos in zip(waveforms, expected, strict=True):
        mono = samples.mean(axis=1)
        assert predictor.predict(mono, rate).mos == pytest.approx(mos, abs=1e-4)
        assert predictor.predict(torch.from_numpy(mono), float(rate)).mos == pytest.approx(mos, abs=1e-4)
        assert predictor.predict(torch.from_numpy(mono), np.int32(rate)).mos == pytest.approx(mos, abs=1e-4)


def test_batches_of_waveforms_and_integers(predictor):
    random = np.random.default_rng(0)
    batch = (3000 * random.standard_normal((3, 16000))).astype(np.int16)
    alone = [predictor.predict(row / 32768, 16000).mos for row in batch]
    for given in (batch, list(batch), torch.from_numpy(batch), list(torch.from_numpy(batch))):
        assert [score.mos for score in predictor.predict(given, 16000)] == pytest.approx(alone, abs=1e-4)
    lengths = [row[: 8000 + 2000 * number] for number, row in enumerate(batch)]
    scores = predictor.predict(lengths, 16000)
    assert [score.seconds for score in scores] == [0.5, 0.625, 0.75]
    assert [score.frame_mos.size for score in scores] == [24, 31, 37]
    for score in scores:
        assert score.mos == pytest.approx(float(score.frame_mos.mean()), abs=1e-5)


def test_threads_share_a_predictor(predictor, wavs):
    expected = [predictor.predict(path).mos for path in wavs]
    with ThreadPoolExecutor(4) as executor:
        found = list(executor.map(lambda path: predictor.predict(path).mos, wavs * 5))
    assert found == pytest.approx(expected * 5, abs=1e-4)


def test_what_is_wrong_is_said(predictor, wavs, tmp_path, model_dir):
    (tmp_path / "x.wav").write_text("not audio")
    good = np.zeros(16000, np.float32)
    for arguments, message in (
        ((tmp_path / "x.wav",), "x.wav: not readable as audio"),
        ((tmp_path / "none.wav",), "none.wav: no such file"),
        ((good,), "waveforms need their sampling_rate"),
        ((good, 16000.5), "sampling_rate 16000.5 is not a whole number of Hz"),
        ((good, "16000"), "sampling_rate '16000' is not a whole number of Hz"),
        ((good, 0), "sampling_rate: a sampling rate of 0 Hz, not of 1000 to 768000 Hz"),
        ((good[:300], 16000), "18.8 ms is shorter than one frame"),
        ((good * np.nan, 16000), "not finite"),
        ((np.full(16000, 1e300), 16000), "not finite numbers in single precision"),
        ((np.stack([good, good], axis=1), 16000), r"shape \(16000, 2\) is no batch \(B, N\): average the channels"),
        ((good.astype(complex), 16000), "complex128 is neither"),
        ((good[None, None], 16000), r"of shape \(1, 1, 16000\)"),
        ((None,), "NoneType is neither a path, nor a waveform, nor a list"),
        (([wavs[0], good],), "paths alone or waveforms alone"),
    ):
        with pytest.raises(InputError, match=message):
            predictor.predict(*arguments)
    one, other = predictor.predict([tmp_path / "x.wav", wavs[0]])
    assert "not readable" in one.error
    assert np.isnan(one.mos)
    assert other.error == ""
    with pytest.raises(InputError, match="nobody: neither a directory, nor a model that ships"):
        distilmos.load("nobody")
    for option, value in {"workers": 0, "window_seconds": np.inf, "batch_seconds": "60", "corpus": 3}.items():
        with pytest.raises(InputError, match=f"^{option} {value!r} is not a"):
            distilmos.load(model_dir, **{option: value})
    (tmp_path / "empty.txt").write_text("")
    assert predictor.predict(tmp_path / "empty.txt") == []
    with pytest.raises(InputError, match="no such option"):
        distilmos.load(model_dir, speed=3)


def test_importing_the_package_is_light():
    code = "import sys, distilmos; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_torch_hub(wavs, model_dir):
    """A local checkout stands for the one that torch.hub fetches."""
    repository = Path(__file__).resolve().parents[2]
    predictor = torch.hub.load(str(repository), "distilmos", model_dir, source="local", device="cpu")
    assert predictor.predict(wavs[0]).mos == pytest.approx(distilmos.load(model_dir).predict(wavs[0]).mos)
