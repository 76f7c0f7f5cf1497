"""Fixtures that several tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"


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
