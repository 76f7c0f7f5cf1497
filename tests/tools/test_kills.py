"""Runs of egs/mini that are killed in all stages, and meet a full disk, end with the results of an undisturbed run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = Path(__file__).resolve().parents[2] / "tools" / "rehearsal" / "kills.py"


@pytest.mark.slow
def test_a_chain_of_kills_and_a_full_disk_change_nothing(tmp_path: Path) -> None:
    fills = "5" if os.getuid() == 0 else "0"  # only root mounts a small disk
    command = [sys.executable, str(KILLS), str(tmp_path / "work"), "--kills", "10", "--fills", fills, "--from-stage"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
