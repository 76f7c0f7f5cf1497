"""Several corpora with different scales, and listeners with biases: training and prediction."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from distilmos.cli import main
from distilmos.data.tables import read_floats, read_table, write_table
from distilmos.data.transform import combine_data
from distilmos.model.package import load_model_dir

SHIFT = 0.8  # listeners of the second corpus rate lower by this much


@pytest.fixture(scope="module")
def joint(corpus, tmp_path_factory) -> tuple[list[str], Path]:
    """The training set as two corpora with different scales: arguments of `distilmos train`, and the joint sets."""
    root = tmp_path_factory.mktemp("joint")
    names = sorted(read_table(corpus.raw("train") / "wav.scp"))
    for label, place in (("first", 0), ("second", 1)):
        chosen = root / f"{label}.list"
        chosen.write_text("\n".join(names[place::2]))
        assert main(["subset-data", str(corpus.raw("train")), str(root / label), "--utt-list", str(chosen)]) == 0
    low = read_floats(root / "second" / "utt2mos")
    write_table(root / "second" / "utt2mos", {u: max(1.0, mos - SHIFT) for u, mos in low.items()})
    combine_data(root / "train", [("first", root / "first"), ("second", root / "second")])
    arguments = corpus.arguments(root / "exp" / "joint", "max_steps=120", "encoder_lr=0", "num_workers=0")
    arguments[arguments.index("--train") + 1] = str(root / "train")
    return arguments, root


@pytest.mark.slow
def test_corpora_keep_their_scales(joint, corpus, tmp_path, capsys) -> None:
    arguments, root = joint
    assert main([*arguments, "--set", "corpus_weights={second: 1.5}"]) == 0
    final = root / "exp" / "joint" / "final"
    model = load_model_dir(final)
    assert model.corpus_offsets is not None
    assert model.corpus_offsets.names == ("first", "second")
    values = (model.corpus_offsets.values - model.corpus_offsets.values.mean()).detach()
    assert 0.15 < float(values[0]) < SHIFT
    scores = {}
    for label in ("first", "second", None):
        out = tmp_path / f"{label}.txt"
        option = ["--corpus", label] if label else []
        assert main(["predict", str(corpus.raw("dev")), "--model", str(final), "--out", str(out), *option]) == 0
        scores[label] = np.array(list(read_floats(out).values()))
    # Without a label, on the mean scale.
    np.testing.assert_allclose((scores["first"] + scores["second"]) / 2, scores[None], atol=1e-5)
    np.testing.assert_allclose(scores["first"] - scores["second"], float(values[0] - values[1]), atol=1e-5)
    capsys.readouterr()
    command = ["predict", str(corpus.raw("dev")), "--model", str(final), "--corpus", "third"]
    assert main(command) == 2
    assert {"third", "first", "second"} <= set(re.findall(r"\w+", capsys.readouterr().err))


@pytest.mark.slow
def test_offsets_can_be_switched_off(joint) -> None:
    arguments, root = joint
    arguments = [*arguments, "--set", "corpus_offsets=false", "--set", "max_steps=4"]
    arguments[arguments.index("--out") + 1] = str(root / "exp" / "without")
    assert main(arguments) == 0
    assert load_model_dir(root / "exp" / "without" / "final").corpus_offsets is None


def test_a_weight_of_an_unknown_corpus_is_refused(joint, corpus, tmp_path, capsys) -> None:
    arguments, root = joint
    assert main([*arguments, "--set", "corpus_weights={third: 2}"]) == 2
    message = capsys.readouterr().err
    assert f"{root / 'train'}: " in message
    assert {"third", "first", "second"} <= set(re.findall(r"\w+", message))
    assert main(corpus.arguments(tmp_path / "out", "corpus_weights={third: 2}")) == 2
    message = capsys.readouterr().err
    assert f"{corpus.raw('train')}: " in message and "third" in message and "utt2corpus" in message
    assert main([*arguments, "--set", "corpus_weights={first: 0}"]) == 2
    assert "--set corpus_weights={first: 0}: corpus_weights: " in capsys.readouterr().err


@pytest.fixture
def with_ratings(corpus, tmp_path) -> list[str]:
    """The training set with ratings of a severe, a middle and a lenient listener, each of two thirds of the set."""
    train = tmp_path / "train"
    assert main(["subset-data", str(corpus.raw("train")), str(train), "--count", "24"]) == 0
    mos = read_floats(train / "utt2mos")
    biases = {"lenient": 0.6, "middle": 0.0, "severe": -0.6}
    lines, means = [], {}
    for number, (utterance, value) in enumerate(sorted(mos.items())):
        chosen = [name for place, name in enumerate(biases) if place != number % 3]
        scores = [float(np.clip(value + biases[name], 1, 5)) for name in chosen]
        means[utterance] = sum(scores) / 2
        lines += [f"{utterance} {name} {score}\n" for name, score in zip(chosen, scores, strict=True)]
    write_table(train / "utt2mos", means)
    (train / "ratings").write_text("".join(lines))
    settings = ("max_steps=60", "encoder_lr=0", "num_workers=0", "listener_offsets=true", "regression_loss=mse")
    arguments = corpus.arguments(tmp_path / "exp", *settings)
    arguments[arguments.index("--train") + 1] = str(train)
    return arguments


@pytest.mark.slow
def test_listeners_are_told_apart(with_ratings, corpus, tmp_path) -> None:
    assert main(with_ratings) == 0
    steps = json.loads((tmp_path / "exp" / "log.jsonl").read_text().splitlines()[-1])["averaged_steps"]
    weights = load_file(tmp_path / "exp" / "checkpoints" / f"step_{steps[0]:08d}.safetensors")
    lenient, middle, severe = (weights["listener_offsets.values"] - weights["listener_offsets.values"].mean()).tolist()
    assert severe < middle < lenient
    assert lenient - severe > 0.2
    # The final model has no listeners: it predicts for the mean listener.
    assert "listener_offsets.values" not in load_file(tmp_path / "exp" / "final" / "model.safetensors")
    command = ["predict", str(corpus.raw("dev")), "--model", str(tmp_path / "exp" / "final")]
    assert main([*command, "--out", str(tmp_path / "utt2mos")]) == 0


def test_listener_offsets_need_ratings(corpus, tmp_path, capsys) -> None:
    assert main(corpus.arguments(tmp_path / "out", "listener_offsets=true", "regression_loss=mse")) == 2
    said = capsys.readouterr().err
    assert f"{corpus.raw('train')}/ratings: " in said and "listener_offsets" in said
