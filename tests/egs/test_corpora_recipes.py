"""egs/bvcc and egs/somos, stages 0 to 8, on generated corpora: in and out of domain, each alone and both together."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.corpora import Design, write_bvcc, write_hablamos, write_nisqa, write_somos, write_ttsds2
from helpers.recipes import EGS, run_script

from distilmos.data.datadir import read_data_dir
from distilmos.data.tables import read_floats, read_table
from distilmos.model.package import load_model_dir

pytestmark = pytest.mark.slow

SMALL = [
    *("--ssl_model", "hubert_tiny", "--nj", "1", "--clusters", "8", "--max_frames", "1000", "--tag", "small"),
    *("--train_opts", "max_steps=4", "--train_opts", "warmup_steps=1", "--train_opts", "eval_every=2"),
    *("--train_opts", "max_seconds=5", "--train_opts", "batch_seconds=10", "--train_opts", "num_workers=0"),
    *("--train_opts", "hidden_dim=32"),
]
FOREIGN = ("nisqa_for", "nisqa_p501", "nisqa_livetalk", "hablamos")
DESIGN = Design(systems=4, sizes={"train": 12, "dev": 6, "test": 6})


class Recipes:
    """A copy of egs/ and conf/ to write into, and the corpora."""

    def __init__(self, root: Path) -> None:
        self.egs = root / "egs"
        outputs = shutil.ignore_patterns("data", "dump", "exp", "downloads", "__pycache__")
        shutil.copytree(EGS, self.egs, symlinks=True, ignore=outputs)
        shutil.copytree(EGS.parent / "conf", root / "conf")
        self.db = {
            "bvcc": write_bvcc(root / "bvcc", DESIGN),
            "somos": write_somos(root / "somos", DESIGN),
            "nisqa": write_nisqa(root / "nisqa", DESIGN),
            "hablamos": write_hablamos(root / "hablamos", DESIGN),
            "ttsds2": write_ttsds2(root / "ttsds2", DESIGN),
        }

    def prepare(self, recipe: str) -> None:
        """Run stages 0 and 1."""
        options = ["--stage", "0", "--stop_stage", "1", "--db_root", str(self.db[recipe]), "--allow_partial", "true"]
        self.run(recipe, *options, "--ssl_model", "hubert_tiny", "--nj", "1")

    def run(self, recipe: str, *options: str) -> str:
        """Run stages, which must succeed; return what they print."""
        done = run_script(self.egs / recipe / "run.sh", *options)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> Recipes:
    """The recipes; all corpora except ttsds2 are prepared."""
    made = Recipes(tmp_path_factory.mktemp("recipes"))
    for name in made.db:
        if name != "ttsds2":
            made.prepare(name)
    return made


def scores_by_set(exp: Path) -> dict[str, dict]:
    return {path.parent.name: json.loads(path.read_text()) for path in exp.glob("results/*/metrics.json")}


def test_bvcc_scores_every_prepared_set(recipes: Recipes) -> None:
    said = recipes.run("bvcc", "--stage", "2", "--stop_stage", "8", *SMALL)
    assert "ttsds2/ttsds2" in said
    exp = recipes.egs / "bvcc" / "exp" / "small"
    found = scores_by_set(exp)
    assert set(found) == {"test", "somos_test", *FOREIGN}
    assert all(metrics["counts"] == {"utterances": 6, "systems": 4} for metrics in found.values())
    somos = read_data_dir(recipes.egs / "somos" / "dump" / "raw" / "test")
    assert set(read_floats(exp / "results" / "somos_test" / "utt2mos")) == set(somos.wavs)
    text = " ".join((exp / "RESULTS.md").read_text().split())
    value = found["somos_test"]["utterance"]["SRCC"]["value"]
    assert f"(arXiv 2601.13700) | somos_test | utterance | SRCC | 0.387 | {value:.3f} |" in text
    assert f"| ttsds2 | {' | '.join(['not run'] * 8)} |" in text
    assert load_model_dir(exp / "model").corpus_offsets is None
    for name in ("train", "dev", "test"):
        card = (recipes.egs / "bvcc" / "data" / name / "SUMMARY.md").read_text()
        assert "listener agreement" in card


def test_both_together(recipes: Recipes) -> None:
    sets = [
        "--train_sets",
        "bvcc/train train",
        "--dev_sets",
        "bvcc/dev dev",
        "--test_sets",
        "test bvcc/test hablamos/hablamos",
    ]
    recipes.run("somos", "--stage", "1", "--stop_stage", "8", *SMALL, *sets, "--tag", "joint")
    somos = recipes.egs / "somos"
    joint = somos / "dump" / "raw" / "bvcc_train+train"
    labels = read_table(joint / "utt2corpus")
    assert sorted(labels.values()) == ["bvcc"] * 12 + ["somos"] * 12
    assert read_table(joint / "utt2sys").keys() == labels.keys()
    assert (somos / "exp" / "kmeans_hubert_tiny_k8_bvcc_train+train" / "quality.json").exists()
    exp = somos / "exp" / "joint"
    assert set(scores_by_set(exp)) == {"test", "bvcc_test", "hablamos"}
    model = load_model_dir(exp / "model")
    assert model.corpus_offsets is not None
    assert model.corpus_offsets.names == ("bvcc", "somos")
    log = {name: (exp / "results" / name / "log" / "predict.log").read_text() for name in scores_by_set(exp)}
    assert "--corpus somos" in log["test"]
    assert "--corpus bvcc" in log["bvcc_test"]
    assert "--corpus" not in log["hablamos"]


def refused(recipe: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run stages, which must refuse their input."""
    done = run_script(recipe / "run.sh", *options)
    assert done.returncode == 2, done.stdout + done.stderr
    return done


