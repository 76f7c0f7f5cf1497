"""The options that keep a fine-tuned encoder close to its start do as their papers say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from distilmos.cli import main
from distilmos.data.audio import read_audio
from distilmos.model.networks import build_model
from distilmos.model.package import load_model_dir
from distilmos.ssl.load import load_ssl
from distilmos.training.config import TrainConfig
from distilmos.training.optimizer import StartPenalty
from distilmos.training.ratedset import read_rated_set

FEW_STEPS = ("model=sslmos", "token_weight=0", "warmup_steps=0", "eval_every=1", "n_best=9", "weight_decay=0")


def start(corpus) -> dict[str, Tensor]:
    """Return the weights of the pretrained encoder."""
    return load_ssl(str(corpus.encoder)).state_dict()


def at_step(exp: Path, step: int) -> dict[str, Tensor]:
    """Return the weights of the encoder after a step."""
    weights = load_file(exp / "checkpoints" / f"step_{step:08d}.safetensors")
    return {name.removeprefix("encoder."): value for name, value in weights.items() if name.startswith("encoder.")}


def largest_change(before: dict[str, Tensor], after: dict[str, Tensor], part: str) -> float:
    return max(float((after[name] - before[name]).abs().max()) for name in before if name.startswith(part))


def test_lora_changes_each_linear_map_by_a_matrix_of_low_rank_and_nothing_else(corpus, tmp_path) -> None:
    sets = ("max_steps=3", "lora_rank=2", "encoder_lr=1e-2", "n_best=1")
    assert main(corpus.arguments(tmp_path / "exp", *FEW_STEPS, *sets)) == 0
    model = load_model_dir(tmp_path / "exp" / "final")
    after, before = model.encoder.state_dict(), start(corpus)
    assert list(after) == list(before)
    adapted = ("qkv.weight", "out.weight", "ffn_in.weight", "ffn_out.weight")
    for name, value in before.items():
        change = after[name] - value
        if not name.endswith(adapted):
            assert torch.equal(after[name], value), name
            continue
        for block in change.double().chunk(3 if "qkv" in name else 1):
            sizes = torch.linalg.svdvals(block)
            assert sizes[1] > 1e-4 > 1e-3 * sizes[0] > sizes[2], name


def test_each_layer_has_its_share_of_the_rate(corpus, tmp_path) -> None:
    """The first step of AdamW changes each weight by its rate."""
    sets = ("max_steps=1", "layer_decay=0.5", "freeze_conv=false", "encoder_lr=1e-3", "decay=constant")
    assert main(corpus.arguments(tmp_path / "exp", *FEW_STEPS, *sets)) == 0
    before, after = start(corpus), at_step(tmp_path / "exp", 1)
    for part, rate in (("layers.1.", 1e-3), ("layers.0.", 5e-4), ("conv.", 2.5e-4)):
        assert largest_change(before, after, part) == pytest.approx(rate, rel=1e-2)


def test_the_heads_are_trained_first(corpus, tmp_path) -> None:
    """The encoder does not change in the first steps, which are not evaluated; then its rate rises from 0."""
    sets = ("max_steps=6", "head_steps=2", "warmup_steps=2", "decay=constant", "encoder_lr=1e-3", "layer_decay=1")
    assert main(corpus.arguments(tmp_path / "exp", *FEW_STEPS, *sets)) == 0
    weights = sorted((tmp_path / "exp" / "checkpoints").glob("step_*.safetensors"))
    assert [path.stem for path in weights] == [f"step_{step:08d}" for step in (3, 4, 5, 6)]
    assert largest_change(start(corpus), at_step(tmp_path / "exp", 3), "layers.") == pytest.approx(5e-4, rel=1e-2)


def test_the_penalty_on_the_distance_from_the_start_has_its_gradient(corpus) -> None:
    config = TrainConfig(model="sslmos", token_weight=0, l2_sp=0.3)
    model = build_model(config, load_ssl(str(corpus.encoder)), None)
    penalty = StartPenalty(model, config.l2_sp)
    before = {name: value.detach().clone() for name, value in model.encoder.named_parameters()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    sum(parameter.sum() for parameter in model.parameters()).backward()
    penalty.add_gradients()
    for name, parameter in model.named_parameters():
        given = 1 + 0.3 * (parameter - before[name[8:]]) if name.startswith("encoder.") else torch.ones_like(parameter)
        torch.testing.assert_close(parameter.grad, given, msg=name)


def test_the_penalty_keeps_the_encoder_close(corpus, tmp_path) -> None:
    """Two runs that differ in the penalty alone."""
    before, distances = start(corpus), []
    for weight in (0, 10):
        exp = tmp_path / f"exp{weight}"
        assert main(corpus.arguments(exp, *FEW_STEPS, "max_steps=8", f"l2_sp={weight}")) == 0
        after = at_step(exp, 8)
        distances.append(sum(float((after[name] - before[name]).square().sum()) for name in before))
    assert 0 < distances[1] < 0.5 * distances[0]


def test_features_of_the_frozen_encoder_can_be_distilled_instead_of_tokens(corpus, tmp_path) -> None:
    sets = ("distillation=features", "target_layers=[2]", "token_weight=3", "max_steps=40", "eval_every=20")
    arguments = corpus.arguments(tmp_path / "exp", *sets)
    assert main(arguments[: arguments.index("--train-tokens")]) == 0
    log = [json.loads(line) for line in (tmp_path / "exp" / "log.jsonl").read_text().splitlines()]
    step = next(event for event in log if event["event"] == "train")
    assert step["loss"] == pytest.approx(step["regression"] + 3 * step["token"])
    model, frozen = load_model_dir(tmp_path / "exp" / "final"), load_ssl(str(corpus.encoder))
    dev, distances = read_rated_set(corpus.raw("dev"), 9.0), []
    for location in dev.locations:
        audio = torch.from_numpy(read_audio(*location))[None]
        samples = torch.tensor([audio.shape[1]])
        with torch.inference_mode():
            (predicted,) = model(audio, samples).token_logits
            wanted = frozen(audio, samples)[0][1]
        sizes = predicted.norm(dim=2) * wanted.norm(dim=2)
        distances.append(1 - (predicted * wanted).sum(2)[0] / sizes[0])
    expected = float(torch.cat(distances).mean())
    assert log[-1]["dev"]["token"] == pytest.approx(expected, rel=1e-3)
    assert log[-1]["dev"]["token_accuracy"] is None
    first = next(event for event in log if event["event"] == "dev")
    assert expected < first["token"]
