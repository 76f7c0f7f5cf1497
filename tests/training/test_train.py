"""`distilmos train` on a small corpus: it learns, stops, continues after a kill to the same bits, refuses bad input."""

from __future__ import annotations

import copy
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from distilmos.cli import main
from distilmos.data.archive import load_array, open_archive, read_scp
from distilmos.data.datadir import Utterance, write_data_dir
from distilmos.data.tables import read_table, write_table
from distilmos.errors import InputError
from distilmos.metrics import agreement, level_scores
from distilmos.model.networks import build_model
from distilmos.model.package import load_model_dir
from distilmos.scoring.results import score_results
from distilmos.ssl.config import WhisperConfig
from distilmos.ssl.load import load_ssl
from distilmos.ssl.store import save_encoder
from distilmos.tokens.info import TokenInfo
from distilmos.training.batching import BatchOrder, BatchPlan
from distilmos.training.batchnorm import recompute_batch_norm
from distilmos.training.config import load_config
from distilmos.training.loader import BatchReader
from distilmos.training.ratedset import read_rated_set, with_tokens
from distilmos.training.trainer import Trainer

TIMES = ("time", "elapsed_seconds", "seconds_per_second", "data_wait", "command")


def events(out: Path) -> list[dict]:
    """Return the log without times and without restarts."""
    log = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    return [
        {key: value for key, value in event.items() if key not in TIMES} for event in log if event["event"] != "resume"
    ]


