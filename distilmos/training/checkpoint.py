"""Checkpoints, from which a run continues exactly, and the average of the best models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors.torch import save_file
from torch import Tensor

from distilmos.errors import InputError
from distilmos.files import atomic_path, leftovers
from distilmos.ssl.pickles import read_pickle
from distilmos.ssl.weights import read_safetensors


@dataclass(frozen=True)
class Evaluation:
    """The result of one evaluation on the dev set.

    Attributes:
        step: number of steps before it.
        value: of the metric that selects the best model, negated if lower is better; may be NaN.
        regression: the regression loss.
    """

    step: int
    value: float
    regression: float

    def rank(self) -> tuple[float, float]:
        """Return a sort key, larger is better: an undefined metric is worst, the lower loss breaks ties."""
        return (
            -math.inf if math.isnan(self.value) else self.value,
            -math.inf if math.isnan(self.regression) else -self.regression,
        )


@dataclass
class TrainState:
    """The state of a run: everything that its future depends on, besides weights, optimiser and settings.

    Random numbers need no state: seed, step and process seed those of each step.

    Attributes:
        step: optimiser steps done.
        epoch: of the next batch, counted from 0.
        place: of the next batch in its epoch.
        best: the evaluations of the kept models, best first.
        stale: number of evaluations since the best one.
        sums: sums for the next line of the log.
        log_bytes: length of log.jsonl.
        elapsed: seconds of training so far.
        ended: why training ended; empty before its end.
    """

    step: int = 0
    epoch: int = 0
    place: int = 0
    best: list[Evaluation] = field(default_factory=list)
    stale: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    log_bytes: int = 0
    elapsed: float = 0.0
    ended: str = ""

    def note(self, evaluation: Evaluation, keep: int) -> bool:
        """Add an evaluation; keep the `keep` best ones. Return whether this one is the best."""
        is_best = not self.best or evaluation.rank() > self.best[0].rank()
        self.stale = 0 if is_best else self.stale + 1
        self.best = sorted([*self.best, evaluation], key=Evaluation.rank, reverse=True)[:keep]
        return is_best


@dataclass
class Checkpoint:
    """The content of a checkpoint file.

    Attributes:
        identity: of the run, see `run_identity`; a run with another identity cannot continue from it.
        threads: CPU threads of a process, on which rounding depends.
        state: of the run.
        model: weights and buffers.
        optimizer: the optimiser's state.
        processes: number of processes, on which rounding and dropout depend.
    """

    identity: dict[str, Any]
    threads: int
    state: TrainState
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    processes: int = 1


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically; it holds only tensors and plain values, so that reading it executes nothing."""
    content = {
        "identity": checkpoint.identity,
        "threads": checkpoint.threads,
        "state": asdict(checkpoint.state),
        "model": checkpoint.model,
        "optimizer": checkpoint.optimizer,
        "processes": checkpoint.processes,
    }
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint into CPU memory.

    Raises:
        InputError: if the file cannot be read.
    """
    try:
        content = read_pickle(Path(path), allowed=())
        values = content.pop("state")
        best = [Evaluation(**evaluation) for evaluation in values.pop("best")]
        state = TrainState(best=best, **values)
        TypeAdapter(TrainState).validate_python(asdict(state))
        TypeAdapter(dict[str, Any]).validate_python(content["identity"])
        return Checkpoint(state=state, **content)
    except (KeyError, TypeError, AttributeError, ValueError) as error:  # a ValidationError is a ValueError
        raise InputError(f"{path}: not a checkpoint of this version: {error}") from None


def weights_path(directory: Path, step: int) -> Path:
    """Return the path of the weights after `step` in a checkpoint directory."""
    return directory / f"step_{step:08d}.safetensors"


def save_weights(directory: Path, step: int, model: dict[str, Tensor]) -> None:
    """Write the weights after `step` atomically."""
    with atomic_path(weights_path(directory, step)) as temporary:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in model.items()}, temporary)


def drop_weights(directory: Path, keep: Sequence[int]) -> None:
    """Remove the weights of all steps except those in `keep`, and the temporary files of killed processes."""
    kept = {weights_path(directory, step) for step in keep}
    for path in [*directory.glob("step_*.safetensors"), *leftovers(directory)]:
        if path not in kept:
            path.unlink()


def average_weights(directory: Path, steps: Sequence[int]) -> dict[str, Tensor]:
    """Return the mean of the weights after each of `steps`; integer counters are those of the first step.

    The sum is in float64, so that its order does not matter at float32 precision.

    Raises:
        InputError: if a file is missing or damaged.
    """
    first = read_safetensors(weights_path(directory, steps[0]))
    sums = {name: tensor.double() for name, tensor in first.items() if tensor.is_floating_point()}
    for step in steps[1:]:
        for name, tensor in read_safetensors(weights_path(directory, step)).items():
            if name in sums:
                sums[name] += tensor
    return first | {name: (total / len(steps)).to(first[name].dtype) for name, total in sums.items()}
