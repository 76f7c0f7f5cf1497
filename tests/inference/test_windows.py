"""Long recordings are cut as documented, independently of the parts they are read in, and scored in bounded memory."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

from distilmos.data.recordings import Recording
from distilmos.inference.predict import PredictOptions, predict
from distilmos.inference.torch_runtime import TorchRuntime
from distilmos.inference.windows import Windows, join_frames
from distilmos.model.config import ModelConfig
from distilmos.model.networks import MOSNetwork, build_model
from distilmos.model.package import save_model_dir
from distilmos.ssl.load import load_ssl


def test_windows_cover_a_recording_once_for_any_parts_it_is_read_in():
    random = np.random.default_rng(0)
    for _ in range(500):
        hop = int(random.integers(1, 6))
        windows = Windows(hop, int(random.integers(6 * hop, 60)))
        samples = np.arange(random.integers(1, 400), dtype=np.float32)
        cuts = np.sort(random.integers(0, samples.size + 1, size=random.integers(0, 8)))
        found = list(windows.cut(np.split(samples, cuts)))
        whole = list(windows.cut([samples]))
        assert [first for first, _ in found] == [first for first, _ in whole]
        assert all(np.array_equal(one, other) for (_, one), (_, other) in zip(found, whole, strict=True))
        assert (len(whole) == 1) == (samples.size <= windows.length) or samples.size < windows.length + hop
        # With one frame per hop, joining the windows gives every frame of the recording once.
        joined = join_frames([(first, window[::hop]) for first, window in whole])
        assert np.array_equal(joined, samples[::hop])


def model_with(**settings: object) -> MOSNetwork:
    torch.manual_seed(0)
    return build_model(ModelConfig(hidden_dim=16, **settings), load_ssl("hubert_tiny"), 10).eval()


@pytest.mark.parametrize("strides", [(1, 1, 1), (2, 1, 2)])
def test_windows_follow_the_documented_rule(tmp_path, strides):
    """Windows start two thirds of their length apart, the last one ends with the recording; overlaps are halved."""
    model = model_with(strides=strides)
    random = np.random.default_rng(0)
    length, size = 3 * 16000, 10 * 16000 + 777
    samples = (0.1 * random.standard_normal(size)).astype(np.float32)
    soundfile.write(tmp_path / "long.wav", samples, 16000, subtype="FLOAT")
    options = PredictOptions(window_seconds=3.0, batch_seconds=6.0)
    (score,) = predict(TorchRuntime(model, torch.device("cpu")), [Recording("long", tmp_path / "long.wav")], options)
    hop = 320 * int(np.prod(strides))
    step = 32000 // hop * hop
    last = (size - length) // hop * hop
    starts = [*range(0, last, step), last]
    pieces = []
    for start in starts:
        part = torch.from_numpy(samples[start : start + length if start != last else size])
        with torch.no_grad():
            pieces.append(model(part[None], torch.tensor([len(part)])).frame_mos[0].numpy())
    frames = -(-model.encoder_config.num_frames(size) // int(np.prod(strides)))
    expected = np.zeros(frames)
    for number, (start, piece) in enumerate(zip(starts, pieces, strict=True)):
        first = start // hop
        begin = first
        if number:  # the second half of the overlap with the last window
            begin = (first + starts[number - 1] // hop + len(pieces[number - 1])) // 2
        expected[begin : first + len(piece)] = piece[begin - first :]
    np.testing.assert_allclose(score.frame_mos, expected, atol=1e-4)
    assert score.mos == pytest.approx(expected.mean(), abs=1e-4)
    assert score.seconds == pytest.approx(size / 16000)
    assert score.frame_seconds == hop / 16000


MEASURED = """
import resource, sys
from distilmos.cli import main
status = main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
sys.exit(status)
"""


def peak_megabytes(tmp_path, seconds: int, files: int) -> float:
    """Peak memory in MB of a process that predicts `files` recordings of `seconds` each."""
    directory = tmp_path / f"in{seconds}x{files}"
    directory.mkdir()
    with soundfile.SoundFile(directory / "0.flac", "w", 8000, 1) as sound:
        for _ in range(seconds):
            sound.write(0.1 * np.random.default_rng(0).standard_normal(8000))
    for number in range(1, files):
        (directory / f"{number}.flac").symlink_to("0.flac")
    options = ["--out", str(tmp_path / "o.csv"), "--window", "4", "--batch-seconds", "4", "--workers", "1"]
    command = [sys.executable, "-c", MEASURED, "predict", str(directory), "--model", str(tmp_path / "model"), *options]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.splitlines()[-1]) / 1024


@pytest.mark.slow
def test_memory_does_not_grow_with_length_or_number_of_recordings(tmp_path):
    save_model_dir(tmp_path / "model", model_with())
    small = peak_megabytes(tmp_path, 40, 1)
    assert peak_megabytes(tmp_path, 900, 1) < small + 40  # all of its samples would be 55 MB, its layers 2 GB
    assert peak_megabytes(tmp_path, 1, 900) < small + 40
