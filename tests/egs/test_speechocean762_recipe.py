"""egs/speechocean762, stages 0 to 8, on a generated corpus."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
from pathlib import Path

import numpy as np
import pytest
from helpers.corpora import write_speechocean762
from helpers.recipes import link_recipe, run_script

from distilmos.data.datadir import read_data_dir
from distilmos.data.tables import read_floats

pytestmark = pytest.mark.slow

SMALL = [
    *("--nj", "1", "--clusters", "8", "--max_frames", "1000", "--tag", "small", "--allow_partial", "true"),
    *("--train_opts", "max_steps=4", "--train_opts", "warmup_steps=1", "--train_opts", "eval_every=2"),
    *("--train_opts", "max_seconds=5", "--train_opts", "batch_seconds=10", "--train_opts", "num_workers=0"),
    *("--train_opts", "hidden_dim=32"),
]


def test_all_stages_and_the_median(tmp_path: Path) -> None:
    recipe = link_recipe("speechocean762", tmp_path)
    db_root = write_speechocean762(tmp_path)
    done = run_script(recipe / "run.sh", "--aspect", "prosodic", "--db_root", db_root, *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr

    results = recipe / "exp" / "prosodic" / "small" / "results" / "test"
    metrics = json.loads((results / "metrics.json").read_text())
    assert metrics["counts"] == {"utterances": 6, "systems": 6}
    data = read_data_dir(recipe / "dump" / "prosodic" / "raw" / "test")
    assert data.scale.name == "prosodic"
    assert metrics["notes"] == data.notes
    assert (recipe / "exp" / "prosodic" / "small" / "model" / "config.yaml").exists()

    predicted = read_floats(results / "utt2mos")
    scores = json.loads((db_root / "resource" / "scores-detail.json").read_text())
    medians = {utterance: statistics.median(scores[utterance]["prosodic"]) for utterance in data.utterances}
    assert medians != data.mos
    command = ["distilmos", "python", recipe / "local" / "score_median.py", "--results", results, "--data"]
    done = subprocess.run([*command, data.path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lcc = np.corrcoef([medians[u] for u in data.utterances], [predicted[u] for u in data.utterances])[0, 1]
    error = statistics.fmean((medians[u] - predicted[u]) ** 2 for u in data.utterances)
    (row,) = (line for line in done.stdout.splitlines() if line.startswith("| utterance"))
    assert f" {error:.3f} [" in row
    assert f" {lcc:.3f} [" in row

    other = shutil.copytree(data.path, tmp_path / "other")  # rated for another aspect
    ratings = (other / "ratings").read_text().splitlines()
    (other / "ratings").write_text("".join(f"{line.rpartition(' ')[0]} 0\n" for line in ratings))
    (other / "utt2mos").write_text("".join(f"{utterance} 0\n" for utterance in data.utterances))
    done = subprocess.run([*command, other], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"{results}: {data.utterances[0]} " in done.stderr

    train = recipe / "dump" / "prosodic" / "raw" / "train"
    done = subprocess.run([*command, train], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert data.utterances[0] in done.stderr
