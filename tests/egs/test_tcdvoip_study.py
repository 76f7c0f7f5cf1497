"""The study's page is made of the scores of its trainings."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from distilmos.data.datadir import Utterance, write_data_dir
from distilmos.data.tables import write_table
from distilmos.scoring.results import score_results

RECIPE = Path(__file__).resolve().parents[2] / "egs" / "tcdvoip"
GROUPS = ("echo", "chop", "reference")


@pytest.fixture
def study(tmp_path):
    """A directory with conf/ and exp/ of two models and two seeds, in domain and with echo held out."""
    random = np.random.default_rng(0)
    soundfile.write(tmp_path / "x.wav", 0.1 * random.standard_normal(8000), 16000)
    utterances = [
        Utterance(f"{group}{n}-{m}", tmp_path / "x.wav", f"{group}{n}", mos=1 + (7 * n + m) % 4, group=group)
        for group in GROUPS
        for n in range(4)
        for m in range(3)
    ]
    write_data_dir(tmp_path / "data", utterances)
    for root in ("exp", "exp/leave_echo_out"):
        for model, noise in (("distilmos", 0.1), ("sslmos", 1.0)):
            for seed in (1, 2):
                path = tmp_path / root / f"{model}_seed{seed}"
                guess = {u.id: u.mos + noise * random.standard_normal() for u in utterances}
                write_table(path / "results" / "test" / "utt2mos", guess)
                score_results(tmp_path / "data", path / "results" / "test", samples=50)
                hardware = {"gpu": None, "cpu": "a CPU", "threads": 1, "torch": "2", "python": "3"}
                start = {"event": "start", "commit": f"abc{seed}", "time": f"2026-01-0{seed}", "hardware": hardware}
                end = {"event": "end", "elapsed_seconds": 60.0 * seed}
                (path / "log.jsonl").write_text(f"{json.dumps(start)}\n{json.dumps(end)}\n")
    (tmp_path / "conf").mkdir()
    for model in ("distilmos", "sslmos"):
        (tmp_path / "conf" / f"{model}.yaml").write_text(f"model: {model}\n")
    return tmp_path


def gather(study):
    options = ["--protocols", "conditions echo", "--models", "distilmos sslmos", "--seeds", "1 2", "--out", "R.md"]
    command = [sys.executable, str(RECIPE / "local" / "gather.py"), *options]
    return subprocess.run(command, cwd=study, text=True, capture_output=True)


def test_page_has_every_score_its_mean_and_the_differences(study):
    done = gather(study)
    assert done.returncode == 0, done.stderr
    page = (study / "R.md").read_text(encoding="utf-8")
    values = []
    for seed in (1, 2):
        metrics = json.loads((study / "exp" / f"sslmos_seed{seed}" / "results/test/metrics.json").read_text())
        values.append(metrics["utterance"]["SRCC"]["value"])
        assert f"{values[-1]:.3f} [" in page
    assert f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}" in page
    assert "`abc1`, `abc2`" in page
    assert "2026-01-01 to 2026-01-02" in page
    assert "echo held out" in page
    # The held-out type's own conditions are scored apart from those that every type repeats.
    assert "Of these the 12 utterances (4 conditions) with echo" in page
    assert page.count("Difference distilmos - sslmos") == 2
    assert "distilmos 1.5 min" in page


def test_a_training_without_scores_is_named(study):
    (study / "exp" / "sslmos_seed2" / "results" / "test" / "metrics.json").unlink()
    done = gather(study)
    assert done.returncode == 2
    assert "exp/sslmos_seed2/results/test/metrics.json" in done.stderr
    assert not (study / "R.md").exists()
