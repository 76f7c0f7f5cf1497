"""Prediction from Python: every kind of input has the scores of the command."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

import distilmos
from distilmos.errors import InputError
from distilmos.inference.frames import plot_frames


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
    for order in "<>":
        for dtype in (np.int16, np.int32, np.float32):
            scaled = batch.astype(dtype) * {np.int16: 1, np.int32: 65536, np.float32: 1 / 32768}[dtype]
            given = scaled.astype(np.dtype(dtype).newbyteorder(order))
            assert [score.mos for score in predictor.predict(given, 16000)] == pytest.approx(alone, abs=1e-4)
    lengths = [row[: 8000 + 2000 * number] for number, row in enumerate(batch)]
    scores = predictor.predict(lengths, 16000)
    assert [score.seconds for score in scores] == [0.5, 0.625, 0.75]
    assert [score.frame_mos.size for score in scores] == [24, 31, 37]
    for score in scores:
        assert score.mos == pytest.approx(float(score.frame_mos.mean()), abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_tensors_of_every_floating_point_type(predictor, waveforms, dtype):
    samples, rate = waveforms[0]
    given = torch.from_numpy(samples[:, 0]).to(dtype).requires_grad_()
    rounded = given.detach().double().numpy()
    assert predictor.predict(given, rate).mos == pytest.approx(predictor.predict(rounded, rate).mos, abs=1e-5)
    (batched,) = predictor.predict(given[None], rate)
    assert batched.mos == pytest.approx(predictor.predict(rounded, rate).mos, abs=1e-5)


class Decoder:
    """The interface of torchcodec's AudioDecoder that Hugging Face datasets give."""

    def __init__(self, samples: np.ndarray, rate: int) -> None:
        self.samples = SimpleNamespace(data=torch.from_numpy(samples.T), sample_rate=rate)

    def get_all_samples(self) -> SimpleNamespace:
        return self.samples


def test_hugging_face_items_and_open_files_have_the_score_of_the_path(predictor, wavs, waveforms, tmp_path):
    """Also in a list of all kinds, where each recording keeps its place."""
    given, expected = [], []
    for path, (samples, rate) in zip(wavs, waveforms, strict=True):
        mos = predictor.predict(path).mos
        mono = samples.mean(axis=1)
        kept = io.BytesIO(path.read_bytes())
        kept.seek(0, os.SEEK_END)  # as after writing
        kinds = [
            kept,
            io.BytesIO(path.read_bytes()),
            {"path": str(path), "array": mono, "sampling_rate": rate},
            {"array": torch.from_numpy(mono).double(), "sampling_rate": torch.tensor(rate)},
            Decoder(samples, rate),
        ]
        for item in kinds:
            assert predictor.predict(item).mos == pytest.approx(mos, abs=1e-4)
        with path.open("rb") as stream:
            assert predictor.predict(stream).mos == pytest.approx(mos, abs=1e-4)
        given += [*kinds, kept, path, str(path)]
        expected += [mos] * 8
    given.append(waveforms[0][0][:, 0])
    expected.append(expected[0])
    scores = predictor.predict(given, waveforms[0][1])
    assert [score.mos for score in scores] == pytest.approx(expected, abs=1e-4)
    assert [scores[0].utterance, scores[6].utterance, scores[10].utterance] == ["0", str(wavs[0]), "10"]
    assert [score.mos for score in predictor.predict(tuple(given), waveforms[0][1])] == pytest.approx(
        expected, abs=1e-4
    )


def test_hugging_face_items_that_are_not_decoded(predictor, wavs):
    paths = [predictor.predict(path).mos for path in wavs]
    items = [
        {"bytes": wavs[0].read_bytes(), "path": "in/the/archive.wav"},
        {"bytes": None, "path": str(wavs[1])},
        {"bytes": wavs[2].read_bytes(), "path": None},
    ]
    assert [score.mos for score in predictor.predict(items)] == pytest.approx(paths, abs=1e-4)
    assert predictor.predict(items[0]).mos == pytest.approx(paths[0], abs=1e-4)


def test_a_file_object_that_cannot_be_rewound(predictor, wavs):
    with subprocess.Popen(["cat", wavs[1]], stdout=subprocess.PIPE) as process:
        assert predictor.predict(process.stdout).mos == pytest.approx(predictor.predict(wavs[1]).mos, abs=1e-4)


def test_bad_audio_in_an_open_file(predictor, wavs):
    """Alone it raises, in a list its score has the error; messages name its number, not a temporary file."""
    with pytest.raises(InputError, match=r"^0: "):
        predictor.predict(io.BytesIO(b"not audio"))
    good, bad = predictor.predict([wavs[0], io.BytesIO(b"")])
    assert (good.error, bad.error.partition(":")[0]) == ("", "1")


def test_a_list_with_a_column_of_paths(predictor, wavs, tmp_path):
    (tmp_path / "l.csv").write_text("file\nu1.wav\n")
    assert [score.recording.path for score in predictor.stream(tmp_path / "l.csv", column="file")] == [wavs[1]]


def test_threads_share_a_predictor(predictor, wavs):
    expected = [predictor.predict(path).mos for path in wavs]
    with ThreadPoolExecutor(4) as executor:
        found = list(executor.map(lambda path: predictor.predict(path).mos, wavs * 5))
    assert found == pytest.approx(expected * 5, abs=1e-4)


