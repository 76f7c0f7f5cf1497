"""egs/hubert_tiny: from recordings to an encoder with fairseq, with an interruption."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers.corpora import RATE, clean_speech
from helpers.recipes import EGS, link_recipe, run_script

from distilmos.data.archive import load_array, read_scp
from distilmos.ssl.load import load_ssl

RUN = EGS / "hubert_tiny" / "run.sh"
SMALL = (
    "model.conv_feature_layers='[(16,10,5)]+[(16,3,2)]*4+[(16,2,2)]*2'",
    "model.encoder_layers=2",
    "model.encoder_embed_dim=16",
    "model.encoder_ffn_embed_dim=16",
    "model.encoder_attention_heads=2",
    "dataset.max_tokens=64000",
    "task.max_sample_size=32000",
    "checkpoint.save_interval_updates=5",
    "common.log_interval=5",
)


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    """A directory of 121 recordings in two folders; one is too long for a batch, which uses a part of it."""
    root = tmp_path / "speech"
    for number in range(6):
        for index, samples in enumerate(clean_speech()):
            folder = root / ("a" if number % 2 else "b")
            folder.mkdir(parents=True, exist_ok=True)
            shifted = np.roll(samples, 100 * number)
            soundfile.write(folder / f"rec{number}_{index}.{'flac' if number % 2 else 'wav'}", shifted, RATE)
    soundfile.write(root / "a" / "long.wav", np.tile(shifted, 1 + 96000 // len(shifted)), RATE)
    return root


@pytest.mark.slow
def test_from_recordings_to_an_encoder_with_an_interruption(tmp_path, speech):
    recipe = link_recipe("hubert_tiny", tmp_path)
    options = [
        "--first_clusters",
        "8",
        "--second_clusters",
        "6",
        "--layer",
        "1",
        "--max_frames",
        "2000",
        "--first_updates",
        "2000",
    ]
    for setting in SMALL:
        options += ["--fairseq_opts", setting]
    done = run_script(
        recipe / "run.sh", "--stop_stage", "2", "--data_dir", speech, "--datadir", tmp_path / "sets", *options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    _labels_are_tokens(recipe)

    exp, log = recipe / "exp" / "first", recipe / "exp" / "first" / "log" / "hydra_train.log"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    running = subprocess.Popen(
        [recipe / "run.sh", "--stage", "3", "--stop_stage", "3", *options],
        cwd=recipe,
        env=os.environ | {"VIRTUAL_ENV": sys.prefix, "PATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not (exp / "checkpoint_last.pt").exists():
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    subprocess.run(["pkill", "--signal", "KILL", "-f", f"local/pretrain.py.*save_dir={exp}"], check=True)
    assert running.wait() != 0

    options[options.index("--first_updates") + 1] = "40"
    rest = ["--second_updates", "10", "--stage", "3"]
    done = run_script(recipe / "run.sh", *options, *rest)
    assert done.returncode == 0, done.stdout + done.stderr
    reached = re.search(r"Loaded checkpoint .*first/checkpoint_last.pt \(epoch \d+ @ (\d+) updates\)", log.read_text())
    assert reached is not None and int(reached[1]) >= 5

    encoder = load_ssl(recipe / "exp" / "hubert_tiny.safetensors")
    trained = load_ssl(recipe / "exp" / "second" / "checkpoint_last.pt")
    for name, tensor in trained.state_dict().items():
        assert torch.allclose(encoder.state_dict()[name], tensor, atol=1e-3), name
    page = (recipe / "exp" / "RESULTS.md").read_text()
    assert re.search(r"^\| second +\| +10 \|.*\| +sound +", page, re.MULTILINE), page
    assert re.search(r"^\| second +\| +10 \|.*\| +content +", page, re.MULTILINE), page
    _copies_share_the_content_of_their_recordings(recipe)


def _labels_are_tokens(recipe: Path) -> None:
    """The lists for fairseq have the token ids and the samples of the utterances, in the same order."""
    labels, raw = recipe / "dump" / "labels_first", recipe / "dump" / "raw"
    assert (labels / "dict.sound.txt").read_text() == "".join(f"{number} 1\n" for number in range(8))
    for name in ("train", "valid"):
        tokens = read_scp(recipe / "dump" / "tokens_first" / name / "layer1.scp")
        audio = read_scp(raw / name / "wav.scp")
        root, *rows = (labels / f"{name}.tsv").read_text().splitlines()
        lines = (labels / f"{name}.sound").read_text().splitlines()
        assert len(rows) == len(lines) == len(tokens) > 0
        for row, line, utterance in zip(rows, lines, tokens, strict=True):
            assert [int(word) for word in line.split()] == load_array(tokens[utterance]).tolist()
            entry, samples = row.split("\t")
            file, offset, size = entry.split(":")
            content = (Path(root) / file).read_bytes()[int(offset) :][: int(size)]
            assert audio[utterance][1] == int(offset)
            assert content[:4] == b"RIFF" and len(content) == int(size) >= 2 * int(samples)


def _copies_share_the_content_of_their_recordings(recipe: Path) -> None:
    """In the second iteration a recording and its copy share `content`, and differ in `sound`."""
    labels, raw = recipe / "dump" / "labels_second", recipe / "dump" / "raw"
    for name in ("train", "valid"):
        recordings, copies = (read_scp(raw / kind / "wav.scp") for kind in (name, f"{name}_degraded"))
        assert list(recordings) == list(copies)
        entries = [row.split(":")[:2] for row in (labels / f"{name}.tsv").read_text().splitlines()[1:]]
        audio = [(f"audio1_{name}.zip", recordings), (f"audio2_{name}.zip", copies)]
        assert entries == [[file, str(offset)] for file, scp in audio for _, offset in scp.values()]
        assert (labels / f"audio2_{name}.zip").resolve() == (raw / f"{name}_degraded" / "wav.ark").resolve()
        sounds, contents = ((labels / f"{name}.{kind}").read_text().splitlines() for kind in ("sound", "content"))
        assert contents[: len(recordings)] == contents[len(recordings) :]
        meant = read_scp(recipe / "dump" / "tokens_second" / name / "layer1.scp")
        assert contents[0] == " ".join(map(str, load_array(meant[min(recordings)]).tolist()))
        same = [a == b for a, b in zip(sounds[: len(recordings)], sounds[len(recordings) :], strict=True)]
        assert not all(same)
        heard = read_scp(recipe / "dump" / "tokens_first" / f"{name}_degraded" / "layer1.scp")
        for line, utterance in zip(sounds[len(recordings) :], heard, strict=True):
            assert [int(word) for word in line.split()] == load_array(heard[utterance]).tolist()
