"""The study's page is made of what is kept of its trainings."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import yaml
from helpers.recipes import EGS, link_recipe, run_script

from distilmos.data.datadir import Utterance, write_data_dir
from distilmos.data.tables import write_table
from distilmos.metrics import agreement
from distilmos.scoring.results import score_results
from distilmos.training.config import load_config

RECIPE = EGS / "tcdvoip"
GROUPS = ("echo", "chop", "reference")
MODELS = {"distilmos": 0.1, "sslmos": 1.0}  # and how far their guesses are off
SEEDS = (1, 2)
DEV_LCC = {1: (0.4, 0.9, 0.7), 2: (0.5, 0.7, 0.8)}  # of each seed, in the course of training


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A directory with conf/ and study/ of two models and two seeds: in domain, echo and chop held out."""
    tmp_path = tmp_path_factory.mktemp("study")
    random = np.random.default_rng(0)
    soundfile.write(tmp_path / "x.wav", 0.1 * random.standard_normal(8000), 16000)
    utterances = [
        Utterance(f"{group}{n}-{m}", tmp_path / "x.wav", f"{group}{n}", mos=1 + (7 * n + m) % 4, group=group)
        for group in GROUPS
        for n in range(4)
        for m in range(3)
    ]
    write_data_dir(tmp_path / "data", utterances)

    def score(training, noise):
        guess = {u.id: u.mos + noise * random.standard_normal() for u in utterances}
        write_table(training / "results" / "test" / "utt2mos", guess)
        score_results(tmp_path / "data", training / "results" / "test", samples=5)

    for protocol in ("conditions", "leave_echo_out", "leave_chop_out"):
        score(tmp_path / "study" / protocol / "zero_shot" / "distillmos", 2.0)
        for model, noise in MODELS.items():
            for seed in SEEDS:
                training = tmp_path / "study" / protocol / f"{model}_seed{seed}"
                score(training, noise)
                write_log(training, _events(seed, protocol))
                if protocol == "conditions":
                    (training / "analysis").mkdir()
                    (training / "analysis" / "analysis.json").write_text(json.dumps(_analysis(noise)))
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "common.yaml").write_text("max_steps: 30\n")
    for model in MODELS:
        (tmp_path / "conf" / f"{model}.yaml").write_text(f"base: common.yaml\nmodel: {model}\n")
    return tmp_path


@pytest.fixture(scope="module")
def page(kept):
    """The page of it, made once."""
    done = gather(kept)
    assert done.returncode == 0, done.stderr
    return (kept / "R.md").read_text(encoding="utf-8")


def write_log(training, events):
    (training / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))


def _start(seed):
    hardware = {"gpu": None, "cpu": "a CPU", "threads": 1, "torch": "2", "python": "3"}
    made = {"commit": f"abc{seed}", "time": f"2026-01-0{seed}", "precision": "float32"}
    made |= {"encoder": "abc", "initial_model": "ghi", "kmeans": f"def{seed}"}
    return {"event": "start", "step": 0, **made, "hardware": hardware}


def _events(seed, protocol):
    yield _start(seed)
    yield {"event": "train", "step": 30, "regression": 0.25}
    dev_loss = 0.65 if protocol == "conditions" else 0.75
    for step, value in zip((10, 20, 30), DEV_LCC[seed], strict=True):
        yield {"event": "dev", "step": step, "regression": dev_loss, "utterance": {"LCC": value}}
    yield {"event": "end", "step": 30, "elapsed_seconds": 60.0 * seed}


def _analysis(noise):
    layer = {
        "before": {"probe": 0.5, "accuracy": 0.9, "LCC": 0.7},
        "after": {"probe": 0.4, "accuracy": 0.8, "LCC": 0.6},
    }
    return {
        **{
            "subject": "x",
            "ssl": "s",
            "model": "x",
            "time": "t",
            "commit": None,
            "hardware": {},
            "seed": 1,
            "data": [],
        },
        **{"notes": "", "kmeans": "k", "utterances": 9, "seconds": 9, "frames": 9, "held_out": 3, "left_out": []},
        "similarity": [[1 - noise / 2, 0.0], [0.0, 0.3]],
        "tokens": [layer, layer],
        "probes": [
            {"name": "speaker", "classes": 4, "chance": 0.25, "layers": [layer, layer]},
            {"name": "MOS", "classes": None, "chance": None, "layers": [layer, layer]},
        ],
    }


