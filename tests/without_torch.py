"""Score recordings where torch is not installed, with the command and in Python: `python tests/without_torch.py`.

It needs nothing but `pip install .`, so it runs on every platform. It prints the scores of Python.
"""

from __future__ import annotations

import csv
import importlib.util
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

import distilmos
from distilmos.cli import main
from distilmos.model.calibration import CalibratedTarget, Calibration, add_calibrations
from distilmos.model.directory import DEFAULT, find_model, weights_version

RATES = (16000, 44100, 8000)
SECONDS = 2.3
WINDOW = 1.0


def write_noise(directory: Path) -> list[Path]:
    """Write a recording of noise at each sampling rate."""
    paths = []
    for rate in RATES:
        samples = 0.1 * np.random.default_rng(rate).standard_normal(round(SECONDS * rate))
        paths.append(directory / f"{rate}.wav")
        soundfile.write(paths[-1], samples, rate)
    return paths


def check() -> None:
    """Score by every way in, and compare."""
    assert importlib.util.find_spec("torch") is None, "torch is installed"
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        paths = write_noise(work)
        (work / "bad.wav").write_text("not audio")
        model = distilmos.load(window_seconds=WINDOW)
        scores = [model.predict(path) for path in paths]
        arrays = [model.predict(*soundfile.read(path, dtype="float32")) for path in paths]
        for command, inputs, status in (("whole.csv", [work], 1), ("list.jsonl", paths, 0), ("utt2mos", paths, 0)):
            options = ["--out", str(work / command), "--window", str(WINDOW)]
            assert main(["predict", *map(str, inputs), *options]) == status
        with (work / "whole.csv").open(encoding="utf-8", newline="") as stream:
            rows = {row["utterance"]: row for row in csv.DictReader(stream)}
        for path, score, array in zip(paths, scores, arrays, strict=True):
            assert abs(float(rows[str(path)]["mos"]) - score.mos) < 1e-4
            assert abs(array.mos - score.mos) < 1e-4
            assert rows[str(path)]["model"] == score.model == model.model
            print(f"{score.mos:.6f}")
        # A calibration that maps 1..5 to 0..100.
        copy = shutil.copytree(find_model(DEFAULT), work / "model")
        target = CalibratedTarget(name="MOS", scale=(0, 100), range=(1, 5), coefficients=[50, 50])
        version = weights_version(copy)
        add_calibrations(copy, [Calibration(name="panel", model=version, data="d", utterances=50, targets=[target])])
        calibrated = distilmos.load(copy, calibrated="panel", window_seconds=WINDOW).predict(paths[0])
        assert abs(calibrated.mos - 25 * (scores[0].mos - 1)) < 1e-3
        words = ["--model", str(copy), "--calibrated", "panel", "--window", str(WINDOW), "--out", str(work / "c.csv")]
        assert main(["predict", str(paths[0]), *words]) == 0
        with (work / "c.csv").open(encoding="utf-8", newline="") as stream:
            (row,) = csv.DictReader(stream)
        assert row["calibrated"] == "panel" and abs(float(row["mos"]) - calibrated.mos) < 1e-3
    assert "torch" not in sys.modules or sys.modules["torch"] is None


if __name__ == "__main__":
    check()
