"""Prediction of recordings with a model directory, and export of a model."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from helpers.pages import tables
from safetensors.torch import load_file, save_file

import distilmos
from distilmos.cli import main
from distilmos.data.datadir import Utterance, write_data_dir
from distilmos.data.recordings import Recording, find_recordings
from distilmos.data.tables import read_floats
from distilmos.errors import PREEMPTED, InputError
from distilmos.inference.frames import FFT, FLOOR, HOP, MAX_COLUMNS, spectrogram
from distilmos.inference.predict import PredictOptions, score_audio
from distilmos.inference.predict import predict as predict_recordings
from distilmos.inference.torch_runtime import TorchRuntime
from distilmos.model.config import ModelConfig
from distilmos.model.networks import build_model
from distilmos.model.package import load_model_dir, save_model_dir
from distilmos.ssl.config import WaveformConfig
from distilmos.ssl.waveform import WaveformEncoder


def test_data_directory_scp_and_files_give_the_same_scores(tmp_path, model_dir, wavs):
    write_data_dir(tmp_path / "data", [Utterance(path.stem, path, "s") for path in wavs])
    inputs = {"data": [tmp_path / "data"], "scp": [tmp_path / "data" / "wav.scp"], "files": wavs}
    found = {}
    for name, paths in inputs.items():
        out = tmp_path / f"{name}.utt2mos"
        assert main(["predict", *map(str, paths), "--model", str(model_dir), "--out", str(out)]) == 0
        found[name] = read_floats(out)
    assert list(found["data"]) == ["u0", "u1", "u2"]
    assert found["scp"] == found["data"]
    assert list(found["files"]) == [str(path) for path in wavs]
    assert list(found["files"].values()) == pytest.approx(list(found["data"].values()), abs=1e-4)


def predict(*arguments: object) -> int:
    return main(["predict", *map(str, arguments)])


def wait_for_lines(journal: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= count) and time.monotonic() < deadline:
        time.sleep(0.005)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_prediction_leaves_the_number_of_threads_unchanged(model_dir, wavs):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        distilmos.load(model_dir).predict(wavs)
        seen = []
        thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert [torch.get_num_threads(), *seen] == [3, 3]
    finally:
        torch.set_num_threads(before)


def test_a_score_does_not_depend_on_order_batch_or_number_of_threads(tmp_path, model_dir, wavs):
    alone = {}
    for path in wavs:
        assert predict(path, "--model", model_dir, "--out", tmp_path / "o.jsonl") == 0
        alone[str(path)] = json.loads((tmp_path / "o.jsonl").read_text())["mos"]
    for order, *options in (
        (wavs, "--batch-seconds", "0.5"),
        (wavs[::-1], "--batch-seconds", "100", "--workers", "1"),
        (wavs[1:] + wavs[:1], "--workers", "5"),
    ):
        assert predict(*order, "--model", model_dir, "--out", tmp_path / "o.jsonl", *options) == 0
        found = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
        assert [entry["utterance"] for entry in found] == [str(path) for path in order]
        assert {entry["utterance"]: entry["mos"] for entry in found} == pytest.approx(alone, abs=1e-4)


def test_every_container_and_every_kind_of_input(tmp_path, model_dir):
    """A directory is searched with its subdirectories, in order of names; other files in it are ignored."""
    times = np.arange(16000) / 16000
    tone = 0.3 * np.sin(2 * np.pi * 440 * times)
    (tmp_path / "in" / "sub").mkdir(parents=True)
    formats = {"a.wav": {}, "b.flac": {}, "c.ogg": {}, "sub/d.MP3": {"format": "MP3"}, "sub/e.opus": {"format": "OGG"}}
    for name, options in formats.items():
        extra = {"subtype": "OPUS"} if name.endswith("opus") else {}
        soundfile.write(tmp_path / "in" / name, tone, 16000, **options, **extra)
    (tmp_path / "in" / "notes.md").write_text("not audio")
    (tmp_path / "in" / ".hidden.wav").write_text("not audio")
    assert predict(tmp_path / "in", "--model", model_dir, "--out", tmp_path / "o.csv") == 0
    rows = read_csv(tmp_path / "o.csv")
    assert [row["utterance"] for row in rows] == [str(tmp_path / "in" / name) for name in formats]
    assert [float(row["seconds"]) for row in rows] == pytest.approx([1.0] * 5, abs=0.1)
    scores = [float(row["mos"]) for row in rows]
    assert scores == pytest.approx([scores[0]] * 5, abs=0.3)  # lossy formats differ a little
    (tmp_path / "list.txt").write_text("\n")
    assert predict(tmp_path / "list.txt", "--model", model_dir, "--out", tmp_path / "l.csv") == 0
    assert read_csv(tmp_path / "l.csv") == []
    (tmp_path / "LIST.TXT").write_text(f"{tmp_path}/in/b.flac\n\n{tmp_path}/in/a.wav\n")
    assert predict(tmp_path / "LIST.TXT", "--model", model_dir, "--out", tmp_path / "l.csv") == 0
    assert read_csv(tmp_path / "l.csv") == [rows[1], rows[0]]


def test_unusable_recordings_are_in_the_output_and_the_rest_is_scored(tmp_path, model_dir, wavs, capsys):
    (tmp_path / "x.wav").write_text("not audio")
    soundfile.write(tmp_path / "short.wav", np.zeros(300), 16000)
    soundfile.write(tmp_path / "nan.wav", np.full(16000, np.nan), 16000, subtype="FLOAT")
    (tmp_path / "list.txt").write_text(f"\n{tmp_path}/none.wav\n")
    (tmp_path / "wav.scp").write_text(f"u {tmp_path}/gone.wav\n")
    inputs = [tmp_path / "x.wav", wavs[0], tmp_path / "short.wav", tmp_path / "nan.wav"]
    inputs += [tmp_path / "list.txt", tmp_path / "wav.scp", wavs[1]]
    assert predict(*inputs, "--model", model_dir, "--out", tmp_path / "o.csv") == 1
    said = capsys.readouterr().err
    rows = read_csv(tmp_path / "o.csv")
    assert [bool(row["mos"]) for row in rows] == [False, True, False, False, False, False, True]
    listed = f"{tmp_path}/list.txt:2: {tmp_path}/none.wav: "
    in_scp = f"{tmp_path}/wav.scp:1: u: {tmp_path}/gone.wav: "
    for row, value in {0: "x.wav", 2: "18.8 ms", 3: "nan.wav", 4: listed, 5: in_scp}.items():
        assert value in rows[row]["error"]
        assert rows[row]["error"] in said
    assert "5 recordings" in said.splitlines()[-1]
    assert predict(*inputs, "--model", model_dir, "--out", tmp_path / "utt2mos") == 1
    assert list(read_floats(tmp_path / "utt2mos")) == [str(wavs[0]), str(wavs[1])]
    assert [path.name for path in tmp_path.glob("*.partial")] == []


def test_a_front_end_with_frames_longer_than_25_ms(tmp_path, wavs):
    shapes = ((8, 10, 5), *[(8, 3, 2)] * 4, *[(8, 2, 2)] * 3)
    config = WaveformConfig(shapes, False, "group", 8, 8, 2, 1, 4, 2, norm_first=False, normalize_input=False)
    assert [config.num_frames(samples) for samples in (719, 720)] == [0, 1]
    assert config.min_samples == 720
    save_model_dir(tmp_path / "m", build_model(ModelConfig(hidden_dim=8), WaveformEncoder(config), 4))
    for samples in (719, 720):
        soundfile.write(tmp_path / f"{samples}.wav", 0.1 * np.random.default_rng(0).standard_normal(samples), 16000)
    inputs = (tmp_path / "719.wav", wavs[0], tmp_path / "720.wav")
    assert predict(*inputs, "--model", tmp_path / "m", "--out", tmp_path / "o.csv") == 1
    rows = read_csv(tmp_path / "o.csv")
    assert rows[0]["error"].startswith(f"{tmp_path}/719.wav: ")
    assert "44.9 ms" in rows[0]["error"] and "45.0 ms" in rows[0]["error"]
    assert [bool(row["mos"]) for row in rows] == [False, True, True]


def test_a_score_that_is_not_finite_is_an_error(tmp_path, model_dir, wavs):
    model = load_model_dir(model_dir)
    list(model.parameters())[-1].data.fill_(float("nan"))
    save_model_dir(tmp_path / "m", model)
    assert predict(wavs[0], "--model", tmp_path / "m", "--out", tmp_path / "o.jsonl") == 1
    values = json.loads((tmp_path / "o.jsonl").read_text())
    assert values["mos"] is None
    assert values["error"].startswith(f"{wavs[0]}: ")
    with pytest.raises(InputError, match=r"^0: .*finite"):
        distilmos.load(tmp_path / "m").predict(np.zeros(16000), 16000)


def test_any_exception_in_one_recording_leaves_the_others_scored(model_dir):
    """Such as a library's bug or a lack of memory, in the first window or in a later one."""

    def faulty(seconds: int, error: Exception) -> Iterator[np.ndarray]:
        yield from [np.zeros(16000, np.float32)] * seconds
        raise error

    good = [np.zeros(16000, np.float32)]
    inputs = [("a", good), ("b", faulty(0, MemoryError())), ("c", faulty(3, RuntimeError("odd"))), ("d", good)]
    options = PredictOptions(window_seconds=1.0)
    a, b, c, d = score_audio(TorchRuntime(load_model_dir(model_dir), torch.device("cpu")), inputs, options)
    assert a.mos == pytest.approx(d.mos, abs=1e-4)
    assert b.error.startswith("b: ") and b.error.endswith("MemoryError")
    assert c.error.startswith("c: ") and c.error.endswith("odd")


