"""The identity of a run: everything that decides its result, so that only the same run is continued."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from distilmos.errors import InputError
from distilmos.ssl.encoder import weights_hash
from distilmos.training.checkpoint import Checkpoint
from distilmos.training.config import TrainConfig
from distilmos.training.inputs import Inputs


def run_identity(config: TrainConfig, inputs: Inputs, device: torch.device) -> dict[str, Any]:
    """Return the settings, and hashes of the inputs, by name."""
    settings = config.model_dump(mode="json", exclude={"num_workers"})
    return settings | {
        "training data": f"{inputs.train.path} ({inputs.train.digest()})",
        "dev data": f"{inputs.dev.path} ({inputs.dev.digest()})",
        "encoder": inputs.encoder.fingerprint(),
        "initial model": weights_hash(inputs.initial) if inputs.initial else None,
        "k-means": inputs.tokens.kmeans if inputs.tokens else None,
        "device": device.type,
    }


def check_identity(stored: Checkpoint, identity: dict[str, Any], out: Path) -> None:
    """Check that a checkpoint in the experiment directory `out` belongs to this run.

    Raises:
        InputError: naming each difference.
    """
    different = identity_differences(stored.identity, identity, "there", "now")
    if different:
        raise InputError(
            f"{out}: holds a run with other settings or data; choose another directory (--out, or --tag of a recipe)"
            f"{different}"
        )


def identity_differences(first: dict[str, Any], second: dict[str, Any], here: str, there: str) -> str:
    """Return a line for each entry that differs, each after a newline; `here` and `there` say where each value is."""
    return "".join(
        f"\n  {name}: {first.get(name)!r} {here}, {second.get(name)!r} {there}"
        for name in dict.fromkeys([*first, *second])
        if first.get(name) != second.get(name)
    )
