"""A small corpus with degradations that a tiny encoder can detect, processed by the real stages 1 to 4."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml

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
SETTINGS = {
    "hidden_dim": 16,
    "max_seconds": 2.0,
    "batch_seconds": 6.0,
    "encoder_lr": 1e-3,
    "head_lr": 1e-2,
    "max_steps": 24,
    "warmup_steps": 3,
    "eval_every": 6,
    "checkpoint_every": 5,
    "log_every": 4,
    "n_best": 2,
    "num_workers": 1,
}


@dataclass(frozen=True)
class Corpus:
    """The output of stages 1 to 4."""

    root: Path
    encoder: Path

    def raw(self, name: str) -> Path:
        return self.root / "raw" / name

    def tokens(self, name: str) -> Path:
        return self.root / "tokens" / name

    def arguments(self, out: Path, *sets: str, **settings: object) -> list[str]:
        """Return the arguments of `distilmos train`; write its settings to `out`.yaml."""
        out.parent.mkdir(parents=True, exist_ok=True)
        config = out.with_name(f"{out.name}.yaml")
        config.write_text(yaml.safe_dump({"ssl_model": str(self.encoder), **SETTINGS, **settings}))
        overrides = [part for item in sets for part in ("--set", item)]
        return [
            *("train", "--config", str(config), "--device", "cpu", "--out", str(out), *overrides),
            *("--train", str(self.raw("train")), "--dev", str(self.raw("dev"))),
            *("--train-tokens", str(self.tokens("train")), "--dev-tokens", str(self.tokens("dev"))),
        ]


def write_set(root: Path, name: str, count: int, random: np.random.Generator) -> None:
    """Write tones in noise: louder noise means a lower score; one system for each level."""
    utterances = []
    for number in range(count):
        level = number % 4
        times = np.arange(int(random.uniform(0.4, 1.2) * 16000)) / 16000
        tone = 0.3 * np.sin(2 * np.pi * random.uniform(190, 210) * times)
        audio = root / "wav" / name / f"utt{number:02d}.wav"
        audio.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(audio, np.clip(tone + random.normal(0, 0.01 * 3**level, tone.size), -1, 1), 16000)
        mos = 4.5 - level + random.choice([-0.25, 0, 0.25])
        utterances.append(Utterance(audio.stem, audio, f"sys{level}", mos))
    write_data_dir(root / "data" / name, utterances)
    dump_audio(root / "data" / name, root / "raw" / name, 1, 1)
    merge_shards(root / "raw" / name, 1)
    for table in ("utt2sys", "utt2mos"):
        shutil.copy(root / "data" / name / table, root / "raw" / name)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    root = tmp_path_factory.mktemp("corpus")
    random = np.random.default_rng(7)
    write_set(root, "train", 24, random)
    write_set(root, "dev", 8, random)
    torch.manual_seed(3)
    shapes = ((16, 10, 5), (16, 3, 2), (16, 3, 2), (16, 3, 2), (16, 3, 2), (16, 2, 2), (16, 2, 2))
    encoder = WaveformEncoder(WaveformConfig(shapes, False, "group", 16, 32, 2, NUM_LAYERS, 15, 4, False, False))
    path = root / "encoder.safetensors"
    save_encoder(encoder, path)
    dump_features(ForwardOptions(str(path), root / "raw" / "train", root / "feats", "cpu"), max_frames=500, seed=1)
    merge_shards(root / "feats", 1)
    for layer in range(1, NUM_LAYERS + 1):
        learn_kmeans(root / "feats", layer, CLUSTERS, 1, root / "kmeans")
    for name in ("train", "dev"):
        options = ForwardOptions(str(path), root / "raw" / name, root / "tokens" / name, "cpu")
        dump_tokens(options, root / "kmeans")
        merge_shards(root / "tokens" / name, 1)
    return Corpus(root, path)