def test_errors_do_not_wait_for_the_end(model_dir, tmp_path):
    soundfile.write(tmp_path / "good.wav", 0.1 * np.sin(np.arange(8000)), 16000)
    taken = []

    def recordings() -> Iterator[Recording]:
        for number in range(5000):
            taken.append(number)
            path = tmp_path / (f"missing{number}.wav" if number else "good.wav")
            yield Recording(str(path), path)

    scores = predict_recordings(TorchRuntime(load_model_dir(model_dir), torch.device("cpu")), recordings())
    assert not next(scores).error
    assert len(taken) < 1000


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Drop root's privileges, so that file permissions apply."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)


def test_directories_with_cyclic_links_pipes_and_unreadable_parts(tmp_path, wavs, monkeypatch, request):
    root = tmp_path / "in"
    (root / "locked").mkdir(parents=True)
    (root / "sub").mkdir()
    wavs[0].rename(root / "a.wav")
    wavs[1].rename(root / "sub" / "b.wav")
    (root / "sub" / "up").symlink_to("..")
    (root / "same").symlink_to("sub")
    os.mkfifo(root / "pipe.wav")
    (root / "none.wav").symlink_to("nowhere")
    (root / "locked").chmod(0)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    request.getfixturevalue("unprivileged")
    found = list(find_recordings(["in"]))
    expected = ["in/a.wav", "in/locked", "in/none.wav", "in/same/b.wav", "in/sub/b.wav"]
    assert [recording.utterance for recording in found] == expected
    with pytest.raises(InputError, match=r"^in/locked: .*Permission denied"):
        list(found[1].stream(1.0))