def gather(study):
    options = ["--protocols", "conditions echo chop", "--models", " ".join(MODELS), "--seeds", "1 2"]
    options += ["--references", "distillmos", "--kept", "study", "--out", "R.md"]
    command = [sys.executable, str(RECIPE / "local" / "gather.py"), *options]
    return subprocess.run(command, cwd=study, text=True, capture_output=True)


def cells(page, title, name, first="model"):
    """Return the cells of the row `name` of the table that follows the line `title`."""
    table = page.partition(f"\n{title}\n\n")[2].partition("\n\n")[0]
    header, row = (next(line for line in table.splitlines() if line.startswith(f"| {n} ")) for n in (first, name))
    columns = [cell.strip() for cell in header.strip("|").split("|")]
    return dict(zip(columns, [cell.strip() for cell in row.strip("|").split("|")], strict=True))


def rows_of(study, protocol, training, group=None):
    text = (study / "study" / protocol / training / "results" / "test" / "scored.tsv").read_text()
    fields = [line.split("\t") for line in text.splitlines()[1:]]
    chosen = [(float(f[3]), float(f[4])) for f in fields if group in (None, f[2])]
    return np.array(chosen).T


def test_scores_are_means_over_seeds_and_held_out_types_count_their_own_conditions(kept, page):
    counts = {"conditions": (36, 12), "echo": (12, 4), "chop": (12, 4)}
    counted = ", ".join(f"{name} {n} recordings of {m} conditions" for name, (n, m) in counts.items())
    assert f"\n- test: {counted}\n" in page
    wanted = {}
    for protocol, directory, group in (
        ("conditions", "conditions", None),
        ("echo", "leave_echo_out", "echo"),
        ("chop", "leave_chop_out", "chop"),
    ):
        wanted[protocol] = [agreement(*rows_of(kept, directory, f"sslmos_seed{s}", group))["SRCC"] for s in SEEDS]
    wanted["held-out types, mean"] = np.mean([wanted["echo"], wanted["chop"]], axis=0)
    found = cells(page, "utterance SRCC:", "sslmos")
    for name, values in wanted.items():
        assert found[name] == f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"
    published = agreement(*rows_of(kept, "leave_echo_out", "zero_shot/distillmos", "echo"))["MSE"]
    assert cells(page, "utterance MSE:", "distillmos")["echo"] == f"{published:.3f}"
    assert "`abc1`, `abc2`" in page
    assert "2026-01-01 to 2026-01-02" in page
    assert "\n- precision: float32\n- k-means: def1, def2\n" in page
    assert page.count("max_steps: 30") == 1  # the settings that all have
    assert all(f"model: {model}\n" in page for model in MODELS)


def test_differences_are_those_of_the_means_and_tell_a_better_model_from_a_worse(kept, page):
    found = {}
    for name, directory, group in (
        ("conditions", "conditions", None),
        ("echo", "leave_echo_out", "echo"),
        ("chop", "leave_chop_out", "chop"),
    ):
        means = [
            np.mean([agreement(*rows_of(kept, directory, f"{model}_seed{s}", group))["LCC"] for s in SEEDS])
            for model in MODELS
        ]
        found[name] = means[0] - means[1]
    found["held-out types"] = (found["echo"] + found["chop"]) / 2
    for name, value in found.items():
        difference, low, _ = difference_of(page, name)
        assert difference == pytest.approx(value, abs=6e-4)
        assert low > 0


def difference_of(page, protocol, level="utterance", other="sslmos"):
    """Return the difference of LCC between distilmos and another model and its interval's ends."""
    cell = cells(page, f"distilmos - {other}:", protocol, first="test")[f"{level} LCC"]
    return [float(value) for value in re.findall(r"[+-][0-9.]+", cell)]


def changed(kept, target, trainings, change):
    """Return the page of a copy of the study; `change` takes and returns the fields of each line of a scored.tsv."""
    study = shutil.copytree(kept, target, ignore=shutil.ignore_patterns("R*"))
    for path in study.glob(f"study/{trainings}/results/test/scored.tsv"):
        header, *lines = path.read_text().splitlines()
        lines = ["\t".join(fields) for fields in change([line.split("\t") for line in lines])]
        path.write_text("\n".join([header, *lines]) + "\n")
    done = gather(study)
    assert done.returncode == 0, done.stderr
    return (study / "R.md").read_text(encoding="utf-8")


