"""`distilmos predict` and the Python interface: warnings that name the file, and the choice of a channel."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile

import distilmos
from distilmos.cli import main
from distilmos.data.archive import open_archive
from distilmos.errors import InputError, InputWarning

CASES = Path(__file__).resolve().parents[1] / "cases"


@pytest.fixture
def stereo(tmp_path):
    """A file with noise on the left and a tone on the right, and both as files of their own."""
    generator = np.random.default_rng(0)
    left = 0.1 * generator.standard_normal(16000)
    right = 0.3 * np.sin(np.arange(16000) / 10)
    for name, samples in {"both": np.stack([left, right], 1), "left": left, "right": right}.items():
        soundfile.write(tmp_path / f"{name}.wav", samples, 16000, subtype="FLOAT")
    return {name: tmp_path / f"{name}.wav" for name in ("both", "left", "right")}


def predict(*arguments: object) -> int:
    return main(["predict", *map(str, arguments)])


def scores_of(path: Path) -> list[float]:
    with path.open(newline="") as stream:
        return [float(row["mos"]) for row in csv.DictReader(stream)]


def test_each_doubtful_recording_has_one_line_with_its_name(tmp_path, model_dir, wavs, capsys):
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    soundfile.write(tmp_path / "long.wav", np.sign(np.sin(np.arange(48000) / 9)), 16000)
    shutil.copy(CASES / "antiphase.wav", tmp_path)
    shutil.copy(CASES / "data_plus8.wav", tmp_path)
    with open_archive(tmp_path / "ark") as archive:
        archive.write("quiet", (16000, np.ones(16000, np.int16)))
    doubtful = [tmp_path / name for name in ("silent.wav", "antiphase.wav", "long.wav", "data_plus8.wav", "ark.scp")]
    for window in ("30", "1"):
        out = tmp_path / f"{window}.csv"
        assert predict(*wavs, *doubtful, "--model", model_dir, "--out", out, "--window", window) == 0
        assert out.read_text().splitlines()[0] == "utterance,mos,seconds,error,model"
        assert len(scores_of(out)) == len(wavs) + len(doubtful)
        said = capsys.readouterr().err.splitlines()
        lines = [line.partition("warning: ")[2] for line in said if "warning: " in line]
        for line, path in zip(lines, [*doubtful[:-1], f"{tmp_path / 'ark.ark'}: quiet"], strict=True):
            assert line.startswith(f"{path}: ")
        for line, word in zip(lines, ("silent", "cancel", "clipped", "64008", "silent"), strict=True):
            assert word in line


def test_python_warnings(tmp_path, model_dir, stereo):
    predictor = distilmos.load(model_dir)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predictor.predict(stereo["both"])
        predictor.predict(np.sin(np.arange(16000) / 10), 16000)
    with pytest.warns(InputWarning, match=r"antiphase\.wav: ") as caught:
        predictor.predict(CASES / "antiphase.wav")
    assert len(caught) == 1
    with pytest.warns(InputWarning, match=r"waveform 1: .*silent"):
        predictor.predict([np.sin(np.arange(8000) / 10), np.zeros(8000)], 8000)
    with pytest.warns(InputWarning, match=r"waveform 0: .*clipped"):
        predictor.predict(np.sign(np.sin(np.arange(16000) / 10)), 16000)


def test_a_warning_advises_what_its_caller_has(tmp_path, model_dir, capsys):
    assert predict(CASES / "antiphase.wav", "--model", model_dir) == 0
    assert "channel`" in capsys.readouterr().err
    (tmp_path / "wav.scp").write_text(f"u {CASES / 'antiphase.wav'}\n")
    assert main(["dump-audio", str(tmp_path), str(tmp_path / "raw")]) == 0
    (warning,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert f"{tmp_path / 'wav.scp'}:1: u: " in warning and "cancel" in warning
    assert "--" not in warning and "`" not in warning


def test_each_of_two_equal_warnings_is_shown_unless_a_filter_says_otherwise(model_dir):
    code = (
        "import sys, numpy, distilmos\n"
        "predictor = distilmos.load(sys.argv[1])\n"
        "for _ in range(2): predictor.predict(numpy.zeros(16000), 16000)"
    )
    for options, count in (([], 2), (["-W", "ignore"], 0)):
        command = [sys.executable, *options, "-c", code, str(model_dir)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stderr.count("waveform 0: ") == count, done.stderr


def test_a_channel_has_the_score_of_its_own_file(tmp_path, model_dir, stereo):
    alone = {}
    for name, path in stereo.items():
        assert predict(path, "--model", model_dir, "--out", tmp_path / "o.csv") == 0
        (alone[name],) = scores_of(tmp_path / "o.csv")
    assert abs(alone["left"] - alone["right"]) > 0.01
    for channel, name in ((1, "left"), (2, "right")):
        options = ("--channel", channel, "--frames", tmp_path / "f", "--plots", tmp_path / "p")
        assert predict(stereo["both"], "--model", model_dir, "--out", tmp_path / "o.csv", *options) == 0
        assert scores_of(tmp_path / "o.csv") == pytest.approx([alone[name]], abs=1e-4)
        predictor = distilmos.load(model_dir, channel=channel)
        score = predictor.predict(stereo["both"])
        assert score.mos == pytest.approx(alone[name], abs=1e-4)
        assert np.concatenate(list(score.recording.stream(9.0))) == pytest.approx(soundfile.read(stereo[name])[0])
    assert predict(stereo["left"], "--model", model_dir, "--channel", "1") == 0


def test_a_channel_that_does_not_exist_is_bad_usage(tmp_path, model_dir, stereo, capsys):
    arguments = (stereo["both"], stereo["left"], "--model", model_dir, "--out", tmp_path / "o.csv")
    assert predict(*arguments, "--channel", "2") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"{stereo['left']}: " in line and "1 channel" in line
    assert not (tmp_path / "o.csv").exists()
    predictor = distilmos.load(model_dir, channel=3)
    with pytest.raises(InputError, match=r"both\.wav: .*\b2 channels.*\b3\b"):
        predictor.predict([stereo["both"]])
    with pytest.raises(InputError, match=r"waveform.*1 channel.*3"):
        predictor.predict(np.zeros(16000), 16000)
    for bad in (0, -1, 1.5, "1"):
        with pytest.raises(InputError, match=f"channel {bad!r}"):
            distilmos.load(model_dir, channel=bad)
    with pytest.raises(SystemExit) as caught:
        predict(stereo["both"], "--channel", "0")
    assert caught.value.code == 2


def test_another_channel_does_not_continue_a_run(tmp_path, model_dir, stereo, capsys):
    """The run ends at the last file, after many scored recordings."""
    (tmp_path / "in").mkdir()
    for index in range(40):
        (tmp_path / "in" / f"{index:02d}.wav").symlink_to(stereo["both"])
    (tmp_path / "in" / "z.wav").symlink_to(stereo["left"])
    options = ("--batch-seconds", "1", "--workers", "1", "--out", tmp_path / "o.csv")
    arguments = (tmp_path / "in", "--model", model_dir, *options)
    assert predict(*arguments, "--channel", "2") == 2
    assert predict(*arguments, "--channel", "1", "--resume") == 2
    assert f"{tmp_path}/o.csv.partial:1: " in capsys.readouterr().err.splitlines()[-1]