def test_unusable_input_is_named_with_its_value(predictor, wavs, tmp_path):
    (tmp_path / "x.wav").write_text("not audio")
    good = np.zeros(16000, np.float32)
    for arguments, value in (
        ((tmp_path / "x.wav",), r"x\.wav"),
        ((tmp_path / "none.wav",), r"none\.wav"),
        ((good,), "sampling_rate"),
        ((good, 16000.5), r"sampling_rate.*16000\.5"),
        ((good, "16000"), "sampling_rate.*'16000'"),
        ((good, 0), "sampling_rate.* 0 Hz.*1000.*768000"),
        ((good[:300], 16000), r"waveform 0: 18\.8 ms.*25\.0 ms"),
        ((good * np.nan, 16000), "waveform 0.*finite"),
        (([good, np.full(16000, 1e300)], 16000), "waveform 1.*finite"),
        ((np.stack([good, good], axis=1), 16000), r"\(16000, 2\)"),
        ((good.astype(complex), 16000), "waveform 0.*complex128"),
        ((good[None, None], 16000), r"waveform 0.*\(1, 1, 16000\)"),
        ((torch.from_numpy(good)[None, None].bfloat16(), 16000), r"waveform 0.*\(1, 1, 16000\)"),
        ((good.astype(np.int64), 16000), "waveform 0.*int64"),
        ((good.astype(np.uint8), 16000), "waveform 0.*uint8"),
        ((torch.zeros(16000, dtype=torch.int64), 16000), "waveform 0.*int64"),
        ((torch.zeros(16000, device="meta"), 16000), "waveform 0.*meta"),
        ((torch.zeros(16000).to_sparse(), 16000), "waveform 0.*float32"),
        ((None,), "NoneType"),
        ((b"RIFF",), "bytes.*BytesIO"),
        (([wavs[0], bytearray(b"RIFF")],), "1: bytearray.*BytesIO"),
        ((3.5,), "float"),
        (([wavs[0], good],), "sampling_rate"),
        (([wavs[0], None],), "1: NoneType"),
        (([[wavs[0]]],), "0: list"),
        (({},), "waveform 0.*array.*sampling_rate"),
        (({"audio": good, "rate": 16000},), "waveform 0.*array.*sampling_rate.*audio, rate"),
        (({"array": good},), "waveform 0.*sampling_rate"),
        (({"array": "x", "sampling_rate": 16000},), "waveform 0.*str"),
        (({"array": good, "sampling_rate": "16000"},), "sampling_rate.*'16000'"),
        ((io.StringIO("text"),), "file 0"),
        (({"bytes": b"no audio", "path": str(wavs[0])},), "^0: "),
        (({"bytes": "text", "path": None},), "waveform 0.*str"),
        (({"bytes": None, "path": "none.wav"},), r"^none\.wav: "),
        (({"bytes": None, "path": 3},), "waveform 0.*int"),
        (({"bytes": None, "path": None},), "waveform 0.*array.*bytes, path"),
    ):
        with pytest.raises(InputError, match=value):
            predictor.predict(*arguments)


def test_an_unusable_file_among_several_has_an_error(predictor, wavs, tmp_path):
    (tmp_path / "x.wav").write_text("not audio")
    bad, good = predictor.predict([tmp_path / "x.wav", wavs[0]])
    assert str(tmp_path / "x.wav") in bad.error
    assert np.isnan(bad.mos)
    assert (good.error, np.isfinite(good.mos)) == ("", True)
    (tmp_path / "empty.txt").write_text("")
    assert predictor.predict(tmp_path / "empty.txt") == []


def test_a_score_carries_its_recording(predictor, wavs, waveforms, tmp_path):
    (tmp_path / "x.wav").write_text("not audio")
    paths = [wavs[1], tmp_path / "x.wav", wavs[0]]
    scores = list(predictor.stream(paths))
    assert [score.recording.path for score in scores] == paths
    assert "Recording" not in repr(scores[0]) and str(wavs[1]) in repr(scores[0])
    samples, rate = waveforms[0]
    score = predictor.predict(samples[:, 0], rate)
    assert score.recording is None
    with pytest.raises(ValueError, match=score.utterance):
        plot_frames(score)


def test_unusable_models_and_options_are_named(model_dir):
    with pytest.raises(InputError, match=r"^nobody: "):
        distilmos.load("nobody")
    for option, value in {"workers": 0, "window_seconds": np.inf, "batch_seconds": "60", "corpus": 3}.items():
        with pytest.raises(InputError, match=f"^{option} {value!r} "):
            distilmos.load(model_dir, **{option: value})
    with pytest.raises(InputError, match="speed"):
        distilmos.load(model_dir, speed=3)


def test_importing_the_package_imports_neither_torch_nor_numpy():
    code = "import sys, distilmos; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_torch_hub(wavs, model_dir):
    """A local checkout stands for the one that torch.hub fetches."""
    repository = Path(__file__).resolve().parents[2]
    predictor = torch.hub.load(str(repository), "distilmos", model_dir, source="local", device="cpu")
    assert predictor.predict(wavs[0]).mos == pytest.approx(distilmos.load(model_dir).predict(wavs[0]).mos)


@pytest.mark.parametrize(
    ("script", "visible", "runtime"),
    [("exit 9", None, "Onnx"), ("echo GPU 0", "", "Onnx"), ("echo GPU 0", None, "Torch")],
)
def test_a_gpu_that_can_be_used_chooses_torch(script, visible, runtime, tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert type(distilmos.load().runtime).__name__ == f"{runtime}Runtime"