def test_a_difference_is_as_unsure_as_seeds_differ(kept, page, tmp_path):
    def opposite(lines):
        return [[*f[:4], str(6 - float(f[4])), *f[5:]] for f in lines]

    text = changed(kept, tmp_path / "copy", "conditions/sslmos_seed2", opposite)
    _, low, high = difference_of(text, "conditions")
    before = difference_of(page, "conditions")
    assert high - low > 3 * (before[2] - before[1])  # one seed agrees with the ratings, the other says their opposite
    assert low < 0.5 and high > 1.5


def test_two_seeds_say_as_little_as_two_do(kept, tmp_path):
    """Of one seed as good as the other model and one as bad as can be, half the resamples show no difference."""

    def perfect(lines):
        return [[*f[:4], f[3], *f[5:]] for f in lines]

    def opposite(lines):
        return [[*f[:4], str(6 - float(f[3])), *f[5:]] for f in lines]

    changed(kept, tmp_path / "perfect", "conditions/*_seed*", perfect)
    text = changed(tmp_path / "perfect", tmp_path / "copy", "conditions/sslmos_seed2", opposite)
    cell = cells(text, "distilmos - sslmos:", "conditions", first="test")["utterance LCC"]
    assert cell.startswith("+1.000 [+0.000, +2.000] p ") and float(cell.split()[-1]) > 0.9


def test_a_difference_is_no_surer_for_more_recordings_of_the_same_conditions(kept, tmp_path):
    def repeated(lines):
        first = {system: fields for fields in reversed(lines) for system in fields[1:2]}
        return [[fields[0], *first[fields[1]][1:]] for fields in lines]

    text = changed(kept, tmp_path / "copy", "conditions/**", repeated)
    assert difference_of(text, "conditions") == difference_of(text, "conditions", "system")


def test_copies_of_a_condition_that_all_types_have_are_one_condition(kept, tmp_path):
    """Of a single condition, all resamples are the same: there is no interval."""

    def references(lines):
        return [fields for fields in lines if fields[2] == "reference"]

    text = changed(kept, tmp_path / "copy", "conditions/**", references)
    assert "conditions 12 recordings of 4 conditions" in text
    for level in ("utterance", "system"):
        assert len(difference_of(text, "conditions", level)) == 1


def test_a_published_model_is_compared_with_the_first(kept, page):
    value = np.mean([agreement(*rows_of(kept, "conditions", f"distilmos_seed{s}"))["LCC"] for s in SEEDS])
    value -= agreement(*rows_of(kept, "conditions", "zero_shot/distillmos"))["LCC"]
    difference, low, high = difference_of(page, "conditions", other="distillmos")
    assert difference == pytest.approx(value, abs=6e-4)
    assert 0 < low < value < high


def test_each_type_is_shown_by_itself(kept, page):
    by_seed = [rows_of(kept, "conditions", f"sslmos_seed{s}", "chop") for s in SEEDS]
    for title, values in (
        ("utterance LCC", [agreement(rated, predicted)["LCC"] for rated, predicted in by_seed]),
        ("predicted - rated", [np.mean(predicted - rated) for rated, predicted in by_seed]),
    ):
        found = cells(page, f"conditions, {title} within a type:", "sslmos")
        assert sorted(found) == ["chop", "echo", "model", "reference"]
        assert found["chop"] == f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"


def test_types_are_resampled_by_themselves(kept, tmp_path):
    study = shutil.copytree(kept, tmp_path / "before", ignore=shutil.ignore_patterns("R*"))
    shutil.rmtree(study / "study" / "leave_chop_out")
    shutil.copytree(study / "study" / "leave_echo_out", study / "study" / "leave_chop_out")

    def renamed(lines):
        return [[*f[:2], {"echo": "chop", "chop": "echo"}.get(f[2], f[2]), *f[3:]] for f in lines]

    text = changed(study, tmp_path / "copy", "leave_chop_out/**", renamed)
    echo, both = difference_of(text, "echo"), difference_of(text, "held-out types")
    assert both[0] == echo[0]
    assert both[2] - both[1] < 0.85 * (echo[2] - echo[1])


