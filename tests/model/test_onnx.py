"""model.onnx: the scores of torch for every family of networks, and refusal of every file that is not ours."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from safetensors.torch import load_file, save_file

import distilmos
from distilmos.cli import main
from distilmos.data.schema import Scale
from distilmos.errors import InputError
from distilmos.model import onnx_export
from distilmos.model.config import ModelConfig
from distilmos.model.networks import build_model
from distilmos.model.package import save_model_dir
from distilmos.ssl.config import EncoderConfig, WaveformConfig, WhisperConfig

SMALL = WaveformConfig(
    conv_layers=((32, 10, 5), *[(32, 3, 2)] * 4, *[(32, 2, 2)] * 2),
    conv_bias=False,
    conv_norm="group",
    embed_dim=48,
    ffn_dim=64,
    num_heads=4,
    num_layers=3,
    pos_kernel=16,
    pos_groups=4,
    norm_first=False,
    normalize_input=False,
)


def changed(**values: object) -> WaveformConfig:
    return WaveformConfig(**{**SMALL.__dict__, **values})


LARGE = changed(conv_norm="layer", conv_bias=True, norm_first=True, normalize_input=True)
WAVLM = changed(relative_buckets=32, relative_distance=80, relative_gate=True)
WHISPER = WhisperConfig(48, 64, 4, 3, max_frames=200)
PADDED = WhisperConfig(48, 64, 4, 3, max_frames=200, padded=True)
NETWORKS: dict[str, tuple[EncoderConfig, ModelConfig]] = {
    "hubert": (SMALL, ModelConfig(hidden_dim=16)),
    "wav2vec 2.0, large": (LARGE, ModelConfig(hidden_dim=16, strides=(2, 1, 3), target_layers=(2,))),
    "wavlm": (WAVLM, ModelConfig(hidden_dim=16, spectral_dim=8)),
    "whisper": (WHISPER, ModelConfig(hidden_dim=16, normalize_level=True)),
    "whisper, padded": (PADDED, ModelConfig(model="sslmos")),
    "sslmos": (SMALL, ModelConfig(model="sslmos", spectral_dim=8)),
    "statistics": (WAVLM, ModelConfig(hidden_dim=16, head="statistics", distillation="features")),
    "spectral": (SMALL, ModelConfig(model="spectral", spectral_dim=8)),
}


def save(directory: Path, encoder: EncoderConfig, config: ModelConfig, **more: object) -> None:
    """Save a network whose norms, layer weights and relative positions are not those of the start."""
    torch.manual_seed(0)
    model = build_model(config, encoder, 10, **more)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and "mel" not in name:
            tensor.add_(0.05 * torch.rand_like(tensor))
        if name.endswith(("linear.weight", "mean.weight", "deviation.weight")):
            tensor.mul_(0.1)  # scores of the size of a MOS
    if model.spectral is not None:  # its inputs are far from the start values of its norms
        for module in model.spectral.modules():
            module.momentum = 1
        model.train()(0.1 * torch.randn(4, 16000), torch.full((4,), 16000))
    if config.head == "statistics":
        model.novelty_limit = 1e-3
    save_model_dir(directory, model.eval())


def speech(size: int) -> np.ndarray:
    """Noise whose level changes, with digital silence in it."""
    random = np.random.default_rng(size)
    level = np.repeat(10.0 ** random.uniform(-3, -0.5, size // 4000 + 1), 4000)[:size]
    samples = (level * random.standard_normal(size)).astype(np.float32)
    samples[size // 2 : size // 2 + size // 8] = 0
    return samples


def require_equal(directory: Path, **options: object) -> None:
    waves = [speech(size) for size in (400, 719, 720, 5000, 16000, 16001, 50000)]
    scores = [
        distilmos.load(directory, runtime=runtime, device="cpu", window_seconds=1.0, **options).predict(waves, 16000)
        for runtime in ("onnx", "torch")
    ]
    for found, expected in zip(*scores, strict=True):
        assert found.frame_mos.shape == expected.frame_mos.shape
        assert found.scores == pytest.approx(expected.scores, abs=1e-4)
        assert found.novelty == pytest.approx(expected.novelty, rel=1e-4, nan_ok=True)
        assert (found.seconds, found.model, found.scale) == (expected.seconds, expected.model, expected.scale)
    assert len({round(score.mos, 3) for score in scores[0]}) > 3  # the scores differ at all


@pytest.mark.parametrize("name", NETWORKS)
def test_both_runtimes_agree(tmp_path, name):
    """Also in windows, and for recordings of a single frame."""
    save(tmp_path / "m", *NETWORKS[name])
    assert main(["export", "--onnx", str(tmp_path / "m")]) == 0
    require_equal(tmp_path / "m")


def test_weights_of_half_precision_and_several_outputs_and_corpora(tmp_path):
    torch.manual_seed(0)
    scales = (Scale(0.0, 10.0, "fluency"), Scale(0.0, 100.0, "accuracy"))
    model = build_model(ModelConfig(hidden_dim=16), WHISPER, 10, corpora=("a", "b"), scales=scales).half()
    model.corpus_offsets.values.data = torch.tensor([0.5, -0.25])
    save_model_dir(tmp_path / "m", model)
    assert main(["export", "--onnx", str(tmp_path / "m")]) == 0
    require_equal(tmp_path / "m")
    require_equal(tmp_path / "m", corpus="b", scale=(-1.0, 1.0))
    with pytest.raises(InputError, match=r"'c'.*a, b"):
        distilmos.load(tmp_path / "m", runtime="onnx", corpus="c").predict(speech(16000), 16000)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    directory = tmp_path_factory.mktemp("exported") / "m"
    save(directory, SMALL, ModelConfig(model="sslmos"))
    assert main(["export", "--onnx", str(directory)]) == 0
    return directory


@pytest.fixture
def model_dir(tmp_path, exported):
    return Path(shutil.copytree(exported, tmp_path / "m"))


def test_the_graph_holds_no_weights_and_says_what_it_is(model_dir):
    graph = onnx.load(model_dir / "model.onnx", load_external_data=False)
    assert {tensor.data_location for tensor in graph.graph.initializer} == {TensorProto.EXTERNAL}
    (entry,) = graph.metadata_props
    about = json.loads(entry.value)
    assert (entry.key, about["format"], about["sampling_rate"]) == ("distilmos", 1, 16000)
    assert about["model"]["name"] == "m"
    assert about["model"]["scales"] == [{"lowest": 1.0, "highest": 5.0, "name": "MOS"}]
    onnx.checker.check_model(model_dir / "model.onnx", full_check=True)


def test_a_graph_with_other_scores_is_not_written(model_dir, monkeypatch, capsys):
    (model_dir / "model.onnx").unlink()
    monkeypatch.setattr(onnx_export, "TOLERANCE", -1.0)
    assert main(["export", "--onnx", str(model_dir)]) == 1
    assert f"{model_dir}/model.onnx: " in capsys.readouterr().err
    assert sorted(path.name for path in model_dir.iterdir()) == ["config.yaml", "model.safetensors"]


def test_new_weights_remove_the_graph_of_the_old_ones(model_dir):
    save(model_dir, SMALL, ModelConfig(model="sslmos"))
    assert not (model_dir / "model.onnx").exists()


def rewrite(path: Path, change) -> None:
    """Change the metadata of a graph; None removes it."""
    graph = onnx.load(path, load_external_data=False)
    values = change(json.loads(graph.metadata_props[0].value))
    del graph.metadata_props[:]
    if values is not None:
        helper.set_model_props(graph, {"distilmos": json.dumps(values)})
    path.write_bytes(graph.SerializeToString())


def foreign(path: Path) -> None:
    """A valid graph, of something else."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "other", ends[:1], ends[1:])
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )


FAULTS = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not a graph"),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:3000]),
    "another graph": foreign,
    "no metadata": lambda path: rewrite(path, lambda values: None),
    "metadata of another type": lambda path: rewrite(path, lambda values: [values]),
    "a value of another type": lambda path: rewrite(
        path, lambda values: values | {"model": values["model"] | {"hop": "x"}}
    ),
    "a scale that is none": lambda path: rewrite(
        path, lambda values: values | {"model": values["model"] | {"scales": [[5, 1, "MOS"]]}}
    ),
    "no hop": lambda path: rewrite(path, lambda values: values | {"model": values["model"] | {"hop": 0}}),
    "no scale": lambda path: rewrite(path, lambda values: values | {"model": values["model"] | {"scales": []}}),
    "another sampling rate": lambda path: rewrite(path, lambda values: values | {"sampling_rate": 8000}),
    "a newer version": lambda path: rewrite(path, lambda values: values | {"format": 2, "new": 1}),
    "missing": Path.unlink,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_files_are_named(model_dir, fault, tmp_path, capsys):
    FAULTS[fault](model_dir / "model.onnx")
    with pytest.raises(InputError, match=r"m/model\.onnx: "):
        distilmos.load(model_dir, runtime="onnx").predict(speech(16000), 16000)
    (tmp_path / "x.wav").touch()
    assert main(["predict", str(tmp_path / "x.wav"), "--model", str(model_dir), "--runtime", "onnx"]) == 2
    said = capsys.readouterr().err
    assert f"{model_dir}/model.onnx: " in said
    if fault == "missing":
        assert f"distilmos export --onnx {model_dir}" in said


