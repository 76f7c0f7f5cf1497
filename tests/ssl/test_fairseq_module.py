"""Tokens of SSL models that only fairseq's own module supports."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from helpers.shapes import SMALL

from distilmos.cli import main
from distilmos.data.archive import load_array, read_scp
from distilmos.data.datadir import Utterance, write_data_dir
from distilmos.errors import InputError
from distilmos.ssl.fairseq_module import load_fairseq_module
from distilmos.ssl.load import load_ssl

pytest.importorskip("fairseq", reason="fairseq is not installed")


@pytest.fixture(scope="module")
def data2vec(tmp_path_factory):
    """A data2vec checkpoint as fairseq's trainer writes it, the directory of its code, and the module."""
    from fairseq.dataclass.configs import FairseqConfig
    from fairseq.models import MODEL_DATACLASS_REGISTRY, MODEL_REGISTRY
    from fairseq.utils import import_user_module
    from omegaconf import OmegaConf

    root = tmp_path_factory.mktemp("data2vec")
    code = root / "data2vec_code"
    code.mkdir()
    (code / "__init__.py").write_text("import fairseq.examples.data2vec.models.data2vec_audio\n")
    import_user_module(argparse.Namespace(user_dir=str(code)))
    settings = OmegaConf.structured(MODEL_DATACLASS_REGISTRY["data2vec_audio"])
    config = OmegaConf.merge(settings, {**SMALL, "average_top_k_layers": 2})
    torch.manual_seed(0)
    module = MODEL_REGISTRY["data2vec_audio"].build_model(config, None).eval()
    whole = OmegaConf.to_container(OmegaConf.structured(FairseqConfig), enum_to_str=True)
    whole["model"] = {**OmegaConf.to_container(config, enum_to_str=True), "_name": "data2vec_audio"}
    whole["task"] = {"_name": "audio_pretraining", "data": str(root), "normalize": True}
    step = {"criterion_name": "x", "optimizer_name": "x", "lr_scheduler_state": {}, "num_updates": 0}
    state = {"args": None, "cfg": whole, "model": module.state_dict(), "task_state": {}, "optimizer_history": [step]}
    torch.save(state | {"extra_state": {"train_iterator": {"epoch": 1}}}, root / "data2vec.pt")
    return root / "data2vec.pt", code, module


def test_layers_equal_those_of_the_module_in_any_batch(data2vec):
    path, code, module = data2vec
    wrapped = load_fairseq_module(path, code)
    torch.manual_seed(1)
    short, long = torch.randn(16000), torch.randn(24000)
    layers, frames = wrapped(torch.stack([torch.cat([short, torch.zeros(8000)]), long]), torch.tensor([16000, 24000]))
    assert frames.tolist() == [49, 74] == [wrapped.config.num_frames(n) for n in (16000, 24000)]
    for row, audio in enumerate((short, long)):
        normal = torch.nn.functional.layer_norm(audio, audio.shape)[None]
        results = module.extract_features(normal, padding_mask=None, mask=False)["layer_results"]
        for layer, (states, *_) in zip(layers, results, strict=True):
            torch.testing.assert_close(layer[row, : frames[row]], states[: frames[row], 0])


@pytest.fixture(scope="module")
def recognizer(data2vec):
    """The data2vec checkpoint fine-tuned with CTC."""
    path, _, _ = data2vec
    state = torch.load(path, weights_only=True)
    encoder = dict(state["cfg"])
    weights = {f"w2v_encoder.w2v_model.{k}": v for k, v in state["model"].items() if not k.startswith("final_proj")}
    state["cfg"]["model"] = {"_name": "wav2vec_ctc", "w2v_path": "/elsewhere/data2vec.pt", "w2v_args": encoder}
    state["cfg"]["task"] = {"_name": "audio_finetuning", "data": ""}
    ctc = path.parent / "ctc.pt"
    torch.save({**state, "model": {**weights, "w2v_encoder.proj.weight": torch.zeros(12, 48)}}, ctc)
    return ctc


def test_the_encoder_of_a_ctc_model_has_the_layers_of_the_original(data2vec, recognizer):
    path, code, _ = data2vec
    original, other = load_fairseq_module(path, code), load_fairseq_module(recognizer, code)
    assert other.normalize is original.normalize is True
    audio = torch.randn(1, 16000, generator=torch.Generator().manual_seed(1))
    for found, expected in zip(*(module(audio, torch.tensor([16000]))[0] for module in (other, original)), strict=True):
        assert torch.equal(found, expected)


def test_our_encoder_refuses_the_model_and_names_the_option_that_helps(data2vec, recognizer):
    for path in (data2vec[0], recognizer):
        with pytest.raises(InputError, match=rf"^{path}: .*data2vec_audio.*--backend fairseq"):
            load_ssl(path)


def test_files_that_fairseq_cannot_load_are_named(tmp_path):
    (tmp_path / "text.pt").write_text("text")
    torch.save({"model": {}, "cfg": {"model": {"_name": "nothing"}}}, tmp_path / "other.pt")
    for name in ("text.pt", "other.pt", "missing.pt"):
        with pytest.raises(InputError, match=f"^{tmp_path}/{name}: "):
            load_fairseq_module(tmp_path / name)


def test_tokens(data2vec, tmp_path):
    """Stages 2 to 4 on a corpus of three recordings."""
    path, code, _ = data2vec
    random = np.random.default_rng(0)
    utterances = []
    for number in range(3):
        soundfile.write(tmp_path / f"u{number}.wav", 0.1 * random.standard_normal(8000 + 900 * number), 16000)
        utterances.append(Utterance(f"u{number}", tmp_path / f"u{number}.wav", "s", 3.0))
    write_data_dir(tmp_path / "data", utterances)
    layer = ["--ssl", str(path), "--backend", "fairseq", "--user-dir", str(code), "--data", str(tmp_path / "data")]
    feats, kmeans, tokens = (str(tmp_path / name) for name in ("feats", "kmeans", "tokens"))
    commands = [
        ["dump-feats", *layer, "--out", feats, "--max-frames", "60"],
        ["merge-archives", feats, "--jobs", "1"],
        *(["learn-kmeans", "--feats", feats, "--layer", n, "--clusters", "4", "--out", kmeans] for n in "123"),
        ["dump-tokens", *layer, "--kmeans", kmeans, "--out", tokens],
        ["merge-archives", tokens, "--jobs", "1"],
    ]
    for command in commands:
        if command[0].startswith("dump"):  # in its own process, as in a recipe: it imports the code of the model
            subprocess.run([sys.executable, "-m", "distilmos.cli", *command], check=True, env=os.environ)
        else:
            assert main(command) == 0
    config = load_fairseq_module(path, code).config
    for number in "123":
        found = {
            u: load_array(location) for u, location in read_scp(tmp_path / "tokens" / f"layer{number}.scp").items()
        }
        assert {u: len(ids) for u, ids in found.items()} == {
            f"u{n}": config.num_frames(8000 + 900 * n) for n in range(3)
        }
        assert set(np.concatenate(list(found.values()))) <= set(range(4))