def test_bad_usage_is_named_before_anything_is_written(tmp_path, model_dir, wavs, capsys):
    (tmp_path / "empty").mkdir()
    out = tmp_path / "o"
    for inputs, named in {
        (tmp_path / "none.wav",): f"{tmp_path}/none.wav: ",
        (tmp_path / "empty",): f"{tmp_path}/empty: ",
        (wavs[0], wavs[0]): f"{out}: {wavs[0]} ",
    }.items():
        assert predict(*inputs, "--model", model_dir, "--out", out) == 2
        assert named in capsys.readouterr().err
        assert list(tmp_path.glob("o*")) == []
    assert predict(wavs[0], "--model", model_dir, "--out", out, "--corpus", "none") == 2
    assert "corpus 'none'" in capsys.readouterr().err
    assert predict(wavs[0], "--model", model_dir, "--out", tmp_path / "empty") == 2
    assert f"{tmp_path}/empty: " in capsys.readouterr().err
    (tmp_path / "loop").symlink_to("loop")
    for name in ("loop", "n" * 300, f"{wavs[0].name}/o.csv"):
        assert predict(wavs[0], "--model", model_dir, "--out", tmp_path / name) == 2
        assert f"{tmp_path / name}: " in capsys.readouterr().err
    assert list(tmp_path.glob("*.partial")) == []
    assert predict(wavs[0], "--model", tmp_path) == 2
    assert f"{tmp_path}/config.yaml: " in capsys.readouterr().err


def test_names_that_a_table_cannot_hold(tmp_path, model_dir, wavs, capsys):
    odd = wavs[1].rename(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav"))
    blank = wavs[2].rename(tmp_path / "a b.wav")
    assert predict(odd, blank, "--model", model_dir, "--out", tmp_path / "o.csv") == 0
    assert [Path(row["utterance"]).name for row in read_csv(tmp_path / "o.csv")] == ["caf\\udce9.wav", "a b.wav"]
    assert predict(odd, blank, "--model", model_dir, "--out", tmp_path / "o.jsonl") == 0
    assert json.loads((tmp_path / "o.jsonl").read_text().splitlines()[0])["utterance"] == str(odd)
    bad = Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xe9.wav"))
    bad.write_text("not audio")
    assert predict(odd, bad, "--model", model_dir, "--out", tmp_path / "e.csv", "--plots", tmp_path / "p") == 1
    assert "bad\\udce9.wav: " in read_csv(tmp_path / "e.csv")[1]["error"]
    assert len(list((tmp_path / "p").rglob("caf*.png"))) == 1
    command = [sys.executable, "-m", "distilmos.cli", "predict", odd, "--model", model_dir]
    said = subprocess.run(command, capture_output=True, check=True, env=os.environ | {"PYTHONUTF8": "1"}).stdout
    assert b"caf\\udce9.wav " in said
    assert predict(odd, blank, "--model", model_dir, "--out", tmp_path / "utt2mos") == 2
    assert f"{tmp_path}/utt2mos: '{tmp_path}/caf\\udce9.wav'" in capsys.readouterr().err
    assert list(tmp_path.glob("utt2mos*")) == []


def test_a_run_that_a_table_cannot_hold_continues_in_another_format(tmp_path, model_dir, capsys):
    """The name with a blank comes after many scored recordings."""
    (tmp_path / "in").mkdir()
    for index in range(60):
        name = "zz odd" if index == 59 else f"{index:02d}"
        soundfile.write(tmp_path / "in" / f"{name}.wav", 0.1 * np.sin(np.arange(16000)), 16000)
    arguments = (tmp_path / "in", "--model", model_dir, "--batch-seconds", "1", "--workers", "1", "--out")
    assert predict(*arguments, tmp_path / "utt2mos") == 2
    said = capsys.readouterr().err
    assert f"{tmp_path}/utt2mos: '{tmp_path}/in/zz odd.wav'" in said
    assert f"{tmp_path}/utt2mos.partial" in said and "--resume" in said
    (tmp_path / "utt2mos.partial").rename(tmp_path / "o.csv.partial")
    assert predict(*arguments, tmp_path / "o.csv", "--resume") == 0
    assert len(read_csv(tmp_path / "o.csv")) == 60


@pytest.mark.parametrize("name", ["o.csv", "o.jsonl", "utt2mos"])
def test_jobs_share_the_inputs(tmp_path, model_dir, capsys, name):
    (tmp_path / "in").mkdir()
    for index in range(7):
        soundfile.write(tmp_path / "in" / f"{index}.wav", 0.1 * np.sin(np.arange(8000 + 500 * index)), 16000)
    (tmp_path / "in" / "5.wav").write_text("not audio")
    common = [str(tmp_path / "in"), "--model", str(model_dir), "--batch-seconds", "1"]
    assert main(["predict", *common, "--out", str(tmp_path / "whole" / name)]) == 1
    out = tmp_path / "shared" / name
    shards = [out.with_name(f"{name}.{number}of9") for number in range(1, 10)]  # two of nine have no recording
    arguments = ["predict", *common, "--out", str(out)]
    assert main(["predict", *common, "--out", str(tmp_path / "one" / name), "--shard", "1/1"]) == 0
    out.parent.mkdir()
    journal = out.with_name(f"{name}.partial")  # of an interrupted run without shards; joining leaves it alone
    scores = (tmp_path / "one" / f"{name}.1of1").read_bytes()
    journal.write_bytes(scores)
    for number in range(1, 9):
        assert main([*arguments, "--shard", f"{number}/9"]) == 0  # number 6 has the file that is no audio
    assert main([*arguments, "--join", "9"]) == 2
    said = capsys.readouterr().err
    assert str(shards[8]) in said and str(shards[0]) not in said
    assert main([*arguments, "--shard", "9/9", "--window", "9"]) == 0
    assert main([*arguments, "--join", "9"]) == 2
    assert f"{shards[8]}:1: " in capsys.readouterr().err
    assert main([*arguments, "--shard", "9/9"]) == 2  # it exists
    assert main([*arguments, "--shard", "9/9", "--resume"]) == 2  # with another window
    shards[8].unlink()
    assert main([*arguments, "--shard", "9/9"]) == 0
    # A shard is continued where it was interrupted, and does nothing if it is complete.
    shards[2].rename(out.with_name(f"{name}.3of9.partial"))
    assert main([*arguments, "--shard", "3/9"]) == 2
    assert main([*arguments, "--join", "9"]) == 2
    for _ in range(2):
        assert main([*arguments, "--shard", "3/9", "--resume"]) == 0
    assert all(shard.exists() for shard in shards) and not out.exists()
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "in" / "0.wav"), *arguments[2:], "--join", "9"]) == 2  # other inputs
    assert f"{shards[1]}:2: " in capsys.readouterr().err
    new = tmp_path / "in" / "7.wav"
    new.write_bytes((tmp_path / "in" / "0.wav").read_bytes())
    assert main([*arguments, "--join", "9"]) == 2
    assert str(new) in capsys.readouterr().err
    new.unlink()
    assert all(shard.exists() for shard in shards)
    assert list(out.parent.glob("*.partial")) == [journal] and journal.read_bytes() == scores
    assert main([*arguments, "--join", "9"]) == 1
    assert journal.read_bytes() == scores
    journal.unlink()
    assert out.read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert [path.name for path in out.parent.iterdir()] == [name]