def start(arguments: list[str]) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "distilmos.cli", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(arguments: list[str]) -> str:
    process = start(arguments)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def kill_after(arguments: list[str], log: Path, lines: int, wait: float) -> None:
    """Start a run and kill it `wait` seconds after its log has `lines` lines."""
    process = start(arguments)
    deadline = time.monotonic() + 200
    while not log.exists() or log.read_bytes().count(b"\n") < lines:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(wait)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"l2_sp": 0.1, "head_steps": 4},
        {"head": "statistics", "lora_rank": 4, "accumulate": 2, "num_workers": 0, "eval_every": 8},
    ],
)
def test_killed_and_started_again_ends_in_the_same_bits(corpus, tmp_path, settings):
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    finish(corpus.arguments(undisturbed, **settings))
    chance = random.Random()
    moments = []
    arguments = corpus.arguments(disturbed, **settings)
    for lines in (chance.randint(1, 4), chance.randint(5, 8)):
        moments.append((lines, chance.uniform(0, 0.3)))
        kill_after(arguments, disturbed / "log.jsonl", *moments[-1])
    output = finish(arguments)
    resumes = [json.loads(line) for line in (disturbed / "log.jsonl").read_text().splitlines() if '"resume"' in line]
    assert 1 <= len(resumes) <= 2, moments
    assert re.search(rf"\b{resumes[-1]['step']}\b", output.splitlines()[0]), moments
    same = (undisturbed / "final" / "model.safetensors").read_bytes()
    assert (disturbed / "final" / "model.safetensors").read_bytes() == same, moments
    assert events(disturbed) == events(undisturbed), moments
    names = [{path.name for path in (out / "checkpoints").iterdir()} for out in (disturbed, undisturbed)]
    assert names[0] == names[1]
    # A further start changes nothing.
    before = {path: path.read_bytes() for path in disturbed.rglob("*") if path.is_file()}
    assert "max_steps" in finish(arguments)
    assert {path: path.read_bytes() for path in disturbed.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_a_directory_has_one_run_at_a_time(corpus, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = corpus.arguments(out, "log_every=1")
    running = start(arguments)
    deadline = time.monotonic() + 200
    while not (out / "log.jsonl").exists() or b'"event": "train"' not in (out / "log.jsonl").read_bytes():
        assert running.poll() is None, running.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    running.send_signal(signal.SIGSTOP)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    error = failure(arguments, capsys)
    assert f"{out}: " in error
    assert len(error.splitlines()) == 1  # with other settings or data, each would have a line
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    running.kill()
    running.wait()
    running.stdout.close()
    assert main(arguments) == 0
    assert events(out)[-1]["event"] == "end"


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory) -> Path:
    """An experiment with enough steps to learn."""
    out = tmp_path_factory.mktemp("exp") / "learn"
    assert main(corpus.arguments(out, "max_steps=90", "eval_every=15", "patience=50", "token_weight=0.3")) == 0
    return out


@pytest.mark.slow
def test_a_small_problem_is_learned(trained):
    log = events(trained)
    train = [event for event in log if event["event"] == "train"]
    dev = [event for event in log if event["event"] == "dev"]
    assert train[-1]["regression"] < train[0]["regression"] / 2
    assert train[-1]["token"] < train[0]["token"] - 0.2
    for event in train:
        assert event["loss"] == pytest.approx(event["regression"] + 0.3 * event["token"])
    assert dev[-1]["utterance"]["LCC"] > 0.7
    assert dev[-1]["utterance"]["LCC"] > dev[0]["utterance"]["LCC"]
    assert max(dev[-1]["token_accuracy"]) > 1.5 / 8
    assert abs(sum(dev[-1]["layer_weights"]) - 1) < 1e-5
    assert [event["event"] for event in log if event["event"] not in ("train", "dev")] == ["start", "end"]


@pytest.mark.slow
def test_final_model_is_the_mean_of_the_best(trained):
    steps = events(trained)[-1]["averaged_steps"]
    ranked = sorted(
        (event for event in events(trained) if event["event"] == "dev"),
        key=lambda event: (event["system"]["SRCC"], -event["regression"]),
        reverse=True,
    )
    assert steps == [event["step"] for event in ranked[:2]]
    parts = [load_file(trained / "checkpoints" / f"step_{step:08d}.safetensors") for step in steps]
    final = load_file(trained / "final" / "model.safetensors")
    assert final.keys() == parts[0].keys()
    for name, tensor in final.items():
        if tensor.is_floating_point() and "running" not in name:
            torch.testing.assert_close(tensor, (parts[0][name] + parts[1][name]) / 2)
    assert not torch.equal(final["linear.weight"], parts[0]["linear.weight"])
    load_model_dir(trained / "final")


@pytest.mark.slow
def test_batch_norm_of_the_final_model_fits_its_weights(corpus, trained):
    """The mean of the running statistics of two models would not fit the mean of their weights."""
    data = read_rated_set(corpus.raw("train"), 2.0)
    model = load_model_dir(trained / "final")
    means = []
    block = model.feature_processor.blocks[0]
    block.bn.register_forward_pre_hook(lambda _, inputs: means.append(inputs[0].mean(0)))
    batches = [BatchReader(data).read(plan) for plan in BatchOrder(data.num_samples, 6 * 16000, 1).epoch(0)]
    with torch.no_grad():
        for batch in batches:
            model(batch.audio, batch.num_samples)
    torch.testing.assert_close(block.bn.running_mean, torch.stack(means).mean(0), rtol=1e-4, atol=1e-5)
    assert {b.bn.num_batches_tracked.item() for b in model.feature_processor.blocks} == {len(batches)}
    # Earlier statistics do not matter, and the model is left ready for prediction.
    again = copy.deepcopy(model)
    for block in again.feature_processor.blocks:
        block.bn.running_mean.fill_(9)
    recompute_batch_norm(again, batches)
    assert not any(module.training for module in again.modules())
    for name, tensor in again.state_dict().items():
        torch.testing.assert_close(tensor, model.state_dict()[name])


@pytest.mark.slow
def test_the_last_line_scores_the_final_model(corpus, trained):
    data = read_rated_set(corpus.raw("dev"), 2.0)
    model = load_model_dir(trained / "final")
    predicted = {}
    with torch.no_grad():
        for member, utterance in enumerate(data.utterances):
            batch = BatchReader(data).read(BatchPlan(0, 0, (member,)))
            predicted[utterance] = float(model(batch.audio, batch.num_samples).mos)
    rated, systems = (dict(zip(data.utterances, values, strict=True)) for values in (data.mos, data.systems))
    dev, *validations = (event for event in reversed(events(trained)) if event["event"] in ("end", "dev"))
    dev = dev["dev"]
    assert dev.keys() == validations[0].keys() - {"event", "step", "best"}
    for level, scores in level_scores(rated, predicted, systems, {}).items():
        assert dev[level] == pytest.approx(agreement(*scores), abs=1e-4)
    assert dev["layer_weights"] == pytest.approx(model.layer_weights().tolist())
    assert all(dev["regression"] != event["regression"] for event in validations)


def test_dev_is_scored_as_any_other_set(corpus, tmp_path):
    data = shutil.copytree(corpus.raw("dev"), tmp_path / "dev")
    write_table(data / "sys2mos", {"sys0": 2.0, "sys1": 4.5, "sys2": 3.0, "sys3": 1.0})
    dev = read_rated_set(data, 2.0)
    predicted = {utterance: 1 + (3 * place) % 7 / 2 for place, utterance in enumerate(dev.utterances)}
    write_table(tmp_path / "results" / "utt2mos", predicted)
    scores = score_results(data, tmp_path / "results", samples=1)
    for level, values in dev.agreement(predicted).items():
        assert values == pytest.approx({name: scores[level][name]["value"] for name in values})
    assert dev.digest() != read_rated_set(corpus.raw("dev"), 2.0).digest()


@pytest.mark.slow
def test_other_settings_or_data_are_not_continued(corpus, trained, capsys):
    arguments = corpus.arguments(trained, "max_steps=90", "eval_every=15", "patience=50", "token_weight=0.3")
    assert main([*arguments, "--set", "num_workers=0"]) == 0  # no effect on the result
    capsys.readouterr()
    assert main([*arguments, "--set", "head_lr=2e-2", "--seed", "9"]) == 2
    first, *lines = capsys.readouterr().err.splitlines()
    assert str(trained) in first
    assert {line.split(":")[0].strip(): re.findall(r"[\d.]+", line) for line in lines} == {
        "head_lr": ["0.01", "0.02"],
        "seed": ["1", "9"],
    }
    infos = {name: TokenInfo.read(corpus.tokens(name)) for name in ("train", "dev")}
    assert infos["train"].kmeans
    try:
        for name, info in infos.items():
            replace(info, kmeans="another").write(corpus.tokens(name))
        assert main(arguments) == 2
        _, line = capsys.readouterr().err.splitlines()
        assert line.split(":")[0].strip() == "k-means"
        assert infos["train"].kmeans in line and "another" in line
    finally:
        for name, info in infos.items():
            info.write(corpus.tokens(name))
    scores = read_table(corpus.raw("dev") / "utt2mos")
    try:
        write_table(corpus.raw("dev") / "utt2mos", scores | {"utt00": "1.5"})
        assert main(arguments) == 2
        _, line = capsys.readouterr().err.splitlines()
        assert line.split(":")[0].strip() == "dev data"
    finally:
        write_table(corpus.raw("dev") / "utt2mos", scores)


@pytest.mark.slow
@pytest.mark.parametrize("damaged", ["model", "optimizer"])
def test_a_checkpoint_that_does_not_fit_is_named_and_kept(corpus, tmp_path, capsys, damaged):
    arguments = corpus.arguments(tmp_path / "exp", "max_steps=4", "eval_every=4", "token_weight=0", "model=sslmos")
    assert main(arguments) == 0
    path = tmp_path / "exp" / "checkpoints" / "last.pt"
    content = torch.load(path, weights_only=True)
    content["state"]["ended"] = ""
    if damaged == "model":
        content["model"]["linear.weight"] = content["model"]["linear.weight"][:, :-1].clone()
    else:
        content["optimizer"]["param_groups"].pop()
    torch.save(content, path)
    before = {path: path.read_bytes() for path in (tmp_path / "exp").rglob("*") if path.is_file()}
    assert str(path) in failure(arguments, capsys)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.slow
def test_training_stops_when_the_metric_stops_rising(corpus, tmp_path):
    # With a frozen encoder and a head rate near 0, the metric does not improve for long.
    out = tmp_path / "stop"
    sets = ("encoder_lr=0", "head_lr=1e-12", "max_steps=500", "eval_every=2", "patience=3", "regression_clip=3.9")
    assert main(corpus.arguments(out, *sets, num_workers=0)) == 0
    log = events(out)
    assert log[-1]["reason"] == "early_stopping"
    dev = [event for event in log if event["event"] == "dev"]
    assert [event["best"] for event in dev[-4:]] == [True, False, False, False]
    assert log[-1]["step"] == dev[-1]["step"] < 500


@pytest.mark.slow
@pytest.mark.parametrize("sets", [("model=sslmos", "token_weight=0"), ("token_weight=0",), ("precision=bfloat16",)])
def test_baseline_ablation_and_bfloat16(corpus, tmp_path, sets):
    out = tmp_path / "out"
    arguments = corpus.arguments(out, *sets, "max_steps=6", num_workers=0)
    if "model=sslmos" in sets:
        arguments = arguments[: arguments.index("--train-tokens")]
    assert main(arguments) == 0
    dev = next(event for event in events(out) if event["event"] == "dev")
    assert (dev["token"] is None) == ("precision=bfloat16" not in sets)
    assert (dev["layer_weights"] is None) == ("model=sslmos" in sets)


def test_a_spectral_network_is_trained_and_initialises_the_branch_of_any_network(corpus, trained, tmp_path, capsys):
    spectral = corpus.arguments(tmp_path / "spectral", model="spectral", spectral_dim=8)
    assert main(spectral[: spectral.index("--train-tokens")]) == 0
    initial = tmp_path / "spectral" / "final"
    before = load_model_dir(initial)
    assert all(name.startswith("spectral.") for name in load_file(initial / "model.safetensors"))
    assert main(["export", str(tmp_path / "spectral"), "--out", str(tmp_path / "model")]) == 0
    assert "- network: spectral, " in (tmp_path / "model" / "README.md").read_text()
    assert main(["analyze", str(tmp_path / "spectral"), "--data", str(corpus.raw("dev"))]) == 2
    assert str(tmp_path / "spectral") in capsys.readouterr().err
    scores = events(tmp_path / "spectral")[-1]["dev"]["utterance"]
    assert scores["LCC"] > 0.9
    frozen = {"max_steps": 1, "warmup_steps": 0, "eval_every": 1, "encoder_lr": 0, "head_lr": 1e-12}
    out = tmp_path / "both"
    assert main(corpus.arguments(out, init_model=str(initial), spectral_dim=8, **frozen)) == 0
    after = load_model_dir(out / "final")
    for name, value in before.spectral.named_parameters():
        torch.testing.assert_close(value, after.spectral.get_parameter(name), atol=1e-6, rtol=0)
    # Its first scores are those of the spectral network, except for the statistics of batch norm.
    assert events(out)[-1]["dev"]["utterance"]["LCC"] == pytest.approx(scores["LCC"], abs=0.02)
    other = corpus.arguments(
        tmp_path / "other", init_model=str(initial), ssl_model="hubert_tiny", model="sslmos", **frozen
    )
    assert main([*other[: other.index("--train-tokens")], "--set", "spectral_dim=8"]) == 0
    assert load_model_dir(tmp_path / "other" / "final").encoder_config == load_ssl("hubert_tiny").config
    wide = corpus.arguments(tmp_path / "wrong", **frozen, spectral_dim=9, init_model=str(initial))
    message = failure(wide, capsys)
    assert str(initial) in message and "spectral." in message and "(8," in message and "(9," in message
    assert f"{tmp_path / 'none.yaml'}: spectral_dim: " in failure(
        corpus.arguments(tmp_path / "none", **frozen, model="spectral"), capsys
    )


def test_a_trained_model_is_trained_further(corpus, trained, tmp_path, capsys):
    """Its weights are the initial weights; token predictors are kept only if the ids mean the same clusters."""
    before = load_model_dir(trained / "final").state_dict()
    frozen = {"max_steps": 1, "warmup_steps": 0, "eval_every": 1, "encoder_lr": 0, "head_lr": 1e-12, "seed": 9}
    initial = tmp_path / "initial"
    shutil.copytree(trained / "final", initial)

    def changed() -> set[str]:
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        assert main(corpus.arguments(out, init_model=str(initial), **frozen)) == 0
        after = load_model_dir(out / "final").state_dict()
        # Statistics of batch norm are recomputed for every final model.
        return {
            name.split(".")[0]
            for name, value in after.items()
            if "running_" not in name
            and "num_batches" not in name
            and not torch.allclose(value, before[name], atol=1e-6)
        }

    assert changed() == set()
    config = (initial / "config.yaml").read_text()
    other_tokens = re.sub(r"kmeans: .*", "kmeans: 0123456789abcdef", config)
    assert other_tokens != config
    (initial / "config.yaml").write_text(other_tokens)
    assert changed() == {"predictors"}
    wide = corpus.arguments(tmp_path / "wide", init_model=str(initial), **frozen, hidden_dim=24)
    message = failure(wide, capsys)
    assert str(initial) in message and "(1, 16)" in message and "(1, 24)" in message
    shorter = corpus.arguments(
        tmp_path / "shorter", init_model=str(initial), **frozen, token_weight=0, strides=[2, 1, 1]
    )
    message = failure(shorter, capsys)
    assert str(initial) in message and "[1, 1, 1]" in message and "[2, 1, 1]" in message
    other_encoder = corpus.arguments(
        tmp_path / "other", init_model=str(initial), ssl_model="hubert_tiny", model="sslmos"
    )
    message = failure(other_encoder[: other_encoder.index("--train-tokens")], capsys)
    assert str(initial) in message and "hubert_tiny" in message and "2 layers" in message


@pytest.mark.slow
def test_accumulated_batches_weigh_as_one(corpus, tmp_path):
    """One step over two unequal batches has the gradient of one batch with both, except for batch norm."""
    encoder = load_ssl(corpus.encoder)
    arguments = corpus.arguments(tmp_path / "out", dropout=0, encoder_dropout=0, num_workers=0, regression_clip=0)
    config = load_config(arguments[2])
    data, tokens = with_tokens(read_rated_set(corpus.raw("train"), 2.0), corpus.tokens("train"), (1, 2), encoder)
    reader = BatchReader(data)

    def stepped(*groups: tuple[int, ...]) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model = build_model(config, load_ssl(corpus.encoder), tokens.clusters)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                module.momentum = 0.0
                module.forward = lambda x, bn=module: torch.nn.functional.batch_norm(
                    x, bn.running_mean, bn.running_var, bn.weight, bn.bias
                )
        trainer = Trainer(config, model, data, data, tmp_path, torch.device("cpu"), {})
        trainer._step([reader.read(BatchPlan(0, place, group)) for place, group in enumerate(groups)])
        return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}

    together, apart = stepped((0, 1, 2, 3, 4)), stepped((0,), (1, 2, 3, 4))
    assert together.keys() == apart.keys()
    for name, gradient in together.items():
        torch.testing.assert_close(apart[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.slow
def test_pairs_of_a_batch_count_only_in_training(corpus, tmp_path):
    sets = ("model=sslmos", "token_weight=0", "max_steps=6", "log_every=6")
    arguments = corpus.arguments(tmp_path / "out", *sets, num_workers=0)
    assert main([*arguments, "--set", "contrastive_weight=2"]) == 0
    step, dev = (
        next(event for event in events(tmp_path / "out") if event["event"] == kind) for kind in ("train", "dev")
    )
    assert step["contrastive"] > 0
    assert step["loss"] == pytest.approx(step["regression"] + 2 * step["contrastive"])
    model = load_model_dir(tmp_path / "out" / "final")
    data = read_rated_set(corpus.raw("dev"), 2.0)
    with torch.no_grad():
        batches = [BatchReader(data).read(BatchPlan(0, 0, (member,))) for member in range(len(data.utterances))]
        errors = [abs(float(model(batch.audio, batch.num_samples).mos - batch.scores[0, 0])) for batch in batches]
    wanted = sum(error for error in errors if error > 0.1) / len(errors)
    assert events(tmp_path / "out")[-1]["dev"]["regression"] == pytest.approx(wanted, abs=1e-4)
    assert "contrastive" not in dev


def failure(arguments: list[str], capsys) -> str:
    assert main(arguments) == 2
    return capsys.readouterr().err


def test_tokens_must_fit_the_audio_and_the_encoder(corpus, tmp_path, capsys):
    source = corpus.tokens("train")
    bad = tmp_path / "tokens"
    for layer in (1, 2):
        with open_archive(bad / f"layer{layer}") as archive:
            for utterance, location in read_scp(source / f"layer{layer}.scp").items():
                tokens = load_array(location)
                archive.write(utterance, tokens[:-1] if (utterance, layer) == ("utt05", 2) else tokens)
    TokenInfo.read(source).write(bad)
    arguments = corpus.arguments(tmp_path / "out")
    arguments[arguments.index("--train-tokens") + 1] = str(bad)
    message = failure(arguments, capsys)
    assert f"{bad / 'layer2.scp'}" in message
    assert "utt05" in message
    other = corpus.arguments(tmp_path / "out2", "ssl_model=hubert_tiny")
    assert str(corpus.tokens("train")) in failure(other, capsys)
    assert "--train-tokens" in failure(other[: other.index("--train-tokens")], capsys)
    assert not (tmp_path / "out").exists()


def test_foreign_tokens_are_accepted_if_the_settings_say_so(corpus, tmp_path, capsys):
    """Another fingerprint means another model."""
    tokens = {}
    for name in ("train", "dev"):
        tokens[name] = tmp_path / f"{name}_tokens"
        shutil.copytree(corpus.tokens(name), tokens[name])
        replace(TokenInfo.read(tokens[name]), fingerprint="of another one").write(tokens[name])

    def arguments(out: str, **settings: object) -> list[str]:
        found = corpus.arguments(tmp_path / out, max_steps=2, warmup_steps=1, eval_every=2, **settings)
        for name in ("train", "dev"):
            found[found.index(f"--{name}-tokens") + 1] = str(tokens[name])
        return found

    assert f"{tokens['train']}" in failure(arguments("own"), capsys)
    assert main(arguments("foreign", foreign_tokens=True)) == 0
    replace(TokenInfo.read(tokens["train"]), layers=3).write(tokens["train"])
    assert str(tokens["train"] / "layer3.scp") in failure(arguments("layers", foreign_tokens=True), capsys)


def test_tokens_of_train_and_dev_must_be_of_one_kmeans(corpus, tmp_path, capsys):
    other = shutil.copytree(corpus.tokens("dev"), tmp_path / "tokens")
    arguments = corpus.arguments(tmp_path / "out")
    arguments[arguments.index("--dev-tokens") + 1] = str(other)
    info = TokenInfo.read(other)
    for changed, value in ((replace(info, kmeans="another"), "another"), (replace(info, clusters=9), "9 clusters")):
        changed.write(other)
        message = failure(arguments, capsys)
        assert f"{other}: " in message and str(corpus.tokens("train")) in message
        assert value in message.replace(str(other), "")


def test_long_recordings_are_refused_not_cut(corpus, tmp_path, capsys):
    durations = {u: float(s) for u, s in read_table(corpus.raw("train") / "utt2dur").items()}
    limit = sorted(durations.values())[-2] - 1e-6
    message = failure(corpus.arguments(tmp_path / "out", f"max_seconds={limit}"), capsys)
    assert message.count("utt2dur:") == 2
    assert max(durations, key=durations.get) in message


def test_one_message_says_which_settings_long_recordings_need(tmp_path):
    soundfile.write(tmp_path / "long.wav", np.zeros(16000), 16000)
    write_data_dir(tmp_path / "data", [Utterance("u", tmp_path / "long.wav", "s", 3.0, seconds=40.0)])
    where = f"{tmp_path / 'data/utt2dur'}:1: u "
    with pytest.raises(InputError) as error:
        read_rated_set(tmp_path / "data", 30.0)
    assert {"max_seconds", "batch_seconds", "40"} <= set(re.findall(r"\w+", str(error.value)))
    assert where in str(error.value)
    with pytest.raises(InputError) as error:
        read_rated_set(tmp_path / "data", 30.0, WhisperConfig(4, 4, 1, 1).max_seconds)
    assert "30.01" in str(error.value) and "batch_seconds" not in str(error.value) and where in str(error.value)


def test_an_undefined_metric_is_refused(corpus, tmp_path, capsys):
    arguments = corpus.arguments(tmp_path / "out")
    dev = tmp_path / "dev"
    dev.mkdir()
    for path in corpus.raw("dev").iterdir():
        (dev / path.name).symlink_to(path)
    (dev / "utt2sys").unlink()
    write_table(dev / "utt2sys", dict.fromkeys(read_table(corpus.raw("dev") / "utt2sys"), "one"))
    arguments[arguments.index("--dev") + 1] = str(dev)
    message = failure(arguments, capsys)
    assert f"{dev}: " in message and "system_SRCC" in message and "1 systems" in message


def test_durations_that_are_not_exact_are_refused(corpus, tmp_path):
    data = read_rated_set(corpus.raw("train"), 2.0)
    data.num_samples[3] += 7
    with pytest.raises(InputError) as error:
        BatchReader(data).read(BatchPlan(0, 0, (3,)))
    assert f"{corpus.raw('train') / 'utt2dur'}:4: {data.utterances[3]}: " in str(error.value)
    assert set(map(str, (data.num_samples[3], data.num_samples[3] - 7))) <= set(re.findall(r"\d+", str(error.value)))


def test_a_loss_that_is_not_finite_names_step_and_utterances(corpus, tmp_path, capsys):
    encoder = load_ssl(corpus.encoder)
    with torch.no_grad():
        encoder.layers[0].out.bias.fill_(np.nan)
    save_encoder(encoder, tmp_path / "nan.safetensors")
    sets = (f"ssl_model={tmp_path / 'nan.safetensors'}", "model=sslmos", "token_weight=0")
    assert main(corpus.arguments(tmp_path / "out", *sets, num_workers=0)) == 1
    message = capsys.readouterr().err
    assert "step 1: " in message and "nan" in message
    assert re.search(r"\butt\d\d\b", message)
