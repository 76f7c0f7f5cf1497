"""Fixtures that several tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Processes that run tests beside each other have a core each (before torch is imported).
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"


@pytest.hookimpl(tryfirst=True)  # before xdist looks for its marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep together what shares fixtures: the tests of a file, and all that start schedulers."""
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        runner = REPOSITORY / "tests" / "runner"
        item.add_marker(pytest.mark.xdist_group(str(runner if runner in item.path.parents else item.path)))


def _shared(path: str) -> Path:
    found = SHARED / path
    if not found.exists():
        pytest.skip(f"{path} is not beside the repository (../shared)")
    return found


@pytest.fixture(scope="session")
def tcdvoip_root() -> Path:
    """The TCD-VoIP release."""
    return _shared("data/tcdvoip")


@pytest.fixture(scope="session")
def hubert_tiny_pt() -> Path:
    """The fairseq checkpoint that the embedded encoder was made from."""
    return _shared("models/hubert_tiny.pt")


@pytest.fixture(scope="session")
def golden_root() -> Path:
    """Small models in the format of the authors' release, with expected outputs."""
    return _shared("golden")
