"""Schedulers to test with: real ones where they can be had."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.cluster import REPOSITORY, SHARED, Cluster


def _tool(name: str) -> Path:
    tool = SHARED / "tools" / name
    if not tool.exists() or os.getuid() != 0:
        pytest.skip(f"no scheduler here, and no {name} in ../shared/tools that root could start one with")
    return tool


def _answers(*command: str) -> bool:
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0


def _exports(file: Path) -> dict[str, str]:
    """Return the variables that a shell script exports."""
    words = file.read_text().split()
    return dict(word.split("=", 1) for word in words if "=" in word)


@pytest.fixture(scope="session")
def slurm_environment() -> Iterator[dict[str, str]]:
    """The variables of a Slurm: the one that there is, or a throw-away one of two nodes."""
    if _answers("sinfo"):
        yield {}
        return
    up = _tool("slurm_up.sh")
    directory = Path(tempfile.mkdtemp(prefix="slurm-"))
    try:
        done = subprocess.run([up, directory], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"Slurm does not start here: {done.stderr[-500:]}")
        yield _exports(directory / "env.sh")
    finally:
        subprocess.run([_tool("slurm_down.sh"), directory, "--purge"], capture_output=True, check=False)


@pytest.fixture(scope="session")
def sge_parts() -> Iterator[tuple[dict[str, str], list[str]]]:
    """The variables of a Grid Engine, and how to run a command beside it.

    A throw-away one listens on all addresses: it gets a network of its own.
    """
    if _answers("qconf", "-sm"):
        yield {}, []
        return
    up = _tool("sge_up.sh")
    directory = Path(tempfile.mkdtemp(prefix="sge-"))
    if shutil.which("sge_qmaster") is None:  # the network of its own has no packages
        names = ["gridengine-master", "gridengine-exec", "gridengine-client"]
        install = ["apt-get", "-q", "-y", "install", "--no-install-recommends", *names]
        environment = os.environ | {"RUNLEVEL": "1", "DEBIAN_FRONTEND": "noninteractive"}
        if shutil.which("apt-get"):
            subprocess.run(install, env=environment, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    network = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec sleep infinity"],
        stdout=subprocess.PIPE,
        text=True,
    )
    inside = ["nsenter", f"--target={network.pid}", "--net", "--"]
    try:
        if network.stdout is None or network.stdout.readline() != "up\n":
            pytest.skip("no private network namespace for Grid Engine")
        done = subprocess.run([*inside, up, directory], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"Grid Engine does not start here: {done.stderr[-500:]}")
        yield _exports(directory / "env.sh"), inside
        subprocess.run([*inside, _tool("sge_down.sh"), directory, "--purge"], capture_output=True, check=False)
    finally:
        network.kill()


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
