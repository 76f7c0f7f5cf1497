"""`distilmos sets`: names and paths of a recipe's sets, as bash reads them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from distilmos.cli import main

ALWAYS = ("--config", "train.yaml", "--clusters", "8", "--seed", "3")
OWN = ("--train", "train", "--dev", "dev")


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The recipe `mine`, next to `other`, `nisqa` and `hablamos`."""
    for name in ("mine", "other", "nisqa", "hablamos"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.sh").touch()
    (tmp_path / "mine" / "train.yaml").write_text("model: distilmos\nssl_model: hubert_base\n")
    monkeypatch.chdir(tmp_path / "mine")
    return tmp_path / "mine"


def sets(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, list[str]]:
    """Return the variables that bash has after it has evaluated what the command prints."""
    assert main(["sets", "--corpus", "mine", *ALWAYS, *options]) == 0
    script = capsys.readouterr().out
    names = [line.partition("=")[0] for line in script.splitlines()]
    show = "".join(f'printf "%s\\n" "${{#{name}[@]}}" "${{{name}[@]}}"\n' for name in names)
    done = subprocess.run(["bash", "-ec", script + show], capture_output=True, text=True, check=True)
    lines = iter(done.stdout.splitlines())
    return {name: [next(lines) for _ in range(int(next(lines)))] for name in names}


def test_own_sets(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = sets(capsys, *OWN, "--test", "test", "mine/test_ood", "other_test", "--dumpdir", "a dump")
    assert found["own_sets"] == ["train", "dev", "test", "test_ood", "other_test"]
    assert found["train"] == ["mine=a dump/raw/train"]
    assert found["train_raw"] == ["a dump/raw/train"]
    assert found["dev_name"] == ["dev"]
    assert found["test_names"] == ["test", "test_ood", "other_test"]
    assert found["tests"][2] == "mine=a dump/raw/other_test"
    assert found["feats"] == ["a dump/feats"]
    assert found["kmeans"] == ["exp/kmeans_hubert_base_k8"]
    assert found["exp"] == ["exp/train_seed3"]


def test_sets_of_other_recipes_have_their_names_in_the_results(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = ("other/test", "nisqa/nisqa_for", "hablamos/hablamos", "nisqa/other")
    found = sets(capsys, *OWN, "--test", *foreign, "--dumpdir", "/big/mine", "--dumpdir-of", "nisqa=/big/ni sqa")
    assert found["test_names"] == ["other_test", "nisqa_for", "hablamos", "nisqa_other"]
    assert found["tests"] == [
        "other=../other/dump/raw/test",
        "nisqa=/big/ni sqa/raw/nisqa_for",
        "hablamos=../hablamos/dump/raw/hablamos",
        "nisqa=/big/ni sqa/raw/other",
    ]
    assert found["own_sets"] == ["train", "dev"]


def test_several_training_sets_have_directories_of_their_own(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    joined = ("--train", "other/train", "train", "--dev", "other/dev", "dev", "--set", "ssl_model=/ssl/teacher.pt")
    found = sets(capsys, *joined)
    assert found["train_sources"] == ["other=../other/dump/raw/train", "mine=dump/raw/train"]
    assert found["train"] == ["mine=dump/raw/other_train+train"]
    assert found["dev_raw"] == ["dump/raw/other_dev+dev"]
    assert found["feats"] == ["dump/feats_other_train+train"]
    assert found["tokens"] == ["dump/tokens_teacher_k8_other_train+train"]
    assert found["exp"] == ["exp/train_seed3_other_train+train"]
    assert sets(capsys, *joined, "--tag", "both")["exp"] == ["exp/both"]


def test_the_experiment_is_named_after_all_of_the_configuration(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (recipe / "train.v2").write_text("model: sslmos\n")
    assert sets(capsys, *OWN, "--config", "train.v2")["exp"] == ["exp/train.v2_seed3"]


def test_only_a_network_with_token_predictors_needs_tokens(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for settings, needed in {
        ("token_weight=0",): "true",
        ("model=sslmos",): "false",
        ("distillation=features",): "false",
    }.items():
        found = sets(capsys, *OWN, *(f"--set={setting}" for setting in settings))
        assert found["needs_tokens"] == [needed]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ((*OWN, "--test", "nowhere/test"), "../nowhere"),
        ((*OWN, "--test", "a/b/c"), "'a/b/c'"),
        ((*OWN, "--test", ".."), "'..'"),
        ((*OWN, "--test", "../other"), "'../other'"),
        ((*OWN, "--test", "a=b"), "'a=b'"),
        ((*OWN, "--test", "train+dev"), "'train+dev'"),
        ((*OWN, "--dumpdir-of", "mine=dump"), "mine"),
        ((*OWN, "--test", "other/test", "other_test"), "mine/other_test"),
        ((*OWN, "--dumpdir-of", "other"), "CORPUS=DIR"),
        ((*OWN, "--dumpdir-of", "other=dump"), "other"),
        (("--train", "train"), "--dev"),
        ((*OWN, "--set", "max_step=3"), "max_step=3"),
    ],
)
def test_wrong_sets_are_refused(
    recipe: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], named: str
) -> None:
    assert main(["sets", "--corpus", "mine", *ALWAYS, *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert named in captured.err