def test_a_duplicate_in_another_shard_is_refused(tmp_path, model_dir, wavs, capsys):
    arguments = [wavs[0], wavs[1], wavs[1], "--model", model_dir, "--out", tmp_path / "utt2mos", "--shard", "1/2"]
    assert predict(*arguments) == 2
    assert f"{wavs[1]} is a duplicate" in capsys.readouterr().err


def test_scores_of_a_recording_that_has_changed_are_not_used(tmp_path, model_dir, wavs, capsys):
    arguments = [*wavs, "--model", model_dir, "--out", tmp_path / "o.csv"]
    for number in (1, 2):
        assert predict(*arguments, "--shard", f"{number}/2") == 0
    soundfile.write(wavs[2], 0.2 * np.sin(np.arange(9000)), 8000)
    capsys.readouterr()
    assert predict(*arguments, "--join", "2") == 2
    assert f"{tmp_path}/o.csv.1of2:3: {wavs[2]}" in capsys.readouterr().err
    assert predict(*arguments, "--shard", "1/2", "--resume") == 2
    (tmp_path / "o.csv.1of2.partial").unlink()
    assert predict(*arguments, "--shard", "1/2") == 0
    assert predict(*arguments, "--join", "2") == 0
    assert float(read_csv(tmp_path / "o.csv")[2]["seconds"]) == 1.125


