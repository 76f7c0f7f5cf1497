"""Prediction where torch is not installed: no module on its way imports torch, and the scores are those of torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import without_torch

import distilmos

TESTS = Path(__file__).resolve().parents[1]
# Packages of extras; importing one fails as if it were not installed.
ABSENT = ("torch", "torchaudio", "scipy", "safetensors", "onnx", "matplotlib", "sklearn", "joblib", "kaldiio")
HIDE = f"import sys; sys.modules.update(dict.fromkeys({ABSENT!r}))"


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", f"{HIDE}; {code}", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def run_command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run("from distilmos.cli import main; sys.exit(main())", *arguments)


def test_scores_are_those_of_torch(tmp_path):
    done = run(f"import runpy; runpy.run_path({str(TESTS / 'without_torch.py')!r}, run_name='__main__')")
    assert done.returncode == 0, done.stderr
    paths = without_torch.write_noise(tmp_path)
    model = distilmos.load(runtime="torch", device="cpu", window_seconds=without_torch.WINDOW)
    expected = [model.predict(path).mos for path in paths]
    found = [float(line) for line in done.stdout.splitlines() if line[0].isdigit()]
    assert found == pytest.approx(expected, abs=1e-4)


def test_a_model_without_a_graph_names_the_command_that_makes_it(model_dir, wavs):
    done = run_command("predict", wavs[0], "--model", model_dir)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert f"distilmos export --onnx {model_dir}" in line and "distilmos[torch]" in line


@pytest.mark.parametrize("options", [("--runtime", "torch"), ("--device", "cuda")])
def test_what_needs_torch_says_how_to_install_it(wavs, options):
    done = run_command("predict", wavs[0], *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'distilmos[torch]'" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["pull", "push", "web", "validate-data", "sets", "predict"])
def test_other_commands_start(command):
    done = run_command(command, "--help")
    assert done.returncode == 0, done.stderr
