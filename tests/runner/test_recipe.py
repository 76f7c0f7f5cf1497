"""egs/mini with `cmd_backend=slurm`: every stage as jobs, and a run.sh that dies in between."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.cluster import REPOSITORY, Cluster, wait_for
from helpers.recipes import says

from distilmos.data.archive import load_array, read_scp

SMALL = [
    *("--size", "small", "--clusters", "16", "--max_frames", "2000", "--tag", "small"),
    *("--train_opts", "max_steps=2", "--train_opts", "warmup_steps=1", "--train_opts", "eval_every=2"),
    *("--train_opts", "max_seconds=10", "--train_opts", "batch_seconds=20", "--train_opts", "num_workers=0"),
    *("--train_opts", "hidden_dim=32"),
]


def start(root: Path, environment: dict[str, str], *options: str | Path) -> subprocess.Popen[str]:
    directories = [f"--{name}dir={root / name}" for name in ("data", "dump", "exp")]
    directories = [word for option in directories for word in option.split("=")]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(
        [REPOSITORY / "egs/mini/run.sh", *SMALL, *directories, *map(str, options)],
        env=os.environ | {"VIRTUAL_ENV": sys.prefix, "PATH": path} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(root: Path, environment: dict[str, str], *options: str | Path) -> str:
    process = start(root, environment, *options)
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0, out
    return out


@pytest.mark.slow
def test_all_stages_and_a_run_that_dies(slurm: Cluster, tmp_path: Path) -> None:
    environment = slurm.environment | {"cmd_backend": "slurm"}
    before = run(tmp_path, environment, "--stop_stage", 1)
    assert len(re.findall(r"^slurm: .*dump_audio\.JOB\.log: job \d+ \(2 jobs\)$", before, re.MULTILINE)) == 4
    assert "# Ended" in (tmp_path / "dump/raw/train/log/dump_audio.2.log").read_text()

    resources = ("--resources", "--time 0:20:00")
    dying = start(tmp_path, environment, "--stage", 2, *resources)
    feats = tmp_path / "dump/feats"
    wait_for(lambda: (feats / "log/q/dump_feats.JOB/1/id").exists(), 120)
    planned = (feats / "log/q/plan/1/id").read_text()
    assert slurm.tool("squeue", "--noheader", "--states=all", f"--jobs={planned}", "--format=%l").strip() == "20:00"
    os.killpg(dying.pid, signal.SIGKILL)
    dying.communicate()
    (job_id,) = [path.read_text() for path in feats.glob("log/q/dump_feats.JOB/*/id")]

    after = run(tmp_path, environment, "--stage", 2, *resources)
    assert f"{feats}: " in after
    assert says(after, "dump_feats.JOB.log", f"job {job_id}") or says(after, "dump_feats.JOB.log", 2, 2)
    assert "(2 jobs)" not in re.search(r"stage 2: hidden.*?stage 2: done", after, re.DOTALL)[0]
    assert (tmp_path / "exp/small/RESULTS.md").exists()
    assert (tmp_path / "exp/small/model/model.safetensors").exists()

    local = tmp_path / "local"
    run(local, {"cmd_backend": "local"}, "--stop_stage", 4)
    tokens = "dump/tokens_hubert_tiny_k16/train/layer3.scp"
    expected = {u: load_array(at) for u, at in read_scp(local / tokens).items()}
    found = {u: load_array(at) for u, at in read_scp(tmp_path / tokens).items()}
    assert list(found) == list(expected)
    for utterance, ids in expected.items():
        np.testing.assert_array_equal(found[utterance], ids)
