"""tools/gpu_check.sh runs without a GPU too, so that it is ready when there is one."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "gpu_check.sh"


@pytest.mark.slow
def test_all_checks_pass_on_the_cpu(tmp_path: Path) -> None:
    command = [SCRIPT, "--device", "cpu", "--out", "checks.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    checks = json.loads((tmp_path / "checks.json").read_text())["checks"]
    assert {check["passed"] for check in checks} == {True, None}
    assert len(checks) > 30


def test_wheels_are_relative_to_the_directory_of_the_user(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python3"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\necho "$PWD" "$@"\n')
    python.chmod(0o755)
    environment = os.environ | {"PATH": f"{python.parent}:{os.environ['PATH']}"}
    command = [SCRIPT, "--wheels", "some/wheels", "--out", "checks.json"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    install, check = done.stdout.splitlines()
    assert install.startswith(f"{tmp_path} -m pip install ") and " --find-links some/wheels " in install
    assert check == f"{tmp_path} {SCRIPT.with_suffix('.py')} --out checks.json"


def test_a_run_that_ends_before_it_is_interrupted_is_a_failure(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    from gpu_check import interrupt

    with pytest.raises(SystemExit, match=r"\b0\b"):
        interrupt(["--version"], tmp_path)


def test_a_device_that_does_not_exist_is_refused() -> None:
    done = subprocess.run([SCRIPT, "--device", "cuda:99"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "cuda:99" in done.stderr
