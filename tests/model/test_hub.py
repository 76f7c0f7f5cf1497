"""Push and pull of models, with the library of the hub and a local stand-in for the hub."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers.hub import Hub, serve_hub
from helpers.released import GOLDEN

from distilmos.cli import main
from distilmos.model.calibration import CalibratedTarget, Calibration, add_calibrations
from distilmos.model.config import ModelConfig
from distilmos.model.networks import build_model
from distilmos.model.package import save_model_dir
from distilmos.ssl.load import load_ssl

FILES = ("config.yaml", "model.safetensors", "model.onnx", "README.md", "calibrations.json")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    directory = tmp_path_factory.mktemp("exp") / "model"
    torch.manual_seed(0)
    save_model_dir(directory, build_model(ModelConfig(hidden_dim=16), load_ssl("hubert_tiny"), 10))
    assert main(["export", "--onnx", str(directory)]) == 0
    (directory / "README.md").write_text("# A card\n")
    target = CalibratedTarget(name="MOS", scale=(0, 100), range=(1, 5), coefficients=[50.0, 50.0])
    calibration = Calibration(name="panel", model="0123", data="panel", utterances=50, targets=[target])
    add_calibrations(directory, [calibration])
    (directory / "secret.txt").write_text("not for publication")
    return directory


@pytest.fixture
def hub():
    with serve_hub() as state:
        yield state


def run(hub: Hub, home, *arguments, token="hf_writer", environment=None):
    """Run a command with `hub` as its hub and its own cache."""
    settings = (environment or {}) | {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_TOKEN": token}
    quiet = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    command = [sys.executable, "-m", "distilmos.cli", *map(str, arguments)]
    return subprocess.run(command, env=os.environ | settings | quiet, capture_output=True, text=True, check=False)


def publish(hub: Hub, model, repository: str = "someone/mos") -> None:
    """Put the files on the hub that `push` puts there, as `test_push_and_pull` proves."""
    hub.files[repository] = {name: (model / name).read_bytes() for name in FILES}


def test_push_and_pull(tmp_path, hub, model):
    done = run(hub, tmp_path / "writer", "push", model, "someone/mos")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{hub.url}/someone/mos\n"
    published = hub.files["someone/mos"]
    assert set(published) == set(FILES)
    done = run(hub, tmp_path / "reader", "pull", "someone/mos", tmp_path / "pulled", token="")
    assert done.returncode == 0, done.stderr
    for name, content in published.items():
        assert (tmp_path / "pulled" / name).read_bytes() == content == (model / name).read_bytes()
    assert run(hub, tmp_path / "reader", "pull", "someone/mos", tmp_path / "pulled").returncode == 2


def test_pull_and_predict_need_no_torch_if_the_model_has_its_graph(tmp_path, hub, model):
    publish(hub, model)
    soundfile.write(tmp_path / "x.wav", 0.1 * np.random.default_rng(0).standard_normal(16000), 16000)
    hidden = tmp_path / "hidden"
    for package in ("torch", "torchaudio", "safetensors", "scipy"):
        (hidden / package).mkdir(parents=True)
        (hidden / package / "__init__.py").write_text(f"raise ModuleNotFoundError(name={package!r})")
    environment = {"PYTHONPATH": f"{hidden}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    commands = (
        ("pull", "someone/mos", tmp_path / "pulled"),
        ("predict", tmp_path / "x.wav", "--model", tmp_path / "pulled", "--device", "cpu"),
        ("predict", tmp_path / "x.wav", "--model", "someone/mos", "--device", "cpu"),
    )
    outputs = []
    for command in commands:
        done = run(hub, tmp_path / "reader", *command, environment=environment)
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert outputs[1] == outputs[2]
    assert "model someone/mos@" in done.stderr


def test_push_refuses_a_graph_of_other_weights(tmp_path, hub, model):
    changed = Path(shutil.copytree(model, tmp_path / "changed"))
    content = (changed / "model.safetensors").read_bytes()
    (changed / "model.safetensors").write_bytes(content[:-4] + bytes(4))
    done = run(hub, tmp_path / "writer", "push", changed, "someone/mos")
    assert done.returncode == 2 and f"{changed}/model.onnx: " in done.stderr
    assert hub.files == {}


def test_a_model_on_the_hub_predicts_and_is_kept(tmp_path, hub, model, capsys):
    publish(hub, model)
    soundfile.write(tmp_path / "x.wav", 0.1 * np.random.default_rng(0).standard_normal(16000), 16000)
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "x.wav"), "--model", str(model)]) == 0
    first = run(hub, tmp_path / "reader", "predict", tmp_path / "x.wav", "--model", "someone/mos")
    assert first.returncode == 0, first.stderr
    assert first.stdout == capsys.readouterr().out
    # A cached model is not requested again: a job needs no network.
    hub.requests.clear()
    again = run(hub, tmp_path / "reader", "predict", tmp_path / "x.wav", "--model", "someone/mos")
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert hub.requests == []


def test_pull_fetches_what_is_newest(tmp_path, hub, model):
    publish(hub, model)
    assert run(hub, tmp_path / "reader", "pull", "someone/mos", tmp_path / "first").returncode == 0
    hub.files["someone/mos"]["README.md"] = b"# A new card\n"
    assert run(hub, tmp_path / "reader", "pull", "someone/mos", tmp_path / "second").returncode == 0
    assert (tmp_path / "second" / "README.md").read_bytes() == b"# A new card\n"
    hub.files.clear()
    done = run(hub, tmp_path / "reader", "pull", "someone/mos", tmp_path / "third")
    assert done.returncode == 0, done.stderr
    assert "someone/mos: " in done.stderr
    assert (tmp_path / "third" / "README.md").read_bytes() == b"# A new card\n"


def test_a_newest_commit_without_weights_is_named_and_the_cache_does_not_replace_it(tmp_path, hub, model):
    publish(hub, model)
    assert run(hub, tmp_path / "reader", "pull", "someone/mos", tmp_path / "first").returncode == 0
    del hub.files["someone/mos"]["model.safetensors"]
    done = run(hub, tmp_path / "reader", "pull", "someone/mos", tmp_path / "second")
    assert done.returncode == 1
    assert "someone/mos: " in done.stderr and "model.safetensors" in done.stderr
    assert not (tmp_path / "second").exists()


def test_refusals_of_the_hub_are_reported(tmp_path, hub, model):
    done = run(hub, tmp_path / "home", "push", model, "someone/mos", token="hf_reader")
    assert done.returncode == 1
    assert "someone/mos: " in done.stderr and "403" in done.stderr
    done = run(hub, tmp_path / "home", "pull", "someone/nothing", tmp_path / "pulled")
    assert done.returncode == 1
    assert "someone/nothing: " in done.stderr
    assert not (tmp_path / "pulled").exists()
    done = run(hub, tmp_path / "home", "push", tmp_path, "someone/mos")
    assert done.returncode == 2
    assert f"{tmp_path / 'config.yaml'}: " in done.stderr
    assert hub.files == {}


def test_the_released_models_come_from_the_hub(tmp_path, hub):
    for kind in ("wavlm", "w2v2"):
        folder = GOLDEN / f"official_{kind}_small"
        stored = {f"{kind}/{name}": (folder / name).read_bytes() for name in ("model.pth.tar", "model_cfg.yaml")}
        hub.files.setdefault("BaleYang/DistilMOS", {}).update(stored)
    for kind in ("wavlm", "w2v2"):
        options = ("--hub", "BaleYang/DistilMOS", "--backbone", kind, "--out", tmp_path / kind)
        done = run(hub, tmp_path / "home", "import-official", *options)
        assert done.returncode == 0, done.stderr
        assert "3 layers of width 32" in done.stdout