def test_curves_and_layers(kept, page):
    for title, *losses in (("conditions:", "0.250", "0.650", "0.400"), ("held-out types:", "0.250", "0.750", "0.500")):
        row = cells(page, title, "distilmos")
        assert [cell.split(" ±")[0] for cell in row.values()] == [
            *("distilmos", "0.850", "0.750"),  # best and last of the two seeds' evaluations
            *("0.100", *losses),
        ]
    layers = cells(page, "![Linear CKA with the frozen layer](R_files/cka.svg)", "sslmos")
    assert layers == {
        **{"model": "sslmos", "CKA 1": "0.500 ± 0.000", "CKA 2": "0.300 ± 0.000", "tokens read": "0.400 ± 0.000"},
        **{"speaker read": "0.800 ± 0.000", "MOS read": "0.600 ± 0.000"},
    }
    assert "tokens 0.500 ± 0.000, speaker 0.900 ± 0.000 (by chance 0.250), MOS 0.700 ± 0.000" in page
    for name in ("dev_conditions", "dev_echo", "dev_chop", "cka"):
        assert f"R_files/{name}.svg" in page
        assert (kept / "R_files" / f"{name}.svg").read_text().startswith("<svg")


def test_times_are_compared_within_commit_and_hardware(kept, tmp_path):
    shutil.copytree(kept, tmp_path, dirs_exist_ok=True)

    def change(protocol, training, minutes, **start):
        path = tmp_path / "study" / protocol / training
        first, *events, end = map(json.loads, (path / "log.jsonl").read_text().splitlines())
        write_log(path, [first | start, *events, end | {"elapsed_seconds": 60 * minutes}])

    def times():
        assert gather(tmp_path).returncode == 0
        table = (tmp_path / "R.md").read_text(encoding="utf-8").partition("## Training time")[2]
        rows = [line for line in table.splitlines() if line.startswith(("| distilmos", "| sslmos"))]
        return [[cell.strip() for cell in row.split("|")[2:-1]] for row in rows]

    for protocol in ("conditions", "leave_echo_out", "leave_chop_out"):
        change(protocol, "sslmos_seed1", 0.5)
    change("conditions", "sslmos_seed2", 0.1, hardware=_start(2)["hardware"] | {"cpu": "another CPU"})
    assert times() == [["1.0", "1", ""], ["0.5", "0.50", "5"]]
    change("leave_echo_out", "sslmos_seed2", 0.1, commit="abc3")
    assert times() == []  # four pairs are too few


def test_tokens_of_other_clusters_have_frozen_layers_of_their_own(kept, page, tmp_path):
    assert ", of sslmos" not in page
    study = shutil.copytree(kept, tmp_path / "copy", ignore=shutil.ignore_patterns("R*"))
    for seed in SEEDS:
        path = study / "study" / "conditions" / f"sslmos_seed{seed}" / "analysis" / "analysis.json"
        analysis = json.loads(path.read_text())
        for layer in analysis["tokens"]:
            layer["before"]["probe"] = 0.45
        path.write_text(json.dumps(analysis))
    assert gather(study).returncode == 0
    assert "MOS 0.700 ± 0.000, of sslmos tokens 0.450 ± 0.000. Over" in (study / "R.md").read_text(encoding="utf-8")


def test_a_training_without_scores_is_named(kept, tmp_path):
    study = shutil.copytree(kept, tmp_path / "copy", ignore=shutil.ignore_patterns("R*"))
    (study / "study" / "conditions" / "sslmos_seed2" / "results" / "test" / "scored.tsv").unlink()
    done = gather(study)
    assert done.returncode == 2
    assert "study/conditions/sslmos_seed2/results/test/scored.tsv" in done.stderr
    assert not (study / "R.md").exists()


