"""Schedulers for the tests: real ones if possible."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.cluster import REPOSITORY, TESTS, Cluster

CLUSTERS = TESTS / "clusters"


def _start(name: str, directory: Path, config: pytest.Config, prefix: list[str]) -> dict[str, str]:
    """Start a throw-away scheduler in `directory` and return the variables that its commands need."""
    if os.getuid() != 0:
        pytest.skip("only root starts a scheduler")
    commands = [[*prefix, str(CLUSTERS / f"{name}_up.sh"), str(directory)]]
    if config.getoption("--install-packages"):
        commands.insert(0, [str(TESTS / "install.sh"), name])  # without the prefix: its network may be isolated
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"{name} does not start: {done.stderr[-500:]}")
    words = (directory / "env.sh").read_text().split()
    return dict(word.split("=", 1) for word in words if "=" in word)


def _stop(name: str, directory: Path, prefix: list[str]) -> None:
    """Stop a throw-away scheduler and remove its directory."""
    if directory.joinpath("env.sh").exists():
        subprocess.run([*prefix, CLUSTERS / f"{name}_down.sh", directory], capture_output=True, check=False)
    shutil.rmtree(directory, ignore_errors=True)


def _answers(*command: str) -> bool:
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0


@pytest.fixture(scope="session")
def slurm_environment(pytestconfig: pytest.Config) -> Iterator[dict[str, str]]:
    """The variables of a Slurm: the one on this machine, or a throw-away one with two nodes."""
    if _answers("sinfo"):
        yield {}
        return
    directory = Path(tempfile.mkdtemp(prefix="slurm-"))
    try:
        yield _start("slurm", directory, pytestconfig, [])
    finally:
        _stop("slurm", directory, [])


@pytest.fixture(scope="session")
def sge_parts(pytestconfig: pytest.Config) -> Iterator[tuple[dict[str, str], list[str]]]:
    """The variables of a Grid Engine, and a prefix for commands that use it.

    A throw-away one listens on all addresses, so it gets its own network namespace.
    """
    if _answers("qconf", "-sm"):
        yield {}, []
        return
    directory = Path(tempfile.mkdtemp(prefix="sge-"))
    network = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec sleep infinity"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    inside = ["nsenter", f"--target={network.pid}", "--net", "--"]
    try:
        if network.stdout is None or network.stdout.readline() != "up\n":
            pytest.skip("no network namespace for Grid Engine")
        yield _start("sge", directory, pytestconfig, inside), inside
    finally:
        _stop("sge", directory, inside)
        network.kill()
        network.wait()


def _config(backend: str, directory: Path) -> Path:
    return Path(shutil.copy(REPOSITORY / "conf" / f"{backend}.conf", directory))


@pytest.fixture
def slurm(slurm_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """Slurm, with a copy of the repository's configuration."""
    return Cluster("slurm", _config("slurm", tmp_path_factory.mktemp("conf")), slurm_environment)


@pytest.fixture
def sge(sge_parts: tuple[dict[str, str], list[str]], tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """Grid Engine, with a copy of the repository's configuration."""
    return Cluster("sge", _config("sge", tmp_path_factory.mktemp("conf")), *sge_parts)
