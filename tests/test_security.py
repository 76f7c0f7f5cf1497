"""Nothing in a file that a user is given is executed: checkpoints, configurations, k-means models, tables."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import shutil

import joblib
import numpy as np
import onnx
import pytest
import torch
import yaml

from distilmos.cli import main
from distilmos.data.archive import open_archive
from distilmos.errors import InputError
from distilmos.model.config import ModelConfig
from distilmos.model.networks import build_model
from distilmos.model.official import load_official
from distilmos.model.onnx_file import open_onnx
from distilmos.model.package import load_model_dir, save_model_dir
from distilmos.ssl.fairseq_module import load_fairseq_module
from distilmos.ssl.load import load_ssl
from distilmos.tokens.info import TokenInfo
from distilmos.tokens.kmeans import learn_kmeans, load_centroids


class Command:
    """Runs a shell command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.fixture
def trap(tmp_path):
    """A command, and the file that would be there if it had run."""
    ran = tmp_path / "it ran"
    yield Command(f"touch '{ran}'")
    assert not ran.exists()


def test_the_trap_works(tmp_path):
    pickle.loads(pickle.dumps(Command(f"touch '{tmp_path}/ran'")))
    assert (tmp_path / "ran").exists()


FAIRSEQ = {"_name": "hubert", "encoder_layers": 1}
CHECKPOINTS = {
    "the whole": lambda trap: trap,
    "a weight": lambda trap: {"model": {"layer_norm.weight": trap}, "cfg": {"model": FAIRSEQ}},
    "the settings": lambda trap: {"model": {}, "cfg": {"model": {**FAIRSEQ, "conv_feature_layers": trap}}},
    "the command line": lambda trap: {"model": {}, "args": argparse.Namespace(arch="wav2vec2", encoder_layers=trap)},
    "what is not used": lambda trap: {"model": {}, "cfg": {"model": FAIRSEQ}, "optimizer_history": [trap]},
    "WavLM": lambda trap: {"model": {}, "cfg": {"relative_position_embedding": trap}},
    "an array of numpy": lambda trap: {"model": {}, "best": np.array([trap], dtype=object)},
    "weights alone": lambda trap: {"encoder.layer_norm.weight": trap},
}


@pytest.mark.parametrize("make", CHECKPOINTS.values(), ids=CHECKPOINTS)
@pytest.mark.parametrize("zipped", [True, False])
def test_checkpoints(tmp_path, trap, make, zipped):
    torch.save(make(trap), tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"refused: not plain weights and settings \(it holds posix\.system\)"):
        load_ssl(tmp_path / "x.pt")


def test_settings_are_not_evaluated(tmp_path):
    """The expression that fairseq evaluates is read as lists of numbers here, or refused."""
    expression = f"__import__('os').system('touch {tmp_path}/ran')"
    cfg = {"model": {**FAIRSEQ, "conv_feature_layers": expression}}
    torch.save({"model": {}, "cfg": cfg}, tmp_path / "x.pt")
    with pytest.raises(InputError, match="conv_feature_layers"):
        load_ssl(tmp_path / "x.pt")
    assert not (tmp_path / "ran").exists()


CODE = "__import__('os').system('touch {}/ran') or [(32, 10, 5)]"
FAIRSEQ_SETTINGS = {
    "conv_feature_layers": lambda code: {"model": {"_name": "wav2vec2", "conv_feature_layers": code}},
    "another setting of another model": lambda code: {
        "model": {"_name": "multires_hubert", "override_encoder_layers": code}
    },
    "settings in settings": lambda code: {
        "model": {
            "_name": "wav2vec_ctc",
            "normalize": False,
            "w2v_args": {
                "model": {"_name": "wav2vec2", "conv_feature_layers": code, "normalize": False},
                "task": {"_name": "audio_pretraining", "normalize": False, "data": "x"},
            },
        }
    },
    "a call in parts": lambda code: {
        "model": {"_name": "wav2vec2", "conv_feature_layers": "${model.a}${model.b}", "a": code[:12], "b": code[12:]}
    },
    "a call without parentheses": lambda code: {
        "model": {
            "_name": "wav2vec2",
            "conv_feature_layers": f"[[x[{code!r}] for x.__class__.__getitem__ in [eval]] for x in [help]]",
        }
    },
    "bytes": lambda code: {"model": {"_name": "wav2vec2", "conv_feature_layers": code.encode()}},
}


@pytest.mark.parametrize("make", FAIRSEQ_SETTINGS.values(), ids=FAIRSEQ_SETTINGS)
@pytest.mark.parametrize("old", [False, True], ids=["cfg", "args"])
def test_settings_that_fairseq_evaluates(tmp_path, make, old):
    pytest.importorskip("fairseq", reason="fairseq is not installed")
    cfg = {"task": {"_name": "audio_pretraining", "data": "x", "normalize": False}, **make(CODE.format(tmp_path))}
    about = {"cfg": cfg, "args": None}
    if old:
        model = dict(cfg["model"])
        about = {"args": argparse.Namespace(arch=model.pop("_name"), task="audio_pretraining", data="x", **model)}
    step = {"criterion_name": "x", "optimizer_name": "x", "lr_scheduler_state": {}, "num_updates": 0}
    state = {"model": {}, "optimizer_history": [step], "extra_state": {"train_iterator": {"epoch": 1}}}
    torch.save(about | state, tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"x\.pt: refused: the setting \S* is "):
        load_fairseq_module(tmp_path / "x.pt")
    assert not (tmp_path / "ran").exists()


