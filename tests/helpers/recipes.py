"""Running scripts of recipes as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

EGS = Path(__file__).resolve().parents[2] / "egs"


def run_script(script: Path, *options: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `script` of a recipe in the recipe's directory, in the virtual environment of the tests."""
    environment = os.environ | {
        "VIRTUAL_ENV": sys.prefix,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    recipe = script.parent.parent if script.parent.name == "local" else script.parent
    command = [str(script), *map(str, options)]
    return subprocess.run(command, cwd=recipe, env=environment, capture_output=True, text=True, check=False)
