"""Training on the tokens of another encoder, or of features in its place: other layers, one frame more or less."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from distilmos.cli import main
from distilmos.model.package import load_model_dir
from distilmos.ssl.load import load_ssl

QUICK = {"max_steps": 2, "warmup_steps": 1, "eval_every": 2, "num_workers": 0}


@pytest.fixture(scope="session")
def teach(corpus, tmp_path_factory):
    """Return a function: the directory with the tokens of train and dev, made by stages 2 to 4 with a teacher."""
    made: dict[str, Path] = {}

    def tokens(teacher: str, layers: int) -> Path:
        if teacher not in made:
            root = tmp_path_factory.mktemp(teacher)
            source, kmeans = ["--ssl", teacher, "--device", "cpu"], str(root / "kmeans")
            data, out = str(corpus.raw("train")), str(root / "feats")
            assert main(["dump-feats", *source, "--data", data, "--out", out, "--max-frames", "200"]) == 0
            assert main(["merge-archives", out, "--jobs", "1"]) == 0
            for layer in range(1, layers + 1):
                learn = ["learn-kmeans", "--feats", out, "--layer", str(layer), "--out", kmeans]
                assert main([*learn, "--clusters", "8"]) == 0
            for name in ("train", "dev"):
                data, out = str(corpus.raw(name)), str(root / name)
                assert main(["dump-tokens", *source, "--kmeans", kmeans, "--data", data, "--out", out]) == 0
                assert main(["merge-archives", out, "--jobs", "1"]) == 0
            made[teacher] = root
        return made[teacher]

    return tokens


def arguments(corpus, out: Path, tokens: Path, **settings: object) -> list[str]:
    """Return the arguments of `distilmos train` on the tokens in `tokens`."""
    found = corpus.arguments(out, **{**QUICK, "foreign_tokens": True, **settings})
    for name in ("train", "dev"):
        found[found.index(f"--{name}-tokens") + 1] = str(tokens / name)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("student", "teacher", "layers", "targets", "heads"),
    [
        ("", "hubert_tiny", 6, [2, 4, 6], 3),
        ("", "whisper_tiny_en", 4, "all", 4),
        ("", "mfcc", 1, "all", 1),
        ("whisper_tiny_en", "mfcc", 1, [1], 1),
        ("whisper_tiny_en", "best_rq", 1, "all", 1),
    ],
)
def test_target_layers_are_those_of_the_teacher(corpus, teach, tmp_path, student, teacher, layers, targets, heads):
    settings = {"target_layers": targets, **({"ssl_model": student} if student else {})}
    assert main(arguments(corpus, tmp_path / "exp", teach(teacher, layers), **settings)) == 0
    last = json.loads((tmp_path / "exp" / "log.jsonl").read_text().splitlines()[-1])
    assert len(last["dev"]["token_accuracy"]) == heads
    model = load_model_dir(tmp_path / "exp" / "final")
    assert list(model.target_layers) == (list(range(1, layers + 1)) if targets == "all" else targets)
    assert len(model.predictors) == heads
    assert len(model.layer_weights()) == load_ssl(student or corpus.encoder).config.num_layers
    recording = next((corpus.root / "wav" / "dev").glob("*.wav"))
    assert main(["predict", str(recording), "--model", str(tmp_path / "exp" / "final")]) == 0


@pytest.mark.parametrize("weight", [0.1, 0])
@pytest.mark.parametrize(("teacher", "layers", "target"), [("hubert_tiny", 6, 7), ("mfcc", 1, 2)])
def test_layers_that_the_teacher_has_not_are_refused(corpus, teach, tmp_path, capsys, teacher, layers, target, weight):
    tokens = teach(teacher, layers)
    assert main(arguments(corpus, tmp_path / "exp", tokens, target_layers=[1, target], token_weight=weight)) == 2
    message = capsys.readouterr().err
    assert {"target_layers", f"1..{layers}"} <= set(message.split()) and str(tokens / "train") in message
    assert not (tmp_path / "exp").exists()


def test_without_foreign_tokens_a_teacher_is_refused(corpus, teach, tmp_path, capsys):
    tokens = teach("mfcc", 1)
    assert main(arguments(corpus, tmp_path / "exp", tokens, foreign_tokens=False)) == 2
    assert str(tokens / "train") in capsys.readouterr().err


def test_only_a_model_of_other_layers_says_so_and_damage_is_named(corpus, teach, tmp_path, capsys):
    for name, settings in (("own", {"foreign_tokens": False}), ("other", {})):
        tokens = teach("mfcc", 1) if settings == {} else corpus.root / "tokens"
        assert main(arguments(corpus, tmp_path / name, tokens, **settings)) == 0
        stored = yaml.safe_load((tmp_path / name / "final" / "config.yaml").read_text())
        assert stored.get("token_layers") == {"own": None, "other": 1}[name]
    recording = next((corpus.root / "wav" / "dev").glob("*.wav"))
    path = tmp_path / "other" / "final" / "config.yaml"
    for layers in (0, 2, 10**12, "one", 1.5):
        path.write_text(yaml.safe_dump({**stored, "token_layers": layers}))
        assert main(["predict", str(recording), "--model", str(path.parent)]) == 2
        assert str(path) in capsys.readouterr().err