def test_one_process_at_a_time_writes_a_journal(tmp_path, model_dir, wavs, capsys):
    os.mkfifo(tmp_path / "pipe")
    arguments = [*wavs, tmp_path / "pipe", "--model", model_dir, "--batch-seconds", "1", "--out", tmp_path / "o.csv"]
    command = [sys.executable, "-m", "distilmos.cli", "predict", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    journal = tmp_path / "o.csv.partial"
    wait_for_lines(journal, 3)
    assert predict(*arguments, "--resume") == 2
    assert f"{journal}: " in capsys.readouterr().err
    with (tmp_path / "pipe").open("wb") as stream:  # the first process waits for it
        stream.write(wavs[0].read_bytes())
    assert process.wait(timeout=60) == 0
    assert len(read_csv(tmp_path / "o.csv")) == 4


def test_a_signal_stops_a_run_that_can_be_continued(tmp_path, model_dir):
    (tmp_path / "in").mkdir()
    for index in range(60):
        soundfile.write(tmp_path / "in" / f"{index:02d}.wav", 0.1 * np.sin(np.arange(16000)), 16000)
    arguments = ["predict", tmp_path / "in", "--model", model_dir, "--batch-seconds", "1", "--out", tmp_path / "o.csv"]
    command = [sys.executable, "-m", "distilmos.cli", *map(str, arguments), "--resume"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    journal = tmp_path / "o.csv.partial"
    wait_for_lines(journal, 3)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=60) == PREEMPTED
    assert 2 < journal.read_bytes().count(b"\n") < 61
    assert subprocess.run(command, check=False).returncode == 0
    assert len(read_csv(tmp_path / "o.csv")) == 60


def test_paths_that_no_file_can_have_are_named(tmp_path, model_dir, wavs):
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    listed = tmp_path / "list.csv"
    listed.write_text(f"file\n{wavs[0]}\n{tmp_path}/loop.wav\na\0b.wav\n")
    assert predict(listed, "--column", "file", "--model", model_dir, "--out", tmp_path / "o.csv") == 1
    assert [bool(row["error"]) for row in read_csv(tmp_path / "o.csv")] == [False, True, True]


def test_frame_scores_of_one_recording_do_not_replace_those_of_another(tmp_path, model_dir, wavs, monkeypatch):
    (tmp_path / "here" / "_").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    Path("_/u0.wav").write_bytes(wavs[1].read_bytes())
    assert predict("../u0.wav", "_/u0.wav", "--model", model_dir, "--frames", "frames") == 2


@pytest.mark.parametrize("options", [("--shard", "0/2"), ("--shard", "3/2"), ("--shard", "1"), ("--join", "0")])
def test_shards_that_do_not_exist_are_refused(tmp_path, wavs, options):
    with pytest.raises(SystemExit) as caught:
        main(["predict", str(wavs[0]), "--out", str(tmp_path / "o.csv"), *options])
    assert caught.value.code == 2
    assert main(["predict", str(wavs[0]), "--shard", "1/2"]) == 2


def test_an_interrupted_run_continues(tmp_path, model_dir, capsys):
    generator = np.random.default_rng(1)
    (tmp_path / "in").mkdir()
    for index in range(40):
        soundfile.write(tmp_path / "in" / f"{index:02d}.wav", 0.1 * generator.standard_normal(16000), 16000)
    arguments = ["predict", tmp_path / "in", "--model", model_dir, "--batch-seconds", "1", "--out"]
    assert main([*map(str, arguments), str(tmp_path / "whole.csv")]) == 0
    partial = tmp_path / "o.csv.partial"
    command = [sys.executable, "-m", "distilmos.cli", *map(str, arguments), str(tmp_path / "o.csv")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    wait_for_lines(partial, 11)
    process.kill()
    process.wait()
    assert not (tmp_path / "o.csv").exists()
    with partial.open("ab") as stream:
        stream.write(b'{"utterance": "cut o')  # a kill in the middle of a line
    before = partial.read_bytes().count(b"\n") - 1
    assert 10 <= before < 40
    rest = [str(tmp_path / "in"), "--model", str(model_dir), "--out", str(tmp_path / "o.csv")]
    assert main(["predict", *rest]) == 2
    assert f"{partial}: " in (said := capsys.readouterr().err) and "--resume" in said
    assert main(["predict", *rest, "--resume", "--window", "9"]) == 2
    assert f"{partial}:1: " in capsys.readouterr().err
    assert main(["predict", str(tmp_path / "in" / "07.wav"), *rest[1:], "--resume"]) == 2
    assert f"{partial}:2: {tmp_path}/in/00.wav" in capsys.readouterr().err
    whole_lines = partial.read_bytes().splitlines(keepends=True)
    other = whole_lines[4].replace(b'"MOS"', b'"fluency"')
    assert other != whole_lines[4]
    partial.write_bytes(b"".join([*whole_lines[:4], other, *whole_lines[5:]]))
    assert main(["predict", *rest, "--resume"]) == 2
    assert f"{partial}:5: " in capsys.readouterr().err
    partial.write_bytes(b"".join([*whole_lines[:4], b"damaged\n", *whole_lines[5:]]))
    assert main(["predict", *rest, "--resume"]) == 2
    assert f"{partial}:5: " in capsys.readouterr().err
    partial.write_bytes(b"".join(whole_lines))
    assert main(["predict", *rest, "--resume"]) == 0
    assert not partial.exists()
    whole, resumed = read_csv(tmp_path / "whole.csv"), read_csv(tmp_path / "o.csv")
    assert [row["utterance"] for row in whole] == [row["utterance"] for row in resumed]
    scores = [[float(row["mos"]) for row in rows] for rows in (whole, resumed)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)


def test_the_spectrogram_of_a_long_recording_keeps_the_loudest_frames(tmp_path):
    samples = 0.01 * np.random.default_rng(0).standard_normal(90 * 16000).astype(np.float32)
    samples[777_777] = 1
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    found = spectrogram(Recording("a", tmp_path / "a.wav"), 90.0)
    frames = np.lib.stride_tricks.sliding_window_view(samples, FFT)[::HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(FFT))) ** 2
    groups = [part.max(axis=0) for part in np.split(power, range(5, len(power), 5))]
    wanted = 10 * np.log10(np.array(groups).T / power.max() + 10 ** (FLOOR / 10))
    assert found.shape[1] <= MAX_COLUMNS
    np.testing.assert_allclose(found, wanted, atol=0.01)


def test_frame_scores_and_their_plot(tmp_path, model_dir, wavs):
    assert predict(wavs[1], "--model", model_dir, "--out", tmp_path / "o.csv", "--frames", tmp_path / "f") == 0
    (table,) = (tmp_path / "f").rglob("*.tsv")
    assert table == tmp_path / "f" / str(wavs[1])[1:].replace("u1.wav", "u1.wav.tsv")
    header, *rows = [line.split("\t") for line in table.read_text().splitlines()]
    assert header == ["start_seconds", "mos"]
    assert [float(start) for start, _ in rows] == pytest.approx([0.02 * frame for frame in range(99)])
    mean = sum(float(mos) for _, mos in rows) / len(rows)
    assert float(read_csv(tmp_path / "o.csv")[0]["mos"]) == pytest.approx(mean, abs=1e-3)
    assert predict(wavs[1], "--model", model_dir, "--plots", tmp_path / "p") == 0
    (picture,) = (tmp_path / "p").rglob("*.png")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_file_names_of_maximum_length(tmp_path, model_dir, wavs):
    long = [wavs[1].rename(tmp_path / f"{'ä' * 125}x.wav"), wavs[2].rename(tmp_path / f"{'ä' * 125}y.wav")]
    assert {len(os.fsencode(path.name)) for path in long} == {255}
    options = ("--frames", tmp_path / "f", "--plots", tmp_path / "p")
    assert predict(*long, "--model", model_dir, "--out", tmp_path / "o.csv", *options) == 0
    for directory in ("f", "p"):
        found = [path.name for path in (tmp_path / directory).rglob("*") if path.is_file()]
        assert len(found) == 2
        assert all(name.startswith("ä" * 100) for name in found)


def test_without_out_scores_are_printed_in_the_order_of_the_inputs_with_4_decimals(tmp_path, model_dir, wavs, capsys):
    chosen = [str(wavs[1]), str(wavs[0])]
    assert main(["predict", *chosen, "--model", str(model_dir)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [name for name, _ in lines] == chosen
    assert all(len(mos.partition(".")[2]) == 4 for _, mos in lines)


def test_out_may_be_a_pipe_or_a_link(tmp_path, model_dir, wavs, capsys):
    """Standard output then holds the scores alone, and nothing is written next to it."""
    (tmp_path / "out").mkdir()
    for name, leads_to in {"l.csv": "/proc/self/fd/1", "f.csv": "file"}.items():
        (tmp_path / "out" / name).symlink_to(leads_to)
    options = [str(wavs[0]), "--model", str(model_dir)]
    command = [sys.executable, "-m", "distilmos.cli", "predict", *options, "--out"]
    done = subprocess.run([*command, str(tmp_path / "out" / "l.csv")], check=True, capture_output=True, text=True)
    assert main(["predict", *options, "--out", str(tmp_path / "out" / "f.csv")]) == 0
    assert done.stdout == (tmp_path / "out" / "file").read_text()
    assert [row["utterance"] for row in read_csv(tmp_path / "out" / "f.csv")] == [str(wavs[0])]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["f.csv", "file", "l.csv"]
    assert (tmp_path / "out" / "f.csv").is_symlink()
    capsys.readouterr()
    os.mkfifo(tmp_path / "pipe")
    assert main(["predict", *options, "--out", str(tmp_path / "pipe"), "--resume"]) == 2
    assert f"{tmp_path}/pipe: " in capsys.readouterr().err


def run_predict(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "distilmos.cli", "predict", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, **options)


def test_standard_input_and_pipes_hold_the_audio_of_one_recording(tmp_path, model_dir, wavs):
    options = ("--model", model_dir, "--plots", tmp_path / "p")
    expected = run_predict(wavs[1], *options).stdout.split()[1]
    with wavs[1].open("rb") as stream:
        assert run_predict("-", *options, stdin=stream).stdout == f"- {expected}\n"
    for name in ("-", "/dev/stdin"):
        with subprocess.Popen(["cat", wavs[1]], stdout=subprocess.PIPE) as cat:
            assert run_predict(name, *options, stdin=cat.stdout).stdout == f"{name} {expected}\n"
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cp", wavs[1], tmp_path / "pipe"]):
        # A pipe is read in its turn.
        found = run_predict(wavs[1], tmp_path / "pipe", *options).stdout
    assert found == f"{wavs[1]} {expected}\n{tmp_path}/pipe {expected}\n"
    assert {path.name for path in (tmp_path / "p").rglob("*.png")} >= {"-.png", "stdin.png", "pipe.png"}


def test_standard_input_without_audio_is_an_error(model_dir, wavs):
    done = run_predict("-", "--model", model_dir, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (1, "")
    assert any(line.startswith("-: ") for line in done.stderr.splitlines())
    terminal, end = pty.openpty()
    try:
        done = run_predict("-", "--model", model_dir, stdin=end)
    finally:
        os.close(terminal)
        os.close(end)
    assert done.returncode == 2 and " -: " in done.stderr


def test_a_csv_or_tsv_file_with_a_column_of_paths(tmp_path, model_dir, wavs, monkeypatch, capsys):
    """Paths are relative to the file; the output has them as the file does, in its order."""
    (tmp_path / "l.csv").write_bytes(
        b'\xef\xbb\xbfid,"path, of wav"\r\n1,u2.wav\r\n\r\n2,"u0.wav"\r\n3,' + os.fsencode(wavs[0]) + b"\r\n"
    )
    (tmp_path / "l.tsv").write_text("a b\tid\nu2.wav\t1\nu0.wav\t2\nnone.wav\t3\n")
    options = ("--model", model_dir, "--out", tmp_path / "o.csv")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert predict("../l.csv", "--column", "path, of wav", *options) == 0
    rows = read_csv(tmp_path / "o.csv")
    assert [row["utterance"] for row in rows] == ["u2.wav", "u0.wav", str(wavs[0])]
    assert [float(row["seconds"]) for row in rows] == [3, 1, 1]
    assert predict(tmp_path / "l.tsv", "--column", "a b", *options) == 1
    rows = read_csv(tmp_path / "o.csv")
    assert [row["utterance"] for row in rows if not row["error"]] == ["u2.wav", "u0.wav"]
    assert rows[2]["error"].startswith(f"{tmp_path}/l.tsv:4: {tmp_path}/none.wav: ")
    capsys.readouterr()
    for given in ((), ("--column", "wav")):
        assert predict(tmp_path / "l.csv", *given, *options) == 2
        said = capsys.readouterr().err
        assert f"{tmp_path}/l.csv:1: " in said and "path, of wav" in said
    for line in (b'4,"u1.wav', b"4,", b"4,u1.wav,5", b",", b" , "):
        (tmp_path / "bad").mkdir(exist_ok=True)
        (tmp_path / "bad" / "l.csv").write_bytes((tmp_path / "l.csv").read_bytes() + line)
        assert predict(tmp_path / "bad" / "l.csv", "--column", "path, of wav", *options) == 2
        assert "bad/l.csv:6: " in capsys.readouterr().err
    (tmp_path / "bad" / "l.tsv").write_text("a b\tid\n\t\nu2.wav\t1\n")
    assert predict(tmp_path / "bad" / "l.tsv", "--column", "a b", *options) == 2
    assert "bad/l.tsv:2: " in capsys.readouterr().err
    assert predict(wavs[0], "--column", "wav", *options) == 2
    assert "'wav'" in capsys.readouterr().err


def test_progress_is_shown_on_a_terminal_alone(tmp_path, model_dir, wavs):
    (tmp_path / "x.wav").write_text("not audio")
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    arguments = [*wavs, *(tmp_path / name for name in ("silent.wav", "x.wav"))]
    arguments += ["--model", model_dir, "--out", tmp_path / "o.csv"]
    plain = run_predict(*arguments)
    assert (plain.returncode, len(plain.stderr.splitlines())) == (1, 4)  # the model, two doubtful files, their number
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (24, 120))
    command = [sys.executable, "-m", "distilmos.cli", "predict", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=end):
        os.close(end)
        shown = b""
        with contextlib.suppress(OSError):  # the end of the terminal
            while data := os.read(terminal, 1 << 16):
                shown += data
        os.close(terminal)
    lines = [line for line in re.split(r"[\r\n]+", shown.decode()) if line.strip()]
    assert any("0/5" in line for line in lines)
    assert re.search(r"5/5 .*, [0-9.]+ s ", "\n".join(lines))
    for line in plain.stderr.splitlines():
        assert line in [line.strip() for line in lines]


def test_every_score_names_its_model(tmp_path, model_dir, wavs, capsys):
    """Its name, here that of the experiment, and the start of its weights' hash; also where a file cannot be used."""
    weights = hashlib.sha256((model_dir / "model.safetensors").read_bytes()).hexdigest()
    label = f"exp@{weights[:8]}"
    (tmp_path / "x.wav").write_text("not audio")
    inputs = [*wavs, tmp_path / "x.wav"]
    assert predict(*inputs, "--model", model_dir, "--out", tmp_path / "o.csv") == 1
    assert sum(label in line for line in capsys.readouterr().err.splitlines()) == 1
    assert [row["model"] for row in read_csv(tmp_path / "o.csv")] == [label] * 4
    assert predict(*inputs, "--model", model_dir, "--out", tmp_path / "o.jsonl") == 1
    assert [json.loads(line)["model"] for line in (tmp_path / "o.jsonl").read_text().splitlines()] == [label] * 4
    capsys.readouterr()
    assert predict(*inputs, "--model", model_dir) == 1
    printed = capsys.readouterr()
    assert (printed.err.count(label), printed.out.count(label)) == (1, 0)
    predictor = distilmos.load(model_dir)
    assert predictor.model == label
    assert [score.model for score in predictor.predict(inputs)] == [label] * 4
    config = model_dir / "config.yaml"
    config.write_text("name: best\n" + config.read_text())
    assert distilmos.load(model_dir).model == f"best@{weights[:8]}"


def test_export_is_loadable_and_its_card_has_data_scores_and_notes(tmp_path, model_dir, wavs):
    exp = model_dir.parent
    data = {"train": {"dir": "train", "utterances": 12, "seconds": 3600.0}}
    start = {"event": "start", "step": 0, "seed": 7, "commit": "abc123", "data": data}
    (exp / "log.jsonl").write_text(json.dumps(start) + "\n")
    values = {"MSE": 0.25, "LCC": 0.5, "SRCC": None, "KTAU": 0.1}
    scores = {name: {"value": value, "low": None, "high": None} for name, value in values.items()}
    (exp / "results" / "test").mkdir(parents=True)
    metrics = {"set": "test", "counts": {"utterances": 1, "systems": 1}, "notes": "The ratings are simulated."}
    metrics |= {"utterance": scores, "system": scores}
    (exp / "results" / "test" / "scored.tsv").write_text(
        "utterance\tsystem\tgroup\tmos\tpredicted\tsystem_mos\nu1\ts1\t\t3.0\t3.5\t\n"
    )
    (exp / "results" / "test" / "metrics.json").write_text(json.dumps(metrics))
    assert main(["export", str(exp), "--onnx", "--out", str(exp / "model")]) == 0
    card = (exp / "model" / "README.md").read_text()
    for text in ("abc123", "seed 7", "12 utterances, 1.00 hours", "simulated"):
        assert text in card
    (table,) = tables(card)
    assert table == [
        ["test set", "level", "MSE", "LCC", "SRCC", "KTAU"],
        *(["test", level, "0.250", "0.500", "-", "0.100"] for level in ("utterance", "system")),
    ]
    (exp / "model").rename(tmp_path / "elsewhere")
    models = [distilmos.load(tmp_path / "elsewhere", runtime=runtime) for runtime in ("onnx", "torch")]
    first, second = (model.predict(wavs[0]) for model in models)
    assert first.mos == pytest.approx(second.mos, abs=1e-4)
    assert first.model == second.model and first.model.startswith("exp@")  # the name of the experiment


def test_export_before_the_end_of_training_is_refused(tmp_path, capsys):
    assert main(["export", str(tmp_path), "--out", str(tmp_path / "model")]) == 2
    assert f"{tmp_path}/final/model.safetensors: " in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_export_in_half_the_size_refuses_weights_that_float16_cannot_hold(model_dir, capsys):
    exp, weights = model_dir.parent, model_dir / "model.safetensors"
    (exp / "config.yaml").write_text("seed: 1\n")
    export = ["export", str(exp), "--out", str(exp / "model"), "--half"]
    assert main(export) == 0
    exported = (exp / "model" / "model.safetensors").read_bytes()
    assert len(exported) < 0.6 * weights.stat().st_size
    tensors = load_file(weights)
    tensors["linear.bias"] += 1e5
    save_file(tensors, weights)
    assert main(export) == 2
    assert "linear.bias" in capsys.readouterr().err
    assert (exp / "model" / "model.safetensors").read_bytes() == exported


def test_out_never_replaces_an_input(tmp_path, model_dir):
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, np.full(16000, 0.1), 16000)
    (tmp_path / "link.wav").symlink_to("b.wav")
    before = (tmp_path / "b.wav").read_bytes()
    for out in ("b.wav", "link.wav"):
        assert predict(tmp_path / "a.wav", tmp_path / "b.wav", "--model", model_dir, "--out", tmp_path / out) == 2
        assert (tmp_path / "b.wav").read_bytes() == before


@pytest.mark.parametrize("text", ["filename\n", "filename,filename\na.wav,b.wav\n"])
def test_lists_without_recordings_or_with_a_column_twice_are_refused(tmp_path, model_dir, text):
    (tmp_path / "list.csv").write_text(text)
    assert predict(tmp_path / "list.csv", "--column", "filename", "--model", model_dir) == 2


# Prints the bytes that are held after the first recording. A process of its own, because the table of Python's interned
# strings, which takes the parts of paths, may grow by more than the recordings if it has many already.
HELD = """
import sys, tracemalloc
from distilmos.data.recordings import find_recordings
tracemalloc.start()
found = find_recordings(sys.argv[1:])
next(found)
print(tracemalloc.get_traced_memory()[0])
"""


@pytest.mark.parametrize(("name", "line"), [("in.lst", "{}"), ("wav.scp", "utterance_{0} {0}")])
def test_recordings_of_a_long_list_are_not_all_held(tmp_path, name, line):
    paths = [f"/a/folder/of/speech/{number:06d}.wav" for number in range(20_000)]
    text = "".join(f"{line.format(path)}\n" for path in paths)
    (tmp_path / name).write_text(text)
    command = [sys.executable, "-c", HELD, str(tmp_path / name)]
    held = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert held < 6 * len(text)  # as recordings: 20 and 8 times
    assert [str(recording.path) for recording in find_recordings([str(tmp_path / name)])] == paths


def test_inputs_that_are_no_path_are_refused(tmp_path, model_dir):
    (tmp_path / "wav.scp").touch()
    for inputs in ([""], ["-", "-"], [tmp_path], [tmp_path / "wav.scp"]):
        assert predict(*inputs, "--model", model_dir) == 2


def test_out_never_replaces_ratings(tmp_path, model_dir):
    soundfile.write(tmp_path / "a.wav", np.full(16000, 0.1), 16000)
    (tmp_path / "wav.scp").write_text(f"u1 {tmp_path / 'a.wav'}\n")
    for name in ("utt2mos", "utt2sig", "ratings"):
        (tmp_path / name).write_text("u1 4.5\n")
        assert predict(tmp_path, "--model", model_dir, "--out", tmp_path / name) == 2
        assert (tmp_path / name).read_text() == "u1 4.5\n"
    (tmp_path / "utt2mos").unlink()  # a set without ratings can have predicted ones
    assert predict(tmp_path, "--model", model_dir, "--out", tmp_path / "utt2mos") == 0


def test_out_never_replaces_a_list_or_what_a_link_leads_to(tmp_path, model_dir):
    soundfile.write(tmp_path / "a.wav", np.full(16000, 0.1), 16000)
    (tmp_path / "link.wav").symlink_to("a.wav")
    (tmp_path / "list.csv").write_text(f"file\n{tmp_path / 'a.wav'}\n")
    (tmp_path / "wav.scp").write_text(f"u1 {tmp_path / 'a.wav'}\n")
    cases = {
        "a.wav": [tmp_path / "link.wav"],
        "list.csv": [tmp_path / "list.csv", "--column", "file"],
        "wav.scp": [tmp_path],
    }
    for out, inputs in cases.items():
        before = (tmp_path / out).read_bytes()
        assert predict(*inputs, "--model", model_dir, "--out", tmp_path / out) == 2
        assert (tmp_path / out).read_bytes() == before
