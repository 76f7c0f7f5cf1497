"""A small corpus of three talkers and two degradations, and experiments that are trained on it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml

from distilmos.cli import main
from distilmos.data.datadir import Utterance, write_data_dir
from distilmos.data.dump import dump_audio, merge_shards
from distilmos.ssl.config import WaveformConfig
from distilmos.ssl.store import save_encoder
from distilmos.ssl.waveform import WaveformEncoder
from distilmos.tokens.features import dump_features
from distilmos.tokens.forward import ForwardOptions
from distilmos.tokens.kmeans import learn_kmeans
from distilmos.tokens.labels import dump_tokens

NUM_LAYERS = 2
CLUSTERS = 8
PITCHES = {"ann": 110, "bob": 190, "cay": 330}
SETTINGS = {
    "hidden_dim": 16,
    "max_seconds": 2.0,
    "batch_seconds": 8.0,
    "encoder_lr": 3e-3,
    "head_lr": 1e-2,
    "max_steps": 24,
    "warmup_steps": 3,
    "eval_every": 8,
    "checkpoint_every": 24,
    "log_every": 8,
    "n_best": 1,
    "num_workers": 0,
}


@dataclass(frozen=True)
class Trained:
    """Paths of the encoder, the data of stage 1 and the experiments."""

    root: Path
    layers: int = NUM_LAYERS

    @property
    def encoder(self) -> Path:
        return self.root / "encoder.safetensors"

    @property
    def kmeans(self) -> Path:
        return self.root / "exp" / "kmeans_tiny_k8"

    def raw(self, name: str) -> Path:
        return self.root / "raw" / name

    def experiment(self, name: str) -> Path:
        return self.root / "exp" / name


def write_set(root: Path, name: str, random: np.random.Generator) -> None:
    """Write two tones of each talker at three levels of noise and three of clipping."""
    utterances = []
    for number, (talker, degradation, level) in enumerate(
        (talker, degradation, level)
        for talker in PITCHES
        for degradation in ("noise", "clip")
        for level in range(3)
        for _ in range(2)
    ):
        times = np.arange(int(random.uniform(0.4, 0.9) * 16000)) / 16000
        tone = 0.3 * np.sin(2 * np.pi * PITCHES[talker] * random.uniform(0.97, 1.03) * times)
        if degradation == "noise":
            tone = tone + random.normal(0, 0.01 * 4**level, tone.size)
        else:
            tone = np.clip(3 ** (level + 1) * tone, -0.3, 0.3)
        audio = root / "wav" / name / f"{name}{number:02d}.wav"
        audio.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(audio, tone, 16000)
        system, mos = f"{degradation}{level}", 4.5 - level + random.choice([-0.25, 0, 0.25])
        utterances.append(Utterance(audio.stem, audio, system, mos, speaker=talker, group=degradation))
    write_data_dir(root / "data" / name, utterances)
    dump_audio(root / "data" / name, root / "raw" / name, 1, 1)
    merge_shards(root / "raw" / name, 1)
    for table in ("utt2sys", "utt2mos", "utt2spk", "sys2group"):
        shutil.copy(root / "data" / name / table, root / "raw" / name)


def train(made: Trained, name: str, **settings: object) -> None:
    config = made.root / f"{name}.yaml"
    config.write_text(yaml.safe_dump({"ssl_model": str(made.encoder), **SETTINGS, **settings}))
    command = ["train", "--config", str(config), "--device", "cpu", "--out", str(made.experiment(name))]
    for part in ("train", "dev"):
        command += [f"--{part}", str(made.raw(part)), f"--{part}-tokens", str(made.root / "tokens" / part)]
    assert main(command) == 0


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    made = Trained(tmp_path_factory.mktemp("analysis"))
    root, random = made.root, np.random.default_rng(5)
    write_set(root, "train", random)
    write_set(root, "dev", random)
    torch.manual_seed(3)
    shapes = ((16, 10, 5), (16, 3, 2), (16, 3, 2), (16, 3, 2), (16, 3, 2), (16, 2, 2), (16, 2, 2))
    save_encoder(
        WaveformEncoder(WaveformConfig(shapes, False, "group", 16, 32, 2, NUM_LAYERS, 15, 4, False, False)),
        made.encoder,
    )
    ssl = str(made.encoder)
    dump_features(ForwardOptions(ssl, root / "raw" / "train", root / "feats", "cpu"), max_frames=600, seed=1)
    merge_shards(root / "feats", 1)
    for layer in range(1, NUM_LAYERS + 1):
        learn_kmeans(root / "feats", layer, CLUSTERS, 1, made.kmeans)
    for name in ("train", "dev"):
        dump_tokens(ForwardOptions(ssl, root / "raw" / name, root / "tokens" / name, "cpu"), made.kmeans)
        merge_shards(root / "tokens" / name, 1)
    train(made, "distilmos")
    train(made, "frozen", encoder_lr=0)
    train(made, "sslmos", model="sslmos")
    return made


@pytest.fixture
def trained(trained_once: Trained, tmp_path: Path) -> Trained:
    """A copy of the experiments that a test may change; audio and tables are links."""
    shutil.copytree(trained_once.root / "exp", tmp_path / "exp")
    for name in ("raw", "tokens", "encoder.safetensors"):
        (tmp_path / name).symlink_to(trained_once.root / name)
    return Trained(tmp_path)
