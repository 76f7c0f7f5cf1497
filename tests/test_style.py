"""The project's own checks: lint, types and shell scripts are part of the test command."""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
TOOLS = Path(sys.executable).parent


def check(tool, *arguments):
    environment = {**os.environ, "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([tool, *arguments], cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff():
    check("ruff", "check", ".")


def test_mypy():
    check("mypy", "distilmos")


def test_shellcheck():
    scripts = [path for path in REPOSITORY.glob("egs/**/*.sh") if not path.is_symlink()]
    assert scripts
    check("shellcheck", "--external-sources", "--source-path=SCRIPTDIR", ".ci/run", *map(str, scripts))
