"""Run scripts of recipes as a user does, and look for values in their messages."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

EGS = Path(__file__).resolve().parents[2] / "egs"


def link_recipe(name: str, root: Path) -> Path:
    """Make root/egs/NAME with links to the scripts of a recipe, so that its output is not in the source tree."""
    recipe = root / "egs" / name
    recipe.mkdir(parents=True)
    (recipe.parent / "TEMPLATE").symlink_to(EGS / "TEMPLATE")
    for path in (EGS / name).iterdir():
        if path.suffix == ".sh" or path.name in ("conf", "local"):
            (recipe / path.name).symlink_to(path)
    return recipe


def run_script(script: Path, *options: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `script` of a recipe in the recipe's directory, in the virtual environment of the tests."""
    environment = os.environ | {
        "VIRTUAL_ENV": sys.prefix,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    recipe = script.parent.parent if script.parent.name == "local" else script.parent
    command = [str(script), *map(str, options)]
    return subprocess.run(command, cwd=recipe, env=environment, capture_output=True, text=True, check=False)


def says(text: str, *values: object) -> bool:
    """Return whether one line of `text` contains all values, each as a whole word."""
    patterns = [re.compile(rf"(?<!\w){re.escape(str(value))}(?!\w)") for value in values]
    return any(all(pattern.search(line) for pattern in patterns) for line in text.splitlines())
