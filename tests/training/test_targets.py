"""Other scales than 1..5, and several targets: from the data directory to the report."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from distilmos import load
from distilmos.cli import main
from distilmos.data.tables import read_floats, write_table
from distilmos.model.package import load_model_dir

SHORT = ("model=sslmos", "token_weight=0", "max_steps=6", "warmup_steps=1", "eval_every=3", "num_workers=0")


@pytest.fixture
def sets(corpus, tmp_path) -> dict[str, Path]:
    """Copies of the training and the dev set that a test may change."""
    return {name: Path(shutil.copytree(corpus.raw(name), tmp_path / name)) for name in ("train", "dev")}


def train(corpus, sets: dict[str, Path], out: Path, *settings: str, **values: object) -> int:
    arguments = corpus.arguments(out, *SHORT, *settings, **values)
    for name in ("train", "dev"):
        arguments[arguments.index(f"--{name}") + 1] = str(sets[name])
    return main(arguments)


def change(directory: Path, change: Callable[[float], float], to: str = "utt2mos") -> dict[str, float]:
    """Write changed scores of utt2mos to the table `to`; return them."""
    scores = {utterance: change(mos) for utterance, mos in read_floats(directory / "utt2mos").items()}
    write_table(directory / to, scores)
    return scores


def predicted(capsys, data: Path, model: Path, *options: str) -> dict[str, list[float]]:
    capsys.readouterr()
    assert main(["predict", str(data), "--model", str(model), *options]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    return {utterance: list(map(float, numbers)) for utterance, *numbers in lines}


def noise(path: Path) -> Path:
    """Write a recording of noise."""
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(8000), 16000)
    return path


@pytest.mark.parametrize(("low", "high", "name"), [(0, 100, "MUSHRA"), (-3, 3, "CMOS")])
def test_a_scale_changes_the_unit_of_the_scores_alone(low, high, name, corpus, sets, tmp_path, capsys) -> None:
    assert train(corpus, sets, tmp_path / "mos") == 0
    for directory in sets.values():
        change(directory, lambda mos: low + (mos - 1) * (high - low) / 4)
        (directory / "scale").write_text(f"{low} {high} {name}\n")
    assert train(corpus, sets, tmp_path / "other") == 0
    plain = predicted(capsys, sets["dev"], tmp_path / "mos" / "final")
    own = predicted(capsys, sets["dev"], tmp_path / "other" / "final")
    mapped = predicted(capsys, sets["dev"], tmp_path / "other" / "final", "--scale", "1", "5")
    for utterance, (mos,) in plain.items():
        assert own[utterance] == [pytest.approx(low + (mos - 1) * (high - low) / 4, abs=0.002 * (high - low))]
        assert mapped[utterance] == [pytest.approx(mos, abs=0.01)]
    (score,) = load(tmp_path / "other" / "final").predict([noise(tmp_path / "x.wav")])
    assert (score.scale.lowest, score.scale.highest, score.scale.name) == (low, high, name)
    assert score.scores == {name: score.mos}


def test_results_name_the_scale(corpus, sets, tmp_path, capsys) -> None:
    for directory in sets.values():
        change(directory, lambda mos: 25 * (mos - 1))
        (directory / "scale").write_text("0 100 MUSHRA\n")
    exp = tmp_path / "exp"
    assert train(corpus, sets, exp) == 0
    results = exp / "results" / "dev"
    out = ["--out", str(tmp_path / "scores.csv")]
    assert main(["predict", str(sets["dev"]), "--model", str(exp / "final"), *out]) == 0
    with (tmp_path / "scores.csv").open() as stream:
        assert csv.DictReader(stream).fieldnames == ["utterance", "MUSHRA", "seconds", "error", "model"]
    # A prediction on another scale is mapped to that of the ratings.
    for options in ([], ["--scale", "1", "5"]):
        shutil.rmtree(results, ignore_errors=True)
        arguments = ["--out", str(results / "utt2mos"), *options]
        assert main(["predict", str(sets["dev"]), "--model", str(exp / "final"), *arguments]) == 0
        assert main(["score", "--data", str(sets["dev"]), "--results", str(results)]) == 0
        metrics = json.loads((results / "metrics.json").read_text())
        assert metrics["scale"] == {"lowest": 0, "highest": 100, "name": "MUSHRA"}
        assert metrics["utterance"]["MSE"]["value"] > 10
    assert main(["compare", str(results), str(results), "--json", str(tmp_path / "compared.json")]) == 0
    assert json.loads((tmp_path / "compared.json").read_text())["scale"] == metrics["scale"]
    # A later prediction on 1..5 removes the scale of the earlier one.
    other = ["predict", str(sets["dev"]), "--model", "spectral_voip", "--out", str(tmp_path / "o" / "utt2mos")]
    assert main([*other, "--scale", "0", "100"]) == 0
    assert (tmp_path / "o" / "scale").read_text() == "0 100 MOS\n"
    assert main(other) == 0
    assert not (tmp_path / "o" / "scale").exists()
    assert main(["report", str(exp)]) == 0
    assert main(["export", str(exp), "--out", str(exp / "model")]) == 0
    for page in (exp / "RESULTS.md", exp / "report.html", exp / "model" / "README.md"):
        assert "MUSHRA" in page.read_text()
    assert main(["summarize-data", str(sets["dev"])]) == 0
    assert "MUSHRA" in (sets["dev"] / "SUMMARY.md").read_text()
    analysis = [
        "analyze",
        "--ssl",
        str(corpus.encoder),
        "--out",
        str(tmp_path / "analysis"),
        "--data",
        str(sets["dev"]),
    ]
    assert main(analysis) == 0
    found = json.loads((tmp_path / "analysis" / "analysis.json").read_text())
    assert (found["rated"], found["probes"][-1]["name"]) == ("MUSHRA", "MUSHRA")
    capsys.readouterr()
    assert main([*analysis, "--data", str(corpus.raw("train"))]) == 2
    assert re.search(rf"{corpus.raw('train')}: 1 5 MOS", capsys.readouterr().err)


def test_several_targets(corpus, sets, tmp_path, capsys) -> None:
    """Two opposite targets, of which the second lacks half of its labels, are both learned."""
    for directory in sets.values():
        change(directory, lambda mos: mos, "utt2clean")
        noisy = change(directory, lambda mos: 12.5 * (5 - mos), "utt2noisy")
        write_table(directory / "utt2noisy", {u: noisy[u] for u in sorted(noisy)[: len(noisy) // 2]})
        (directory / "utt2mos").unlink()
        (directory / "scale").write_text("1 5 MOS\n0 50 noisy\n")
    exp = tmp_path / "exp"
    settings = ("model=distilmos", "token_weight=0.1", "max_steps=80", "eval_every=40", "target_weights={noisy: 2}")
    assert train(corpus, sets, exp, *settings, targets=["clean", "noisy"]) == 0
    assert [scale.name for scale in load_model_dir(exp / "final").scales] == ["clean", "noisy"]
    results = exp / "results" / "dev"
    assert main(["predict", str(sets["dev"]), "--model", str(exp / "final"), "--out", str(results / "utt2mos")]) == 0
    clean, noisy = (read_floats(results / name) for name in ("utt2mos", "utt2noisy"))
    assert np.corrcoef(list(clean.values()), list(noisy.values()))[0, 1] < -0.8
    assert 5 < np.mean(list(noisy.values())) < 45
    assert main(["score", "--data", str(sets["dev"]), "--results", str(results)]) == 0
    metrics = json.loads((results / "metrics.json").read_text())
    (further,) = metrics["targets"]
    assert (metrics["counts"]["utterances"], further["counts"]["utterances"]) == (8, 4)
    assert further["scale"]["name"] == "noisy"
    assert min(metrics["utterance"]["LCC"]["value"], further["utterance"]["LCC"]["value"]) > 0.5
    assert main(["report", str(exp)]) == 0
    assert "noisy, utterance" in (exp / "RESULTS.md").read_text()
    end = json.loads((exp / "log.jsonl").read_text().splitlines()[-1])
    assert end["dev"]["targets"]["noisy"]["utterance"]["LCC"] == pytest.approx(
        further["utterance"]["LCC"]["value"], abs=1e-3
    )
    shown = predicted(capsys, sets["dev"], exp / "final")
    for utterance, scores in shown.items():
        assert scores == pytest.approx([clean[utterance], noisy[utterance]], abs=1e-3)
    # Another file than CSV and JSON lines cannot hold both; a data directory keeps its ratings.
    for out in ("scores.txt", "/dev/stdout", sets["dev"] / "utt2mos"):
        command = ["predict", str(sets["dev"]), "--model", str(exp / "final"), "--out", str(tmp_path / out)]
        before = {path: path.read_bytes() for path in sets["dev"].iterdir()}
        assert main(command) == 2
        assert {path: path.read_bytes() for path in sets["dev"].iterdir()} == before
    lines = tmp_path / "scores.jsonl"
    assert main(["predict", str(sets["dev"]), "--model", str(exp / "final"), "--out", str(lines)]) == 0
    first = json.loads(lines.read_text().splitlines()[0])
    assert list(first) == ["utterance", "clean", "noisy", "seconds", "error", "model"]


@pytest.mark.parametrize("name", ["mos", "sys", "dur", "corpus", "num_frames", "seconds", "two words"])
def test_a_target_cannot_have_the_name_of_another_table(name, corpus, sets, tmp_path, capsys) -> None:
    assert train(corpus, sets, tmp_path / "exp", targets=[name]) == 2
    assert re.search(rf"exp\.yaml:\d+: targets: .*{name}", capsys.readouterr().err)


def test_faults_of_targets_and_scales(corpus, sets, tmp_path, capsys) -> None:
    def fault(*settings: str) -> str:
        capsys.readouterr()
        assert train(corpus, sets, tmp_path / "exp", *settings) == 2
        assert not (tmp_path / "exp" / "log.jsonl").exists()
        return capsys.readouterr().err

    change(sets["train"], lambda mos: mos, "utt2clean")
    assert re.search(rf"{sets['dev']}: .*utt2clean", fault("targets=[clean]"))
    change(sets["dev"], lambda mos: mos, "utt2clean")
    assert "listener_offsets" in fault("targets=[clean]", "listener_offsets=true", "regression_loss=mse")
    assert "noisy" in fault("targets=[clean]", "target_weights={noisy: 2}")
    (sets["dev"] / "scale").write_text("0 5 MOS\n")
    assert re.search(rf"{sets['dev'] / 'scale'}: .*0 5 MOS", fault())
    (sets["dev"] / "scale").write_text("1 4 MOS\n")
    assert re.search(rf"{sets['dev'] / 'utt2mos'}:\d+: .*1 to 4", fault())
    write_table(sets["dev"] / "utt2clean", {})
    (sets["dev"] / "scale").unlink()
    assert re.search(rf"{sets['dev']}: .*clean", fault("targets=[clean]"))