def test_what_is_missing_is_named(recipes: Recipes) -> None:
    bvcc = recipes.egs / "bvcc"
    joint = ("--train_sets", "train ttsds2/train", *SMALL)
    assert "dump/raw/train+ttsds2_train/wav.scp" in refused(bvcc, "--stage", "2", *joint).stderr
    assert "../ttsds2/dump/raw/train/wav.scp" in refused(bvcc, "--stage", "1", *joint).stderr
    elsewhere = refused(bvcc, "--stage", "1", *joint, "--dumpdir_of", "ttsds2=/big/dump")
    assert "/big/dump/raw/train/wav.scp" in elsewhere.stderr
    assert "ttsds3/test" in refused(bvcc, "--stage", "6", "--test_sets", "ttsds3/test", *SMALL).stderr

    exp = bvcc / "exp" / "small" / "final"
    exp.mkdir(parents=True, exist_ok=True)
    (exp / "config.yaml").touch()
    done = refused(bvcc, "--stage", "6", "--test_sets", "ttsds2/ttsds2", *SMALL)
    assert "ttsds2/ttsds2" in done.stdout
    assert "'ttsds2/ttsds2'" in done.stderr

    # Recipes of test sets end with stage 1.
    refused(recipes.egs / "nisqa", "--stage", "0", "--stop_stage", "8")
    assert "--no_such_option" in refused(bvcc, "--stage", "0", "--no_such_option", "1").stderr


def test_a_plain_name_is_never_a_set_of_another_recipe(recipes: Recipes) -> None:
    """ttsds2 has no train, dev and test, while others have; bvcc has no nisqa_for, while nisqa has."""
    assert (recipes.egs / "bvcc" / "dump" / "raw" / "train" / "wav.scp").exists()
    own = ("--train_sets", "train", "--dev_sets", "dev", "--test_sets", "test", "--conf", "../bvcc/conf/distilmos.yaml")
    done = refused(recipes.egs / "ttsds2", "--stage", "2", "--stop_stage", "8", *SMALL, *own)
    assert " dump/raw/train/wav.scp" in done.stderr
    assert (recipes.egs / "nisqa" / "dump" / "raw" / "nisqa_for" / "wav.scp").exists()
    done = refused(recipes.egs / "bvcc", "--stage", "1", "--test_sets", "nisqa_for", *SMALL)
    assert " data/nisqa_for/wav.scp" in done.stderr


def test_a_recipe_with_another_dumpdir(recipes: Recipes, tmp_path: Path) -> None:
    original = recipes.egs / "somos" / "dump"
    shutil.copytree(original / "raw", tmp_path / "raw")
    for scp in (tmp_path / "raw").glob("*/wav.scp"):
        scp.write_text(scp.read_text().replace(str(original), str(tmp_path)))
    sets = ("--train_sets", "somos/train train", "--dev_sets", "somos/dev dev", "--expdir", str(tmp_path / "exp"))
    options = ("--stage", "1", "--stop_stage", "1", *SMALL, *sets, "--dumpdir_of", f"somos={tmp_path}")
    recipes.run("bvcc", *options)
    joined = (recipes.egs / "bvcc" / "dump" / "raw" / "somos_train+train" / "wav.scp").read_text()
    assert joined.count(f"{tmp_path}/raw/train/wav.ark") == 12
    assert str(original) not in joined
    os.utime(tmp_path / "raw" / "train" / "wav.scp")  # as if stage 1 of somos had run again
    options = ("--stage", "2", *SMALL, *sets, "--dumpdir_of", f"somos={tmp_path}")
    assert f"{tmp_path}/raw/train" in refused(recipes.egs / "bvcc", *options).stderr


def test_the_default_encoder_must_be_fetched_first(
    recipes: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTILMOS_CACHE", str(tmp_path))
    options = ("--db_root", recipes.db["bvcc"], "--allow_partial", "true", "--ssl_url", f"file://{tmp_path}/none")
    done = run_script(recipes.egs / "bvcc" / "run.sh", "--stage", "0", *options)
    assert done.returncode == 1
    assert "hubert_base_ls960.pt: " in done.stderr
    done = run_script(recipes.egs / "bvcc" / "run.sh", "--stage", "2")
    assert "fetch-ssl hubert_base" in done.stdout + done.stderr


def test_somos_with_a_set_that_comes_later(recipes: Recipes) -> None:
    """The last test: the others need ttsds2 unprepared."""
    recipes.prepare("ttsds2")
    recipes.run("somos", "--stage", "2", "--stop_stage", "8", *SMALL)
    exp = recipes.egs / "somos" / "exp" / "small"
    assert set(scores_by_set(exp)) == {"test", "bvcc_test", *FOREIGN, "ttsds2"}
    assert (exp / "model" / "config.yaml").exists()
