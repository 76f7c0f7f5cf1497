"""Stage 1 of a recipe with pipes, and with paths that contain the placeholder of arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from helpers.recipes import link_recipe, run_script, says

from distilmos.data.archive import read_scp

SETS = ("train", "dev", "test", "test_ood")


def test_stage_1_runs_pipes_and_leaves_paths_alone(tmp_path: Path) -> None:
    root = tmp_path / "JOB" / "JOBS" / "JOB_"
    recipe = link_recipe("mini", root)
    soundfile.write(root / "a.wav", np.full(1600, 0.1), 16000)
    for name in SETS:
        data = root / "data" / name
        data.mkdir(parents=True)
        tables = {"wav.scp": f"cat '{root}/a.wav' |", "utt2sys": "s", "utt2mos": "3", "utt2dur": "0.1"}
        for table, value in tables.items():
            (data / table).write_text(f"a {value}\nb {value}\n")
    options = ["--stage", 1, "--stop_stage", 1, "--datadir", root / "data", "--dumpdir", root / "dump"]
    done = run_script(recipe / "run.sh", *map(str, options))
    assert done.returncode == 1
    assert says(done.stderr, f"{root}/data/train/wav.scp:1", "a", "--execute-pipes")
    done = run_script(recipe / "run.sh", *map(str, options), "--execute_pipes", "true")
    assert done.returncode == 0, done.stderr
    for name in SETS:
        scp = root / "dump/raw" / name / "wav.scp"
        assert {path for path, _ in read_scp(scp).values()} == {scp.with_suffix(".ark")}
        assert {path.name for path in (scp.parent / "log").glob("dump_audio.*.log")} == {
            "dump_audio.1.log",
            "dump_audio.2.log",
        }
    assert not list(tmp_path.glob("[0-9]*"))
