"""egs/README.md, "A new corpus in one evening": every step of it, on a generated corpus."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from helpers.corpora import Design, make_recordings
from helpers.recipes import EGS, says

from distilmos.data.datadir import read_data_dir
from distilmos.data.schema import Scale
from distilmos.data.tables import read_floats

TEXT = (EGS / "README.md").read_text()
SECTION = re.search(r"## A new corpus in one evening\n(.*?)\n## ", TEXT, re.DOTALL)[1]  # type: ignore[index]
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", SECTION, re.DOTALL)
# The test adds these options, to be quick; everything else is as in the text.
QUICK = "--clusters 8 --max_frames 1000 --train_opts max_steps=4 --train_opts warmup_steps=1 --train_opts eval_every=2"


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A copy of the parts of the repository that recipes need."""
    outputs = shutil.ignore_patterns("data", "dump", "exp", "downloads", "__pycache__")
    shutil.copytree(EGS, tmp_path / "top" / "egs", symlinks=True, ignore=outputs)
    return tmp_path / "top"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """The corpus of the text."""
    root = tmp_path / "corpus"
    (root / "audio").mkdir(parents=True)
    with (root / "ratings.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "system", "listener", "score"])
        names = [f"s{number}" for number in range(12)]
        for item in make_recordings(Design(systems=12, sizes={"train": 36}, ratings=4), names):
            soundfile.write(root / "audio" / f"u{item.number:02d}.wav", item.samples, 16000)
            for listener, score in item.ratings:
                writer.writerow([f"u{item.number:02d}.wav", item.system, listener, int(score)])
    return root


def shell(script: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"VIRTUAL_ENV": sys.prefix, "PATH": path}
    command = ["bash", "-euc", script]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def apply(patch: str, top: Path) -> int:
    """Apply a diff without line numbers; return the number of changed lines."""
    changed = 0
    for part in re.split(r"^--- ", patch, flags=re.MULTILINE)[1:]:
        path = top / re.search(r"^\+\+\+ b/(.*)$", part, re.MULTILINE)[1]  # type: ignore[index]
        for hunk in part.split("\n@@\n")[1:]:
            lines = hunk.rstrip("\n").split("\n")
            before = "".join(f"{line[1:]}\n" for line in lines if line[:1] != "+")
            after = "".join(f"{line[1:]}\n" for line in lines if line[:1] != "-")
            assert path.read_text().count(before) == 1, before
            path.write_text(path.read_text().replace(before, after))
            changed += sum(line[:1] in "+-" for line in lines)
    return changed


def quick(script: str) -> str:
    """Add QUICK to the commands of a script, after the options of the text, over which it wins."""
    return re.sub(r"^(\./run\.sh.*)$", rf"\1 {QUICK}", script, flags=re.MULTILINE)


@pytest.mark.slow
def test_the_text_leads_to_a_trained_model(top: Path, corpus: Path) -> None:
    assert [kind for kind, _ in BLOCKS] == ["sh", "bash", "diff", "sh", "sh", "sh"]
    make, _, patch, prepare, attempt, train = (block for _, block in BLOCKS)
    assert shell(make, top).returncode == 0
    recipe = top / "egs" / "mycorpus"

    helped = shell("./run.sh --help", recipe)
    assert helped.returncode == 0
    assert "--db_root" in helped.stdout
    before = shell(f"./run.sh --db_root {corpus}", recipe)
    assert before.returncode == 2
    assert "local/prepare.py" in before.stderr

    assert apply(patch, top) < 30
    done = shell(prepare.replace("/path/to/corpus", str(corpus)), top)
    assert done.returncode == 0, done.stdout + done.stderr
    sets = {name: read_data_dir(recipe / "data" / name) for name in ("train", "dev", "test")}
    assert sum(len(data.wavs) for data in sets.values()) == 36
    systems = [set(data.systems.values()) for data in sets.values()]
    assert sum(map(len, systems)) == len(set.union(*systems)) == 12
    assert "listener agreement" in (recipe / "data" / "train" / "SUMMARY.md").read_text()

    done = shell(quick(attempt), recipe)
    assert done.returncode == 0, done.stdout + done.stderr
    done = shell(quick(train), recipe)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| utterance | LCC" in done.stdout
    for tag in ("try", "distilmos_seed1", "sslmos_seed1"):
        for made in ("model/model.safetensors", "RESULTS.md", "report.html"):
            assert (recipe / "exp" / tag / made).exists()


def test_a_list_of_ratings_needs_no_python(top: Path, corpus: Path) -> None:
    make, lines, _, prepare = (block for _, block in BLOCKS[:4])
    assert shell(make, top).returncode == 0
    local = top / "egs" / "mycorpus" / "local"
    before = (local / "data.sh").read_text().splitlines(keepends=True)
    (local / "data.sh").write_text("".join(before[:-1]) + lines)
    (local / "prepare.py").unlink()
    done = shell(prepare.replace("/path/to/corpus", str(corpus)), top)
    assert done.returncode == 0, done.stdout + done.stderr
    sets = [read_data_dir(local.parent / "data" / name) for name in ("train", "dev", "test")]
    assert sum(len(data.wavs) for data in sets) == 36
    assert len({system for data in sets for system in data.systems.values()}) == 12


@pytest.mark.slow
def test_another_scale_and_several_targets(top: Path, corpus: Path) -> None:
    """The list below the text says what to change for them."""
    make, _, patch = (block for _, block in BLOCKS[:3])
    assert shell(make, top).returncode == 0
    apply(patch, top)
    recipe = top / "egs" / "mycorpus"
    ratings = (corpus / "ratings.csv").read_text()
    (corpus / "ratings.csv").write_text(
        re.sub(r"(\d)$", lambda found: str(25 * int(found[1]) - 25), ratings, flags=re.M)
    )
    prepare = recipe / "local" / "prepare.py"
    text = prepare.read_text().replace('Scale(1, 5, "MOS")', 'Scale(0, 100, "MUSHRA")')
    given = "ratings=tuple(item.ratings)"
    prepare.write_text(text.replace(given, f'{given}, targets={{"sig": 31, "bak": item.mean}}'))
    (recipe / "conf" / "distilmos.yaml").write_text("model: sslmos\ntoken_weight: 0\ntargets: [bak, sig]\n")
    done = shell(quick(f"./run.sh --db_root {corpus}"), recipe)
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_data_dir(recipe / "data" / "train").scale == Scale(0, 100, "MUSHRA")
    results = recipe / "exp" / "distilmos_seed1" / "results" / "test"
    bak, sig = (list(read_floats(results / name).values()) for name in ("utt2mos", "utt2sig"))
    assert 20 < max(sig) < min(bak) < 100
    page = (recipe / "exp" / "distilmos_seed1" / "RESULTS.md").read_text()
    assert {"bak, utterance", "sig, utterance"} <= {cell.strip() for cell in re.split(r"[|\n]", page)}


def test_impossible_names(top: Path) -> None:
    before = sorted(top.rglob("*"))
    for arguments in ("", "'My Corpus'", "bvcc"):
        done = shell(f"egs/TEMPLATE/new_recipe.sh {arguments}", top)
        assert done.returncode == 2
        assert says(done.stderr, "egs/bvcc" if arguments == "bvcc" else "NAME")
    assert sorted(top.rglob("*")) == before
