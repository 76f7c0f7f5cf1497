"""tools/gpu_check.sh runs without a GPU too, so that it is ready when there is one."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "gpu_check.sh"


@pytest.mark.slow
def test_all_checks_pass_on_the_cpu(tmp_path: Path) -> None:
    done = subprocess.run(
        [SCRIPT, "--device", "cpu", "--out", tmp_path / "checks.json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    checks = json.loads((tmp_path / "checks.json").read_text())["checks"]
    assert {check["passed"] for check in checks} == {True, None}
    assert len(checks) > 15


def test_a_device_that_does_not_exist_is_refused() -> None:
    done = subprocess.run([SCRIPT, "--device", "cuda:99"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "cuda:99" in done.stderr
