"""A synthetic experiment with the files of training, prediction and scoring, and plausible numbers."""

import json
import math
import shutil

import numpy as np
import pytest
import soundfile

from distilmos.data.datadir import Utterance, write_data_dir
from distilmos.data.tables import write_table
from distilmos.files import write_json, write_text
from distilmos.scoring.results import score_results

GROUPS = ("band limit", "clipping", "echo", "noise", "packet loss", "quantisation", "voice only")
SIMULATED = "The ratings are simulated."


def log_events(model, layers, steps, seed):
    noise = np.random.default_rng(seed).normal
    data = {"train": {"dir": "dump/raw/train", "utterances": 240, "seconds": 1010.0}}
    data["dev"] = {"dir": "dump/raw/dev", "utterances": 60, "seconds": 251.5, "notes": SIMULATED}
    command = ["distilmos", "train", "--config", "conf/distilmos.yaml", "--out", "exp/my run"]
    hardware = {"cpu": "A CPU", "threads": 2, "gpu": None, "torch": "2.14.1", "python": "3.11.9"}
    start = {"time": "2026-01-05T12:00:00+00:00", "command": command, "commit": "0a1b2c3", "seed": 1}
    yield {"event": "start", "step": 0, **start, "hardware": hardware, "data": data, "parameters": 4_321_987}
    tokens = model == "distilmos"
    best = math.inf
    dev_result = {}
    for step in range(10, steps + 1, 10):
        share = step / steps
        regression = 0.25 + 0.9 * math.exp(-5 * share) + 0.03 * noise()
        token = 2.1 + 3.1 * math.exp(-3 * share) + 0.03 * noise() if tokens else None
        rate = 1e-3 * min(step / (0.1 * steps), (1.0001 - share) / 0.9)
        losses = {"loss": regression + 0.1 * (token or 0), "regression": regression, "token": token}
        rates = {"lr_encoder": rate / 30, "lr_head": rate, "grad_norm": 1.0, "seconds_per_second": 55.0}
        yield {"event": "train", "step": step, "epoch": step // 60, **losses, **rates}
        if step % 50:
            continue
        dev = 0.35 + 0.8 * math.exp(-5 * share) + 0.15 * share**2 + 0.02 * noise()
        lcc = 0.93 - 0.5 * math.exp(-4 * share)
        levels = {
            level: {"MSE": dev * scale, "LCC": lcc, "SRCC": lcc - 0.02 + 0.01 * noise(), "KTAU": lcc - 0.18}
            for level, scale in (("utterance", 1.0), ("system", 0.4))
        }
        weights = np.exp(share * np.linspace(-1.5, 1.2, layers))
        accuracy = [0.02 + 0.62 / (1 + 0.15 * layer) * (1 - math.exp(-4 * share)) for layer in range(layers)]
        extra = {
            "token": 2.3 + 3 * math.exp(-3 * share) if tokens else None,
            "token_accuracy": accuracy if tokens else None,
            "layer_weights": (weights / weights.sum()).tolist() if tokens else None,
        }
        dev_result = {"regression": dev, **extra, **levels}
        yield {"event": "dev", "step": step, **dev_result, "best": dev < best}
        best = min(best, dev)
    end = {"reason": "max_steps", "averaged_steps": [300, 350, 400], "elapsed_seconds": 754.3}
    final = dev_result | {"utterance": {"MSE": 0.2, "LCC": 0.951, "SRCC": 0.942, "KTAU": 0.8}}
    final["system"] = {"MSE": 0.1, "LCC": 0.963, "SRCC": None, "KTAU": None}
    if tokens:
        final["layer_weights"] = [0.777] + [0.223 / (layers - 1)] * (layers - 1)
    yield {"event": "end", "step": steps, **end, "dev": final}


def make_results(root, exp, name, systems, notes, seed, ungrouped=False):
    """Score random predictions of `systems` systems with 6 utterances each."""
    generator = np.random.default_rng(seed)
    wav = root / "tone.wav"
    soundfile.write(wav, np.full(1600, 0.1), 16000)
    utterances, predicted = [], {}
    for system in range(systems):
        level = generator.uniform(1.3, 4.7)
        for utterance in range(6):
            name_of = f"sys{system:02d}-utt{utterance}"
            mos = round(float(np.clip(level + 0.4 * generator.normal(), 1, 5)) * 8) / 8
            group = None if ungrouped else GROUPS[system % len(GROUPS)]
            utterances.append(Utterance(name_of, wav, f"sys{system:02d}", mos=mos, group=group))
            predicted[name_of] = 0.8 * mos + 0.6 + 0.1 * (system % 5 - 2) + 0.35 * float(generator.normal())
    data = root / "raw" / name
    write_data_dir(data, utterances, notes=notes)
    write_table(exp / "results" / name / "utt2mos", predicted)
    score_results(data, exp / "results" / name, samples=200)


def make_experiment(root, model="distilmos", layers=4, steps=400):
    """Write root/exp/<model> and root/kmeans; return the experiment directory."""
    exp = root / "exp" / model
    events = log_events(model, layers, steps, seed=1)
    write_text(exp / "log.jsonl", "".join(json.dumps(event) + "\n" for event in events))
    write_text(exp / "config.yaml", f"model: {model}\nhidden_dim: 256\ntarget_layers: all\ntoken_weight: 0.1\n")
    make_results(root, exp, "test", 28, SIMULATED, seed=2)
    make_results(root, exp, "test_real", 12, "", seed=3, ungrouped=True)
    rows = []
    for layer in range(1, layers + 1):
        quality = {"inertia_per_frame": 3.21 + layer, "explained_variance": 0.7, "perplexity": 171.3 - layer}
        quality |= {"empty": 0, "tiny": layer, "iterations": 9}
        rows.append({"layer": layer, "clusters": 200, "frames": 40000, **quality})
    write_json(root / "kmeans" / "quality.json", {"ssl": "hubert_tiny", "clusters": 200, "layers": rows})
    return exp


@pytest.fixture(scope="session")
def experiment_template(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    make_experiment(root, "distilmos")
    make_experiment(root, "sslmos")
    return root


@pytest.fixture
def experiments(experiment_template, tmp_path):
    """A directory with exp/distilmos, exp/sslmos and kmeans that a test may change."""
    return shutil.copytree(experiment_template, tmp_path / "work")