def test_settings_of_a_second_checkpoint_that_fairseq_would_read(tmp_path):
    dictionary = pytest.importorskip("fairseq.data.dictionary", reason="fairseq is not installed")
    step = {"criterion_name": "x", "optimizer_name": "x", "lr_scheduler_state": {}, "num_updates": 0}
    state = {"model": {}, "optimizer_history": [step], "extra_state": {"train_iterator": {"epoch": 1}}}
    task = {"_name": "audio_pretraining", "data": "x", "normalize": False}
    inner = {"_name": "wav2vec2", "conv_feature_layers": CODE.format(tmp_path)}
    torch.save(state | {"cfg": {"model": inner, "task": task}}, tmp_path / "inner.pt")
    outer = {"_name": "wav2vec_ctc", "w2v_path": str(tmp_path / "inner.pt"), "data": "x", "normalize": False}
    task = {**task, "_name": "audio_finetuning", "labels": "ltr"}
    state["task_state"] = {"target_dictionary": dictionary.Dictionary()}
    torch.save(state | {"cfg": {"model": outer, "task": task}}, tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"spread over several files, the next one is .*inner\.pt"):
        load_fairseq_module(tmp_path / "x.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("make", [CHECKPOINTS["a weight"], CHECKPOINTS["the settings"]])
def test_checkpoints_for_fairseq(tmp_path, trap, make, monkeypatch):
    """Also where the user has told torch that files may execute code."""
    pytest.importorskip("fairseq", reason="fairseq is not installed")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save(make(trap), tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"x\.pt: "):
        load_fairseq_module(tmp_path / "x.pt")


def test_weights_of_transformers_and_of_the_authors(tmp_path, trap):
    torch.save({"x": trap}, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "hubert"}))
    with pytest.raises(InputError, match=r"pytorch_model\.bin: "):
        load_ssl(tmp_path)
    torch.save({"model": {"x": trap}}, tmp_path / "model.pth.tar")
    (tmp_path / "model_cfg.yaml").write_text("ssl_backbone: wavlm\n")
    with pytest.raises(InputError, match=r"model\.pth\.tar: "):
        load_official(tmp_path / "model.pth.tar", tmp_path / "model_cfg.yaml")


def test_the_weights_of_a_graph_stay_in_its_directory(tmp_path):
    save_model_dir(
        tmp_path / "m", build_model(ModelConfig(model="spectral", spectral_dim=4), load_ssl("hubert_tiny"), 1)
    )
    assert main(["export", "--onnx", str(tmp_path / "m")]) == 0
    shutil.copy(tmp_path / "m" / "model.safetensors", tmp_path)
    path = tmp_path / "m" / "model.onnx"
    graph = onnx.load(path, load_external_data=False)
    for location in ("../model.safetensors", str(tmp_path / "model.safetensors")):
        for weight in graph.graph.initializer:
            weight.external_data[0].value = location
        path.write_bytes(graph.SerializeToString())
        with pytest.raises(InputError, match=r"m/model\.onnx: "):
            open_onnx(path)


def test_an_index_of_shards_stays_in_its_directory(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "config.json").write_text(json.dumps({"model_type": "hubert"}))
    index = {"weight_map": {"x": "../outside.bin"}}
    (tmp_path / "in" / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    torch.save({}, tmp_path / "outside.bin")
    with pytest.raises(InputError, match=r"in/outside\.bin: no such file"):
        load_ssl(tmp_path / "in")


def test_kmeans_models(tmp_path, trap):
    """The joblib file is for scikit-learn users; nothing here reads it. The centroids are a plain array."""
    features = tmp_path / "feats"
    with open_archive(features / "layer1") as archive:
        archive.write("u", np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32))
    TokenInfo("x", "y", 1).write(features)
    learn_kmeans(features, 1, 3, 1, tmp_path / "kmeans")
    info = TokenInfo.read(tmp_path / "kmeans")
    joblib.dump(trap, tmp_path / "kmeans" / "layer1.joblib")
    assert load_centroids(tmp_path / "kmeans", info)[0].shape == (3, 4)
    np.save(tmp_path / "kmeans" / "layer1.npy", np.array([trap], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"layer1\.npy"):
        load_centroids(tmp_path / "kmeans", info)


YAML_TRAP = "!!python/object/apply:os.system [\"touch '{}/it ran'\"]"


def test_yaml(tmp_path, trap, capsys):
    line = YAML_TRAP.format(tmp_path)
    (tmp_path / "c.yaml").write_text(f"seed: {line}\n")
    assert main(["train", "--config", str(tmp_path / "c.yaml"), "--train", "x", "--dev", "x", "--out", "x"]) == 2
    assert "c.yaml:1: " in capsys.readouterr().err
    save_model_dir(tmp_path / "m", build_model(ModelConfig(model="sslmos"), load_ssl("hubert_tiny"), None))
    config = yaml.safe_load((tmp_path / "m" / "config.yaml").read_text())
    (tmp_path / "m" / "config.yaml").write_text(yaml.safe_dump(config).replace("format: 1", f"format: {line}"))
    with pytest.raises(InputError, match=r"m/config\.yaml"):
        load_model_dir(tmp_path / "m")
    shutil.copy(tmp_path / "m" / "config.yaml", tmp_path / "model_cfg.yaml")
    with pytest.raises(InputError, match=r"model_cfg\.yaml"):
        load_official(tmp_path / "none", tmp_path / "model_cfg.yaml")


def test_pipes_in_tables(tmp_path, trap, capsys):
    (tmp_path / "wav.scp").write_text(f"u touch '{tmp_path}/it ran' |\n")
    assert main(["predict", str(tmp_path / "wav.scp"), "--model", str(tmp_path)]) == 2
    assert "wav.scp:1: " in capsys.readouterr().err