def test_other_weights_than_those_of_the_graph_are_refused(model_dir, tmp_path, capsys):
    """With the same names and shapes, too; and the message has the command that helps."""
    save(tmp_path / "other", LARGE, ModelConfig(model="sslmos"))
    for change in (
        lambda path: path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0"),
        lambda path: shutil.copy(tmp_path / "other" / path.name, path),
        Path.unlink,
    ):
        change(model_dir / "model.safetensors")
        with pytest.raises(InputError, match=r"model\.safetensors"):
            distilmos.load(model_dir, device="cpu")


def test_what_onnx_cannot_do_and_what_there_is_not(model_dir, tmp_path, capsys):
    (tmp_path / "x.wav").touch()
    assert main(["predict", str(tmp_path / "x.wav"), "--runtime", "onnx", "--device", "cuda"]) == 2
    assert "'cuda'" in capsys.readouterr().err
    with pytest.raises(InputError, match="'tensorrt'"):
        distilmos.load(model_dir, runtime="tensorrt")
    assert main(["export", "--onnx", str(tmp_path)]) == 2
    assert f"{tmp_path}/config.yaml" in capsys.readouterr().err
    assert main(["export", str(model_dir)]) == 2
    assert main(["export", str(model_dir), "--onnx", "--half"]) == 2


def test_an_encoder_that_reads_less_than_the_example(tmp_path):
    """And weights of a type that ONNX is not given."""
    encoder = WhisperConfig(16, 16, 2, 1, mel_bins=20, max_frames=30, padded=True)
    save(tmp_path / "m", encoder, ModelConfig(model="sslmos"))
    assert main(["export", "--onnx", str(tmp_path / "m")]) == 0
    waves = [speech(size) for size in (400, 5000, 9759)]
    found, expected = (
        distilmos.load(tmp_path / "m", runtime=runtime, device="cpu", window_seconds=0.5).predict(waves, 16000)
        for runtime in ("onnx", "torch")
    )
    assert [score.mos for score in found] == pytest.approx([score.mos for score in expected], abs=1e-4)
    path = tmp_path / "m" / "model.safetensors"
    save_file({name: tensor.bfloat16() for name, tensor in load_file(path).items()}, path)
    assert main(["export", "--onnx", str(tmp_path / "m")]) == 2
