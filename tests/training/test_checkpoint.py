"""The selection and the average of the best models; reading a checkpoint executes nothing."""

from __future__ import annotations

import math
import pickle

import pytest
import torch

from distilmos.errors import InputError
from distilmos.training.checkpoint import (
    Checkpoint,
    Evaluation,
    TrainState,
    average_weights,
    drop_weights,
    load_checkpoint,
    save_checkpoint,
    save_weights,
)


def test_the_best_are_kept_in_order_and_patience_counts_since_the_best():
    state = TrainState()
    values = [0.5, math.nan, 0.7, 0.6, 0.7, 0.65]
    losses = [1.0, 0.1, 1.0, 1.0, 0.9, 1.0]
    outcome = []
    for step, (value, loss) in enumerate(zip(values, losses, strict=True), start=1):
        outcome.append((state.note(Evaluation(step, value, loss), keep=3), state.stale))
    # Step 5 differs from step 3 only by its lower loss; NaN is worse than any value.
    assert outcome == [(True, 0), (False, 1), (True, 0), (False, 1), (True, 0), (False, 1)]
    assert [evaluation.step for evaluation in state.best] == [5, 3, 6]


def test_average_is_the_mean_and_counters_are_the_best_ones(tmp_path):
    for step, value in ((10, 1.0), (20, 2.0), (30, 6.0)):
        save_weights(tmp_path, step, {"w": torch.full((2, 3), value), "count": torch.tensor(step)})
    averaged = average_weights(tmp_path, [20, 10, 30])
    assert torch.equal(averaged["w"], torch.full((2, 3), 3.0))
    assert averaged["w"].dtype == torch.float32
    assert averaged["count"].item() == 20
    drop_weights(tmp_path, [20])
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000020.safetensors"]


def test_a_checkpoint_comes_back_whole(tmp_path):
    parameter = torch.nn.Parameter(torch.arange(3.0))
    optimizer = torch.optim.AdamW([parameter])
    parameter.grad = torch.ones(3)
    optimizer.step()
    state = TrainState(step=3, epoch=1, place=2, best=[Evaluation(2, math.nan, 0.5)], sums={"loss": 0.1}, elapsed=1.5)
    written = Checkpoint({"seed": 1, "kernels": [3]}, 2, state, {"w": parameter.detach()}, optimizer.state_dict())
    save_checkpoint(tmp_path / "last.pt", written)
    read = load_checkpoint(tmp_path / "last.pt")
    assert repr(read.state) == repr(state)
    assert read.identity == written.identity
    assert repr(read.optimizer) == repr(written.optimizer)


def test_other_files_are_not_checkpoints(tmp_path):
    for content in (1, [2], {"state": 3}, {"state": {"best": [4]}}):
        torch.save(content, tmp_path / "last.pt")
        with pytest.raises(InputError, match=r"last\.pt: "):
            load_checkpoint(tmp_path / "last.pt")


@pytest.mark.parametrize(
    ("section", "changes", "value"),
    [
        ("state", {"step": "five"}, "five"),
        ("state", {"best": [{"step": 1, "value": "high", "regression": 0.5}]}, "high"),
        ("state", {"log_bytes": 2.5}, r"2\.5"),
        ("identity", [7], r"\[7\]"),
    ],
)
def test_values_of_a_wrong_type_are_not_a_checkpoint(tmp_path, section, changes, value):
    save_checkpoint(tmp_path / "last.pt", Checkpoint({"seed": 1}, 2, TrainState(), {}, {}))
    content = torch.load(tmp_path / "last.pt", weights_only=True)
    content[section] = {**content[section], **changes} if isinstance(changes, dict) else changes
    torch.save(content, tmp_path / "last.pt")
    with pytest.raises(InputError, match=rf"(?s)last\.pt: .*{value}"):
        load_checkpoint(tmp_path / "last.pt")


def test_damaged_weights_are_named_when_they_are_averaged(tmp_path):
    for step in (1, 2):
        save_weights(tmp_path, step, {"w": torch.ones(2)})
    damaged = tmp_path / "step_00000002.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:20])
    with pytest.raises(InputError, match=r"step_00000002\.safetensors: "):
        average_weights(tmp_path, [1, 2])


class Exploit:
    def __reduce__(self):
        return exec, ("raise SystemExit('executed')",)


def test_a_checkpoint_executes_nothing(tmp_path):
    (tmp_path / "last.pt").write_bytes(pickle.dumps(Exploit()))
    with pytest.raises(InputError, match=r"last\.pt: "):
        load_checkpoint(tmp_path / "last.pt")
    torch.save({"state": Exploit()}, tmp_path / "last.pt")
    with pytest.raises(InputError, match=r"last\.pt: "):
        load_checkpoint(tmp_path / "last.pt")