def test_tuning_shows_what_is_kept_without_training_again(kept, tmp_path):
    for model in ("sslmos+encoder_lr=1e-4", "sslmos+encoder_lr=3e-4"):
        for fold in (1, 2):
            training = tmp_path / "tuning" / f"{model}_seed{fold}"
            training.mkdir(parents=True)
            value = 0.5 + 0.1 * fold + (0.05 if "3e-4" in model else 0)
            scores = dict.fromkeys(("MSE", "LCC", "SRCC", "KTAU"), value)
            events = [*_events(fold, "conditions")][:-1]
            events.append({"event": "end", "step": 30, "dev": {"utterance": scores, "system": scores}})
            write_log(training, events)
            settings = load_config(RECIPE / "conf" / "sslmos.yaml", [model.partition("+")[2]]).model_dump(mode="json")
            (training / "config.yaml").write_text(yaml.safe_dump(settings | {"seed": fold}))
    options = ["--models", "sslmos+encoder_lr=1e-4 sslmos+encoder_lr=3e-4", "--folds", "1 2"]
    options += ["--kept", tmp_path / "tuning", "--out", tmp_path / "TUNING.md"]
    done = run_script(RECIPE / "tune.sh", *options)
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1:4] for line in (tmp_path / "TUNING.md").read_text().splitlines() if "**" in line]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["**sslmos+encoder_lr=1e-4**", "mean", "0.650 ± 0.071"],
        ["**sslmos+encoder_lr=3e-4**", "mean", "0.700 ± 0.071"],
    ]
    # All of one page have been computed to the same precision, whichever, on the same encoder.
    (tmp_path / "TUNING.md").unlink()
    log = (training / "log.jsonl").read_text()
    made = (("precision", "float32", "bfloat16"), ("encoder", "abc", "def"), ("initial_model", "ghi", "jkl"))
    for key, before, value in made:
        (training / "log.jsonl").write_text(log.replace(f'"{key}": "{before}"', f'"{key}": "{value}"'))
        done = run_script(RECIPE / "tune.sh", *options)
        assert done.returncode == 2
        assert f"{key}: {before} in {tmp_path / 'tuning'}/" in done.stderr
        assert f"_seed1, {value} in {training}" in done.stderr
    (training / "log.jsonl").write_text(log)
    # Folds have k-means of their own; seeds of the same data have not.
    check = [sys.executable, RECIPE / "local" / "check_kept.py", *options[:2], "--seeds", "1 2", "--kept", options[5]]
    done = subprocess.run(check, cwd=RECIPE, text=True, capture_output=True)
    assert done.returncode == 2
    assert f"kmeans: def1 in {training.with_name(training.name[:-1] + '1')}, def2 in {training}" in done.stderr
    # A training with settings that are no longer those of conf/ is not taken for what it would be now.
    (training / "config.yaml").write_text(yaml.safe_dump(settings | {"max_steps": 77}))
    done = run_script(RECIPE / "tune.sh", *options)
    assert done.returncode == 2
    assert f"{training}: max_steps was 77 and is {settings['max_steps']} now" in done.stderr
    assert not (tmp_path / "TUNING.md").exists()


@pytest.mark.slow
def test_what_is_kept_is_not_trained_again(tmp_path):
    recipe = link_recipe("tcdvoip", tmp_path)
    random = np.random.default_rng(0)
    for name, group in (("train", "chop"), ("dev", "chop"), ("test", "echo")):
        utterances = []
        for number in range(6):
            soundfile.write(tmp_path / f"{name}{number}.wav", 0.02 * number * random.standard_normal(8000), 16000)
            mos = 4.5 - number / 2
            wav = tmp_path / f"{name}{number}.wav"
            utterances.append(Utterance(wav.stem, wav, f"{group}{number // 2}", mos=mos, group=group))
        write_data_dir(recipe / "data" / "leave_echo_out" / name, utterances)
    split = ["--split", "leave_type_out", "--held_out", "echo"]
    done = run_script(recipe / "run.sh", *split, "--stage", "1", "--stop_stage", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    (recipe / "dump" / "leave_echo_out" / ".prepared").touch()

    model = "spectral+max_steps=2+warmup_steps=1+eval_every=2"
    study = ["--protocols", "echo", "--models", model, "--seeds"]
    done = run_script(recipe / "study.sh", *study, "1")
    assert done.returncode == 0, done.stdout + done.stderr
    first = recipe / "study" / "leave_echo_out" / f"{model}_seed1"
    files = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    assert {str(path.relative_to(first)) for path in files} == {
        *("config.yaml", "log.jsonl", "results/test/metrics.json", "results/test/scored.tsv")
    }
    # On another machine, where only study/ is there.
    shutil.rmtree(recipe / "exp")
    done = run_script(recipe / "study.sh", *study, "1 2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in (recipe / "exp" / "leave_echo_out").glob("*_seed*")] == [f"{model}_seed2"]
    assert {path: path.read_bytes() for path in files} == files
    assert "- seeds: 1, 2\n- test: echo 6 recordings of 3 conditions\n" in (recipe / "RESULTS.md").read_text()
    # One that fails does not take the others of its array with it.
    done = run_script(
        recipe / "study.sh", "--protocols", "echo", "--models", f"{model} {model}+max_seconds=0.1", "--seeds", "3"
    )
    assert done.returncode != 0
    assert sorted(path.name for path in first.parent.iterdir()) == [f"{model}_seed{seed}" for seed in (1, 2, 3)]


def test_a_model_is_the_name_of_a_directory():
    done = run_script(RECIPE.parent / "TEMPLATE" / "sweep.sh", "--models", "distilmos+init_model=a/b")
    assert done.returncode == 2
    assert "a value with / belongs into a configuration" in done.stderr
