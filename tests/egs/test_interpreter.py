"""The scripts of recipes run with the interpreter of the `distilmos` command, whatever python3 is on PATH."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from helpers.recipes import EGS

from distilmos.data.datadir import read_data_dir


def write_script(path: Path, command: str) -> None:
    path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    path.chmod(0o755)


def test_stage_0_needs_only_the_distilmos_command(tmp_path: Path) -> None:
    """As pipx and uv install it: python and python3 on PATH do not have the package."""
    programs = tmp_path / "bin"
    programs.mkdir()
    write_script(programs / "distilmos", f"'{sys.executable}' -m distilmos.cli")
    for name in ("python", "python3"):
        write_script(programs / name, f"'{sys.executable}' -I -S")
    environment = os.environ | {
        "VIRTUAL_ENV": str(tmp_path),
        "PATH": f"{programs}{os.pathsep}/usr/bin{os.pathsep}/bin",
        "PYTHONPATH": str(EGS.parent),
    }
    absent = subprocess.run(["python3", "-c", "import distilmos"], env=environment, capture_output=True, check=False)
    assert absent.returncode == 1
    command = [EGS / "mini" / "run.sh", "--stop_stage", "0", "--size", "small", "--datadir", tmp_path / "data"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(read_data_dir(tmp_path / "data" / "train").wavs) == 45


def test_a_script_gets_its_arguments_and_leaves_its_exit_status(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys; print(sys.executable, *sys.argv[1:]); sys.exit(7)")
    command = [sys.executable, "-m", "distilmos.cli", "python", script, "--help", "--", "a b"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (7, f"{sys.executable} --help -- a b\n")
    assert subprocess.run(command[:4], capture_output=True, check=False).returncode == 2
