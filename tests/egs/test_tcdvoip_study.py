"""The study on TCD-VoIP: keeping runs, checking them, and making pages from what is kept."""

import json
import lzma
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from helpers.recipes import EGS, link_recipe, run_script

from distilmos.data.datadir import Utterance, write_data_dir
from distilmos.data.tables import write_table
from distilmos.errors import InputError
from distilmos.metrics import METRICS, agreement
from distilmos.scoring.results import read_scored, score_results
from distilmos.training.config import load_config

RECIPE = EGS / "tcdvoip"
sys.path.append(str(EGS / "TEMPLATE" / "study"))
from records import check, missing, read_kept, read_study  # noqa: E402

GROUPS = ("echo", "chop", "reference")
MODELS = {"distilmos": 0.1, "sslmos": 1.0}  # with the standard deviation of their errors
PROTOCOLS = ("conditions", "echo", "chop")
SEEDS = (1, 2)
DEV_LCC = {1: (0.4, 0.9, 0.7), 2: (0.5, 0.7, 0.8)}  # of each seed, in the course of a run
RESULTS = ("trainings.jsonl.xz", "predictions.tsv.xz", "ratings.tsv")
CORPUS = {"title": "A corpus", "about": "Groups are types.", "types": ["echo", "chop"]}
STUDY = CORPUS | {
    "protocols": {
        "conditions": {"options": "--split conditions"},
        "echo": {"options": "--split leave_type_out --held_out echo", "held_out": "echo"},
        "chop": {"options": "--split leave_type_out --held_out chop", "held_out": "chop"},
        "folds": {"options": "--split conditions --dev_fold {seed}"},
    },
    "models": {
        **{model: {"conf": model} for model in MODELS},
        "slow": {"conf": "sslmos", "overrides": ["encoder_lr=1e-4"]},
        "fast": {"conf": "sslmos", "overrides": ["encoder_lr=3e-4"]},
    },
    "pages": {
        "all": {"protocols": [*PROTOCOLS], "models": [*MODELS], "seeds": [*SEEDS], "published": ["distillmos"]},
        "tuning": {"dev": True, "protocols": ["folds"], "models": ["slow", "fast"], "seeds": [*SEEDS]},
        "dev": {"dev": True, "protocols": ["conditions"], "models": ["sslmos"], "seeds": [*SEEDS]},
    },
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A recipe with finished runs of two models and two seeds, in domain and with echo or chop held out, all kept."""
    tmp_path = tmp_path_factory.mktemp("study")
    write_recipe(tmp_path)
    random = np.random.default_rng(0)
    soundfile.write(tmp_path / "x.wav", 0.1 * random.standard_normal(8000), 16000)
    utterances = [
        Utterance(f"{group}{n}-{m}", tmp_path / "x.wav", f"{group}{n}", mos=1 + (7 * n + m) % 4, group=group)
        for group in GROUPS
        for n in range(4)
        for m in range(3)
    ]
    write_data_dir(tmp_path / "data", utterances)

    def score(run, noise):
        predicted = {u.id: u.mos + noise * random.standard_normal() for u in utterances}
        write_table(run / "results" / "test" / "utt2mos", predicted)
        score_results(tmp_path / "data", run / "results" / "test", samples=5)

    for protocol in PROTOCOLS:
        score(tmp_path / "exp" / "study" / protocol / "distillmos", 2.0)
        for model, noise in MODELS.items():
            for seed in SEEDS:
                run = write_run(tmp_path, protocol, model, [], seed, _events(seed, protocol))
                score(run, noise)
                if protocol == "conditions":
                    (run / "analysis").mkdir()
                    (run / "analysis" / "analysis.json").write_text(json.dumps(_analysis(noise)))
    done = study(tmp_path, "keep", "all")
    assert done.returncode == 0, done.stderr
    return tmp_path


@pytest.fixture(scope="module")
def page(kept):
    """The page of these runs, made once."""
    return make_page(kept)


def write_recipe(path):
    (path / "conf").mkdir(parents=True)
    (path / "conf" / "common.yaml").write_text("max_steps: 300\n")
    for model in MODELS:
        (path / "conf" / f"{model}.yaml").write_text(f"base: common.yaml\nmodel: {model}\n")
    (path / "study").mkdir()
    (path / "study" / "models.yaml").write_text(yaml.safe_dump(STUDY))


def write_run(recipe, place, conf, overrides, seed, events):
    """Write the settings and the log of a finished run, and return its directory."""
    run = recipe / "exp" / "study" / place / f"{conf}{''.join(f'+{change}' for change in overrides)}_seed{seed}"
    run.mkdir(parents=True, exist_ok=True)
    settings = load_config(recipe / "conf" / f"{conf}.yaml", overrides).model_dump(mode="json")
    (run / "config.yaml").write_text(yaml.safe_dump(settings | {"seed": seed}))
    write_log(run, events)
    (run / ".ended").touch()
    return run


def study(recipe, action, name):
    command = [sys.executable, str(EGS / "TEMPLATE" / "study" / "study.py"), action, name]
    return subprocess.run(command, cwd=recipe, text=True, capture_output=True, check=False)


def make_page(recipe):
    done = study(recipe, "page", "all")
    assert done.returncode == 0, done.stderr
    return (recipe / "study" / "ALL.md").read_text(encoding="utf-8")


def copy_runs(kept, target):
    """Return a copy of the recipe in which nothing is kept."""
    return shutil.copytree(kept, target, ignore=shutil.ignore_patterns("ALL*", *RESULTS))


def keep_and_make_page(recipe):
    done = study(recipe, "keep", "all")
    assert done.returncode == 0, done.stderr
    return make_page(recipe)


def write_log(run, events):
    (run / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))


def _start(seed, protocol):
    hardware = {"gpu": None, "cpu": "a CPU", "threads": 1, "torch": "2", "python": "3"}
    made = {"commit": f"abc{seed}", "time": f"2026-01-0{seed}", "precision": "float32"}
    made |= {"encoder": "abc", "initial_model": "ghi", "kmeans": f"of_{protocol}"}
    return {"event": "start", "step": 0, **made, "hardware": hardware}


def _events(seed, protocol):
    yield _start(seed, protocol)
    yield {"event": "train", "step": 30, "regression": 0.25}
    dev_loss = 0.65 if protocol == "conditions" else 0.75
    for step, value in zip((10, 20, 30), DEV_LCC[seed], strict=True):
        yield {"event": "dev", "step": step, "regression": dev_loss, "utterance": dict.fromkeys(METRICS, value)}
    yield {"event": "end", "step": 30, "elapsed_seconds": 60.0 * seed}


def _analysis(noise):
    tokens = {"agreement": 0.5, "inertia_per_frame": 1.0, "explained_variance": 0.5}
    measures = {"before": {"accuracy": 0.9, "sd": 0.1, "LCC": 0.7}, "after": {"accuracy": 0.8, "sd": 0.1, "LCC": 0.6}}
    probe = {"utterances": 9, "folds_of": "system", "layers": [{"layer": layer, **measures} for layer in (1, 2)]}
    return {
        "subject": "x",
        "ssl": "s",
        "model": "x",
        "time": "t",
        "commit": None,
        "hardware": {},
        "seed": 1,
        "data": [],
        "notes": "",
        "kmeans": "k",
        "utterances": 9,
        "seconds": 9.0,
        "frames": 9,
        "held_out": 3,
        "left_out": [],
        "similarity": [[1 - noise / 2, 0.0], [0.0, 0.3]],
        "tokens": [
            {"layer": layer, "chance": 0.2, "before": {"probe": 0.5, **tokens}, "after": {"probe": 0.4, **tokens}}
            for layer in (1, 2)
        ],
        "probes": [
            {"name": "speaker", "classes": 4, "chance": 0.25, **probe},
            {"name": "MOS", "classes": None, "chance": None, **probe},
        ],
    }


def _generalisation(name, lcc, kind="set"):
    scores = {measure: {"value": lcc, "low": 0.0, "high": 1.0} for measure in ("LCC", "SRCC")}
    layers = [{"layer": layer} | scores for layer in (1, 2)]
    counts = {"utterances": 4, "conditions": 4, "chosen": [1]}
    return {"kind": kind, "name": name, "all": scores, "best": scores, "layers": layers} | counts


def cells(page, title, name, first="model"):
    """Return column -> cell of the row `name` in the table after the line `title`."""
    table = page.partition(f"\n{title}\n\n")[2].partition("\n\n")[0]
    header, row = (next(line for line in table.splitlines() if line.startswith(f"| {n} ")) for n in (first, name))
    columns = [cell.strip() for cell in header.strip("|").split("|")]
    return dict(zip(columns, [cell.strip() for cell in row.strip("|").split("|")], strict=True))


def rows_of(recipe, protocol, run, group=None):
    rows = read_scored(recipe / "exp" / "study" / protocol / run / "results" / "test")
    return np.array([(row.mos, row.predicted) for row in rows if group in (None, row.group)]).T


def test_scores_are_means_over_seeds_and_held_out_types_count_their_own_conditions(kept, page):
    counts = {"conditions": (36, 12), "echo": (12, 4), "chop": (12, 4)}
    counted = next(line for line in page.splitlines() if line.startswith("- test: "))
    assert re.findall(r"(\w+) (\d+) \D+ (\d+)", counted) == [(name, str(n), str(m)) for name, (n, m) in counts.items()]
    wanted = {}
    for protocol, group in (("conditions", None), ("echo", "echo"), ("chop", "chop")):
        wanted[protocol] = [agreement(*rows_of(kept, protocol, f"sslmos_seed{s}", group))["SRCC"] for s in SEEDS]
    wanted["held-out types, mean"] = np.mean([wanted["echo"], wanted["chop"]], axis=0)
    found = cells(page, "utterance SRCC:", "sslmos")
    for name, values in wanted.items():
        assert found[name] == f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"
    published = agreement(*rows_of(kept, "echo", "distillmos", "echo"))["MSE"]
    assert cells(page, "utterance MSE:", "distillmos")["echo"] == f"{published:.3f}"
    assert "`abc1`, `abc2`" in page
    assert "2026-01-01 to 2026-01-02" in page
    assert "\n- precision: float32\n- k-means: of_chop, of_conditions, of_echo\n" in page
    assert page.count("max_steps: 300") == 1  # the settings that all have
    assert all(f"model: {model}\n" in page for model in MODELS)


def test_differences_are_those_of_the_means_and_tell_a_better_model_from_a_worse(kept, page):
    found = {}
    for name, group in (("conditions", None), ("echo", "echo"), ("chop", "chop")):
        means = [
            np.mean([agreement(*rows_of(kept, name, f"{model}_seed{s}", group))["LCC"] for s in SEEDS])
            for model in MODELS
        ]
        found[name] = means[0] - means[1]
    found["held-out types"] = (found["echo"] + found["chop"]) / 2
    for name, value in found.items():
        difference, low, _ = difference_of(page, name)
        assert difference == pytest.approx(value, abs=6e-4)
        assert low > 0


def difference_of(page, protocol, level="utterance", other="sslmos", model="distilmos"):
    """Return the difference of LCC between two models and its interval's ends."""
    cell = cells(page, f"{model} - {other}:", protocol, first="test")[f"{level} LCC"]
    return [float(value) for value in re.findall(r"[+-][0-9.]+", cell)]


def changed(kept, target, runs, change):
    """Return the page of changed scores; `change` takes and returns the fields of each line of a scored.tsv."""
    recipe = copy_runs(kept, target)
    for path in recipe.glob(f"exp/study/{runs}/results/test/scored.tsv"):
        header, *lines = path.read_text().splitlines()
        lines = ["\t".join(fields) for fields in change([line.split("\t") for line in lines])]
        path.write_text("\n".join([header, *lines]) + "\n")
    return keep_and_make_page(recipe)


def test_a_difference_is_as_unsure_as_seeds_differ(kept, page, tmp_path):
    def opposite(lines):
        return [[*f[:4], str(6 - float(f[4])), *f[5:]] for f in lines]

    text = changed(kept, tmp_path / "copy", "conditions/sslmos_seed2", opposite)
    _, low, high = difference_of(text, "conditions")
    before = difference_of(page, "conditions")
    assert high - low > 3 * (
        before[2] - before[1]
    )  # one seed agrees with the ratings, the other predicts their opposite
    assert low < 0.5 and high > 1.5


def test_two_seeds_say_as_little_as_two_do(kept, tmp_path):
    """With one seed as good as the other model and one as bad as possible, half the resamples show no difference."""

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

    text = changed(kept, tmp_path / "copy", "**", repeated)
    assert difference_of(text, "conditions") == difference_of(text, "conditions", "system")


def test_copies_of_a_condition_that_all_types_have_are_one_condition(kept, tmp_path):
    """A single condition gives no interval, because all resamples are equal."""

    def references(lines):
        return [fields for fields in lines if fields[2] == "reference"]

    text = changed(kept, tmp_path / "copy", "conditions/**", references)
    assert re.search(r"^- test: conditions 12 \D+ 4 ", text, re.MULTILINE)
    for level in ("utterance", "system"):
        assert len(difference_of(text, "conditions", level)) == 1


def test_a_published_model_is_compared_with_the_first(kept, page):
    value = np.mean([agreement(*rows_of(kept, "conditions", f"distilmos_seed{s}"))["LCC"] for s in SEEDS])
    value -= agreement(*rows_of(kept, "conditions", "distillmos"))["LCC"]
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
    recipe = copy_runs(kept, tmp_path / "before")
    shutil.rmtree(recipe / "exp" / "study" / "chop")
    shutil.copytree(recipe / "exp" / "study" / "echo", recipe / "exp" / "study" / "chop")

    def renamed(lines):
        return [[f"copy-{f[0]}", f[1], {"echo": "chop", "chop": "echo"}.get(f[2], f[2]), *f[3:]] for f in lines]

    text = changed(recipe, tmp_path / "copy", "chop/**", renamed)
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
    layers = cells(page, "![Linear CKA with the frozen layer](ALL_files/cka.svg)", "sslmos")
    assert layers == {
        **{"model": "sslmos", "CKA 1": "0.500 ± 0.000", "CKA 2": "0.300 ± 0.000", "tokens read": "0.400 ± 0.000"},
        **{"speaker read": "0.800 ± 0.000", "MOS read": "0.600 ± 0.000"},
    }
    assert re.search(r"tokens 0\.500 ± 0\.000, speaker 0\.900 ± 0\.000 \(\D*0\.250\), MOS 0\.700 ± 0\.000", page)
    for name in ("dev_conditions", "dev_echo", "dev_chop", "cka"):
        assert f"ALL_files/{name}.svg" in page
        assert (kept / "study" / "ALL_files" / f"{name}.svg").read_text().startswith("<svg")


def test_times_are_compared_within_commit_and_hardware(kept, tmp_path):
    recipe = copy_runs(kept, tmp_path / "copy")

    def change(protocol, run, minutes, **start):
        path = recipe / "exp" / "study" / protocol / run
        first, *events, end = map(json.loads, (path / "log.jsonl").read_text().splitlines())
        write_log(path, [first | start, *events, end | {"elapsed_seconds": 60 * minutes}])

    def times():
        for name in RESULTS:
            (recipe / "study" / name).unlink(missing_ok=True)
        table = keep_and_make_page(recipe).partition("## Training time")[2]
        rows = [line for line in table.splitlines() if line.startswith(("| distilmos", "| sslmos"))]
        return [[cell.strip() for cell in row.split("|")[2:-1]] for row in rows]

    for protocol in PROTOCOLS:
        change(protocol, "sslmos_seed1", 0.5)
    change("conditions", "sslmos_seed2", 0.1, hardware=_start(2, "")["hardware"] | {"cpu": "another CPU"})
    assert times() == [["1.0", "1", ""], ["0.5", "0.50", "5"]]
    change("echo", "sslmos_seed2", 0.1, commit="abc3")
    assert times() == []  # four pairs are too few


def test_tokens_of_other_clusters_have_frozen_layers_of_their_own(kept, page, tmp_path):
    assert "0.450 ± 0.000" not in page
    recipe = copy_runs(kept, tmp_path / "copy")
    for seed in SEEDS:
        path = recipe / "exp" / "study" / "conditions" / f"sslmos_seed{seed}" / "analysis" / "analysis.json"
        analysis = json.loads(path.read_text())
        for layer in analysis["tokens"]:
            layer["before"]["probe"] = 0.45
        path.write_text(json.dumps(analysis))
    assert "sslmos tokens 0.450 ± 0.000" in keep_and_make_page(recipe)


def test_a_run_without_scores_is_named(kept, tmp_path):
    recipe = copy_runs(kept, tmp_path / "copy")
    shutil.rmtree(recipe / "exp" / "study" / "conditions" / "sslmos_seed2" / "results")
    assert study(recipe, "keep", "all").returncode == 0
    done = study(recipe, "page", "all")
    assert done.returncode == 2
    assert re.findall(r"(\S+), seed (\d)", done.stderr) == [("conditions/sslmos", "2")]
    assert not (recipe / "study" / "ALL.md").exists()


def test_kept_runs_are_read_back_as_they_were(kept):
    found = read_kept(kept / "study")
    assert len(found.runs) == len(PROTOCOLS) * len(MODELS) * len(SEEDS)
    for (protocol, model, seed), run in found.runs.items():
        path = kept / "exp" / "study" / protocol / f"{model}_seed{seed}"
        assert found.scored[protocol, model, seed] == {"test": read_scored(path / "results" / "test")}
        events = [*_events(seed, protocol)]
        assert [run.start, *run.train, *run.dev, run.end] == events
        assert run.config == yaml.safe_load((path / "config.yaml").read_text())
        assert run.analysis == (_analysis(MODELS[model]) if protocol == "conditions" else {})
    published = read_scored(kept / "exp" / "study" / "echo" / "distillmos" / "results" / "test")
    assert found.scored["echo", "distillmos", None] == {"test": published}


def test_what_is_kept_stays_and_only_finished_runs_are_added(kept, tmp_path):
    recipe = copy_runs(kept, tmp_path / "copy")
    ended = recipe / "exp" / "study" / "echo" / "sslmos_seed2" / ".ended"
    ended.unlink()
    assert re.findall(r"\d+", study(recipe, "keep", "all").stdout) == [
        "14",
        "0",
        "1",
    ]  # added, there already, not finished
    first = read_kept(recipe / "study")
    assert ("echo", "sslmos", 2) not in first.runs
    lacking = study(recipe, "lacking", "all").stdout.splitlines()
    assert [line.split("|")[:7] for line in lacking] == [
        ["sweep", "echo", "--split leave_type_out --held_out echo", "train", "test", "sslmos", "2"]
    ]
    assert study(recipe, "page", "all").returncode == 2
    # A kept run does not need its directory.
    shutil.rmtree(recipe / "exp" / "study" / "conditions")
    ended.touch()
    assert re.findall(r"\d+", study(recipe, "keep", "all").stdout) == ["1", "14", "0"]
    second = read_kept(recipe / "study")
    assert list(second.runs) == [*first.runs, ("echo", "sslmos", 2)]
    assert {key: second.scored[key] for key in first.scored} == first.scored
    files = {name: (recipe / "study" / name).read_bytes() for name in RESULTS}
    assert re.findall(r"\d+", study(recipe, "keep", "all").stdout) == ["0", "15", "0"]
    assert {name: (recipe / "study" / name).read_bytes() for name in RESULTS} == files


def kept_faults(done):
    """Return line number and words of each fault that stderr names in trainings.jsonl.xz."""
    faults = re.findall(r"study/trainings\.jsonl\.xz:(\d+): (.*)", done.stderr)
    return [(int(line), {word.strip(",;:") for word in text.split()}) for line, text in faults]


def test_runs_on_other_ratings_are_refused_and_nothing_is_written(kept, tmp_path):
    recipe = copy_runs(kept, tmp_path / "copy")
    path = recipe / "exp" / "study" / "chop" / "sslmos_seed1" / "results" / "test" / "scored.tsv"
    path.write_text(path.read_text().replace("echo2-1\techo2\techo\t4.0\t", "echo2-1\techo2\techo\t3.875\t"))
    done = study(recipe, "keep", "all")
    assert done.returncode == 2
    assert all(found in done.stderr for found in ("chop/sslmos, seed 1", "echo2-1", "3.875"))
    assert not any((recipe / "study" / name).exists() for name in RESULTS)


def test_seeds_that_lack_the_same_models_are_one_array(kept, tmp_path):
    recipe = copy_runs(kept, tmp_path / "copy")
    shutil.rmtree(recipe / "exp" / "study" / "conditions" / "distilmos_seed2")
    shutil.rmtree(recipe / "exp" / "study" / "echo")
    assert study(recipe, "keep", "all").returncode == 0
    lines = [line.split("|") for line in study(recipe, "lacking", "all").stdout.splitlines()]
    echo, of_model = "--split leave_type_out --held_out echo", "exp/study/echo/distillmos"
    tokens = ["train", "test", "hubert_tiny", "--conf conf/distilmos.yaml"]
    assert sorted(lines) == [
        ["score", "echo", echo, "train", "test", "distillmos", "dump/study/echo/raw/test", f"{of_model}/results/test"],
        ["sweep", "conditions", "--split conditions", "train", "test", "distilmos", "2", "false"],
        ["sweep", "echo", echo, "train", "test", "distilmos sslmos", "1 2", "false"],
        ["tokens", "conditions", "--split conditions", *tokens],
        ["tokens", "echo", echo, *tokens],
    ]
    lines = [line.split("|") for line in study(recipe, "lacking", "tuning").stdout.splitlines()]
    specs = "sslmos+encoder_lr=1e-4 sslmos+encoder_lr=3e-4"
    assert lines == [
        ["sweep", f"folds/{n}", f"--split conditions --dev_fold {n}", "train", "test", specs, str(n), "true"]
        for n in SEEDS
    ]


def test_a_run_of_a_dev_page_is_not_trained_again_for_its_scores(kept, tmp_path):
    recipe = copy_runs(kept, tmp_path / "copy")
    runs = recipe / "exp" / "study" / "conditions"
    for seed in SEEDS:
        (runs / f"sslmos_seed{seed}" / "results").rename(tmp_path / str(seed))
    assert study(recipe, "keep", "dev").returncode == 0
    of_dev = read_kept(recipe / "study")
    assert list(of_dev.runs) == [("conditions", "sslmos", seed) for seed in SEEDS] and of_dev.scored == {}
    # Its log alone is not enough for another page.
    assert re.findall(r"\d+", study(recipe, "keep", "all").stdout) == ["13", "0", "2"]
    lines = [line.split("|") for line in study(recipe, "lacking", "all").stdout.splitlines()]
    assert lines == [["sweep", "conditions", "--split conditions", "train", "test", "sslmos", "1 2", "false"]]
    for seed in SEEDS:
        (tmp_path / str(seed)).rename(runs / f"sslmos_seed{seed}" / "results")
    assert re.findall(r"\d+", study(recipe, "keep", "all").stdout) == ["2", "13", "0"]
    assert study(recipe, "lacking", "all").stdout == study(recipe, "lacking", "dev").stdout == ""
    make_page(recipe)


def test_runs_that_lack_a_set_that_was_added_are_scored_again(kept, tmp_path):
    recipe = copy_runs(kept, tmp_path / "egs" / "tcdvoip")
    assert study(recipe, "keep", "all").returncode == 0
    (tmp_path / "egs" / "p835").mkdir()
    (tmp_path / "egs" / "p835" / "run.sh").touch()
    sets = {"sets": {"p835/p835_wb": []}}
    protocols = STUDY["protocols"] | {"echo": STUDY["protocols"]["echo"] | sets}
    (recipe / "study" / "models.yaml").write_text(yaml.safe_dump(STUDY | {"protocols": protocols}))
    lines = [line.split("|")[:2] for line in study(recipe, "lacking", "all").stdout.splitlines()]
    assert ["sweep", "echo"] in lines and {place for _, place in lines} == {"echo"}
    protocols |= {"chop": STUDY["protocols"]["chop"] | sets}
    (recipe / "study" / "models.yaml").write_text(yaml.safe_dump(STUDY | {"protocols": protocols}))
    done = study(recipe, "page", "all")
    assert done.returncode == 2 and "p835/p835_wb" in done.stderr


def test_a_page_of_finished_models_alone(kept, tmp_path):
    recipe = copy_runs(kept, tmp_path / "copy")
    definition = STUDY | {"pages": {"all": {"protocols": ["conditions"], "published": ["distillmos", "spectral_voip"]}}}
    (recipe / "study" / "models.yaml").write_text(yaml.safe_dump(definition))
    lines = [line.split("|") for line in study(recipe, "lacking", "all").stdout.splitlines()]
    assert [(kind, model) for kind, _, _, _, _, model, *_ in lines] == [
        ("score", "distillmos"),
        ("predict", "spectral_voip"),
    ]
    runs = recipe / "exp" / "study" / "conditions"
    shutil.copytree(runs / "sslmos_seed1" / "results", runs / "spectral_voip" / "results")
    text = keep_and_make_page(recipe)
    values = [agreement(*rows_of(recipe, "conditions", name))["LCC"] for name in ("distillmos", "spectral_voip")]
    for name, value in zip(("distillmos", "spectral_voip"), values, strict=True):
        assert cells(text, "utterance LCC:", name)["conditions"] == f"{value:.3f}"
    difference, *_ = difference_of(text, "conditions", model="distillmos", other="spectral_voip")
    assert difference == pytest.approx(values[0] - values[1], abs=6e-4)


def test_further_test_sets_are_kept_with_each_of_their_targets(tmp_path):
    """A study in a folder of its own, with a set of another recipe that is rated twice, refits and signals of doubt."""
    recipe = tmp_path / "tcdvoip"
    write_recipe(recipe)
    folder = recipe / "study" / "further"
    folder.mkdir()
    protocol = {"options": "--split conditions", "train": ["degraded/train"], "sets": {"p835/p835_wb": ["sig"]}}
    protocol |= {"refit": True, "confidence": True}
    page = {"protocols": ["conditions"], "models": ["sslmos"], "seeds": [1], "published": ["distillmos"]}
    dev = {"dev": True, "protocols": ["conditions"], "models": ["sslmos"], "seeds": [1]}
    own = {"sslmos": {"conf": "sslmos", "overrides": ["head=statistics"]}}
    definition = CORPUS | {"protocols": {"conditions": protocol}, "models": own}
    definition |= {"pages": {"one": page, "dev": dev}}
    (folder / "models.yaml").write_text(yaml.safe_dump(definition))
    (tmp_path / "p835").mkdir()
    (tmp_path / "p835" / "run.sh").touch()
    raw = {"test": recipe / "dump" / "raw" / "test", "p835_wb": tmp_path / "p835" / "dump" / "raw" / "p835_wb"}
    soundfile.write(tmp_path / "x.wav", 0.1 * np.random.default_rng(0).standard_normal(8000), 16000)
    for name, path in raw.items():
        write_data_dir(path, [Utterance(f"{name}{n}", tmp_path / "x.wav", f"c{n}", mos=1 + n) for n in range(4)])
    write_table(raw["p835_wb"] / "utt2sig", {f"p835_wb{n}": 4.5 - n for n in range(4)})

    data = "conditions", "--split conditions", "train degraded/train", "test p835/p835_wb"
    assert [line.split("|") for line in study(recipe, "lacking", "further/one").stdout.splitlines()] == [
        ["sweep", *data, "sslmos+head=statistics", "1", "false"],
        *(
            [
                *(kind, *data),
                "exp/study/further/conditions/sslmos+head=statistics_seed1",
                "dump/study/further/conditions/raw/train",
                "dump/study/further/conditions/raw/test ../p835/dump/raw/p835_wb",
            ]
            for kind in ("refit", "confidence")
        ),
        *(
            [
                "score",
                *data,
                "distillmos",
                path,
                f"{exp}/results/{name}",
            ]
            for exp in ["exp/study/further/conditions/distillmos"]
            for name, path in {
                "test": "dump/study/further/conditions/raw/test",
                "p835_wb": "../p835/dump/raw/p835_wb",
            }.items()
        ),
    ]
    run = write_run(recipe, "further/conditions", "sslmos", ["head=statistics"], 1, _events(1, "conditions"))
    assert re.findall(r"\d+", study(recipe, "keep", "further/dev").stdout) == ["1", "0", "0"]
    scores = {run: (2, 2.5, 3, 3.5), run.parent / "distillmos": (2, 3, 2.5, 3.5)}
    for exp, predicted in scores.items():
        for name, path in raw.items():
            write_table(exp / "results" / name / "utt2mos", {f"{name}{n}": predicted[n] for n in range(4)})
            score_results(path, exp / "results" / name, samples=5)
    assert re.findall(r"\d+", study(recipe, "keep", "further/one").stdout) == ["1", "0", "1"]
    (run / "refit").mkdir()
    refits = {"test": 0.75, "p835_wb": 0.25}
    rows = [_generalisation(str(raw[name]), lcc) for name, lcc in refits.items()]
    analysis = _analysis(1.0) | {"generalisation": [_generalisation("", 0.5, "conditions"), *rows]}
    (run / "refit" / "analysis.json").write_text(json.dumps(analysis))
    assert re.findall(r"\d+", study(recipe, "keep", "further/one").stdout) == ["0", "1", "1"]
    signals = [{"path": name, "signals": {"novelty": {"SRCC": {"value": lcc / 2}}}} for name, lcc in refits.items()]
    (run / "confidence.json").write_text(json.dumps(signals))
    done = study(recipe, "keep", "further/one")
    assert done.returncode == 0, done.stderr
    found = read_kept(folder)
    assert found.refits == {("conditions", "sslmos", 1): refits}
    for key, predicted in zip(
        (("conditions", "sslmos", 1), ("conditions", "distillmos", None)), scores.values(), strict=True
    ):
        overall, signal = found.scored[key]["p835_wb"], found.scored[key]["p835_wb.sig"]
        assert [row.mos for row in overall] == [1, 2, 3, 4]
        assert [row.mos for row in signal] == [4.5, 3.5, 2.5, 1.5]
        assert [row.predicted for row in signal] == [row.predicted for row in overall] == [*predicted]
    assert not (recipe / "study" / "trainings.jsonl.xz").exists()
    done = study(recipe, "page", "further/one")
    assert done.returncode == 0, done.stderr
    shown = (folder / "ONE.md").read_text(encoding="utf-8").partition("## In and out of domain")[2]
    assert (folder / "ONE_files" / "domains.svg").exists() and "ONE_files/domains.svg" in shown
    lcc = np.corrcoef([2, 3, 2.5, 3.5], [1, 2, 3, 4])[0, 1]
    for column, difference in (("conditions", lcc - 1), ("p835_wb", lcc - 1), ("p835_wb.sig", 1 - lcc)):
        row = cells(shown, f"{column}:", "distillmos")
        assert float(row["utterance LCC"]) == pytest.approx(difference, abs=5e-4)
        assert row["p"] == row["p, Holm"]  # a single comparison
    (refitted,) = (line.split("|") for line in shown.splitlines() if "0.750" in line)
    assert [cell.strip() for cell in refitted[2:6]] == ["1.000", "0.750", "1.000", "0.250"]
    doubts = [line.split("|") for line in shown.partition("## Confidence")[2].splitlines() if "sslmos" in line]
    assert [[cell.strip() for cell in row[1:4]] for row in doubts[:2]] == [
        ["sslmos", "conditions", "0.375"],
        ["sslmos", "p835_wb", "0.125"],
    ]


def _compressed(change):
    return lambda path: path.write_bytes(lzma.compress(change(lzma.decompress(path.read_bytes()))))


@pytest.mark.parametrize(
    ("name", "change", "line", "value"),
    [
        ("trainings.jsonl.xz", _compressed(lambda b: b.replace(b'"seed": 2', b'"seed": "z"', 1)), 2, "'z'"),
        ("trainings.jsonl.xz", _compressed(lambda b: b.replace(b'"seed": 2', b'"seed": 1', 1)), 2, "line 1"),
        ("trainings.jsonl.xz", _compressed(lambda b: b.replace(b'"analysis"', b'"other"', 1)), 1, "analysis"),
        ("trainings.jsonl.xz", lambda path: path.write_bytes(path.read_bytes()[:-50]), None, ""),
        ("predictions.tsv.xz", _compressed(lambda b: b.replace(b"\techo1-2\t", b"\tunknown\t", 1)), 19, "unknown"),
        ("predictions.tsv.xz", _compressed(lambda b: b.replace(b"\techo1-2\t", b"\techo1-1\t", 1)), 19, "echo1-1"),
        ("predictions.tsv.xz", _compressed(lambda b: b.replace(b"\techo1-2\t", b"\techo1-2\tx", 1)), 19, "'x"),
        ("predictions.tsv.xz", _compressed(lambda b: b.replace(b"\techo1-2\t", b"\techo1-2 ", 1)), 19, "utterance"),
        ("predictions.tsv.xz", _compressed(lambda b: b[9:]), 1, "protocol"),
        (
            "ratings.tsv",
            lambda path: path.write_text(path.read_text().replace("\tmos\t", "\tscore\t")),
            1,
            "system_mos",
        ),
    ],
)
def test_damaged_results_are_named_with_file_and_line(kept, tmp_path, name, change, line, value):
    folder = shutil.copytree(kept / "study", tmp_path / "study")
    change(folder / name)
    with pytest.raises(InputError) as raised:
        read_kept(folder)
    assert str(raised.value).startswith(f"{folder / name}:" + ("" if line is None else f"{line}: "))
    assert value in str(raised.value)


@pytest.mark.parametrize(
    ("change", "value"),
    [
        (lambda s: s["pages"]["all"]["models"].append("nobody"), "nobody"),
        (lambda s: s["pages"]["all"]["protocols"].append("nowhere"), "nowhere"),
        (lambda s: s["pages"]["tuning"]["protocols"].append("echo"), "tuning"),
        (lambda s: s["pages"]["all"].pop("seeds"), "all"),
        (lambda s: s["pages"].update(none={"protocols": ["echo"]}), "none"),
        (lambda s: s["models"]["slow"].update(override=[]), "models.slow.override"),
        (lambda s: s["models"]["slow"].pop("conf"), "models.slow.conf"),
    ],
)
def test_faults_of_models_yaml_are_named(tmp_path, change, value):
    write_recipe(tmp_path)
    text = yaml.safe_load(yaml.safe_dump(STUDY))
    change(text)
    (tmp_path / "study" / "models.yaml").write_text(yaml.safe_dump(text))
    done = study(tmp_path, "page", "all")
    assert done.returncode == 2
    assert "study/models.yaml: " in done.stderr and value in done.stderr


def test_a_page_must_be_known(tmp_path):
    write_recipe(tmp_path)
    done = study(tmp_path, "page", "unknown_page")
    assert done.returncode == 2 and "unknown_page" in done.stderr
    (tmp_path / "study" / "models.yaml").write_text("protocols: {}\nmodels: [}\n")
    done = study(tmp_path, "page", "all")
    assert done.returncode == 2 and "study/models.yaml:2: " in done.stderr


def _write_folds(recipe):
    """Write two candidates on two folds; the second is the better one."""
    for model, change in (("slow", "encoder_lr=1e-4"), ("fast", "encoder_lr=3e-4")):
        for fold in SEEDS:
            value = 0.5 + 0.1 * fold + (0.05 if model == "fast" else 0)
            scores = dict.fromkeys(METRICS, value)
            events = [*_events(fold, f"fold{fold}")][:-1]
            events.append({"event": "end", "step": 30, "dev": {"utterance": scores, "system": scores}})
            write_run(recipe, f"folds/{fold}", "sslmos", [change], fold, events)


def test_tuning_shows_dev_scores(tmp_path):
    write_recipe(tmp_path)
    _write_folds(tmp_path)
    assert study(tmp_path, "keep", "tuning").returncode == 0
    done = study(tmp_path, "page", "tuning")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "study" / "TUNING.md").read_text()
    rows = [line.split("|")[1:4] for line in text.splitlines() if "**" in line]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["**slow**", "mean", "0.650 ± 0.071"],
        ["**fast**", "mean", "0.700 ± 0.071"],
    ]


@pytest.mark.parametrize(
    ("entry", "before", "after"),
    [("precision", "float32", "bfloat16"), ("encoder", "abc", "xyz"), ("initial_model", "ghi", "jkl")],
)
def test_runs_of_a_page_are_made_alike(tmp_path, entry, before, after):
    """They have one precision, and each name of an encoder or a model stands for the same weights."""
    write_recipe(tmp_path)
    _write_folds(tmp_path)
    log = tmp_path / "exp/study/folds/2/sslmos+encoder_lr=3e-4_seed2/log.jsonl"
    log.write_text(log.read_text().replace(f'"{entry}": "{before}"', f'"{entry}": "{after}"'))
    assert study(tmp_path, "keep", "tuning").returncode == 0
    done = study(tmp_path, "page", "tuning")
    assert done.returncode == 2
    other = 1 if entry != "initial_model" else 3  # the initial model is compared only within a model
    (first, said), (last, said_last) = kept_faults(done)
    assert (first, last) == (other, 4)
    assert {entry, before} <= said and {entry, after} <= said_last
    assert not (tmp_path / "study" / "TUNING.md").exists()


def test_seeds_on_the_same_data_have_one_kmeans(kept, tmp_path):
    """Each fold has its own, see `test_tuning_shows_dev_scores`."""
    recipe = copy_runs(kept, tmp_path / "copy")
    log = recipe / "exp" / "study" / "echo" / "sslmos_seed2" / "log.jsonl"
    log.write_text(log.read_text().replace('"kmeans": "of_echo"', '"kmeans": "another"'))
    assert study(recipe, "keep", "all").returncode == 0
    done = study(recipe, "page", "all")
    assert done.returncode == 2
    said = [words for _, words in kept_faults(done)]
    assert len(said) == 2 and all({"kmeans", "echo/sslmos"} <= words for words in said)
    assert {"1", "of_echo"} <= said[0] and {"2", "another"} <= said[1]


def test_a_run_with_settings_of_another_time_is_named(kept, tmp_path):
    recipe = shutil.copytree(kept, tmp_path / "copy", ignore=shutil.ignore_patterns("ALL*"))
    (recipe / "conf" / "sslmos.yaml").write_text("base: common.yaml\nmodel: sslmos\nmax_steps: 777\n")
    for action in ("page", "lacking"):
        done = study(recipe, action, "all")
        assert done.returncode == 2
        said = [words for _, words in kept_faults(done)]
        runs = [(f"{protocol}/sslmos", str(seed)) for protocol in PROTOCOLS for seed in SEEDS]
        assert len(said) == len(runs)
        assert all({*run, "max_steps", "300", "777"} <= words for run, words in zip(runs, said, strict=True))
    assert not (recipe / "study" / "ALL.md").exists()


@pytest.mark.parametrize(
    ("recipe", "folder"),
    [("tcdvoip", "study"), ("tcdvoip", "study/whisper"), ("tcdvoip", "study/pretrained"), ("speechocean762", "study")],
)
def test_the_committed_runs_are_those_of_the_pages_and_of_conf(monkeypatch, recipe, folder):
    monkeypatch.chdir(EGS / recipe)
    definition, found = read_study(Path(folder)), read_kept(Path(folder))
    for page in definition.pages.values():
        assert missing(definition, page, found) == []
        check(definition, page, found, Path("conf"))
    assert set(found.runs) == {key for page in definition.pages.values() for key in page.runs}
    specs = [model.spec for model in definition.models.values()]
    assert len(set(specs)) == len(specs)


@pytest.mark.parametrize(
    "name", ["spectral", "ablations", "whisper/equal_rates", "pretrained/results", "pretrained/default"]
)
def test_the_committed_pages_are_made_from_the_committed_results(tmp_path, name):
    folder, _, page = name.rpartition("/")
    out = tmp_path / folder / f"{page.upper()}.md"
    command = [sys.executable, "../TEMPLATE/study/study.py", "page", name, "--out", str(out)]
    done = subprocess.run(command, cwd=RECIPE, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    figures = [path.relative_to(tmp_path) for path in tmp_path.rglob("*.svg")]
    assert figures
    for path in (out.relative_to(tmp_path), *figures):
        assert (tmp_path / path).read_bytes() == (RECIPE / "study" / path).read_bytes(), path


@pytest.mark.slow
def test_what_is_kept_is_not_trained_again(tmp_path):
    recipe = link_recipe("tcdvoip", tmp_path)
    random = np.random.default_rng(0)
    for name, group in (("train", "chop"), ("dev", "chop"), ("test", "echo")):
        utterances = []
        for number in range(6):
            wav = tmp_path / f"{name}{number}.wav"
            soundfile.write(wav, 0.02 * number * random.standard_normal(8000), 16000)
            utterances.append(Utterance(wav.stem, wav, f"{group}{number // 2}", mos=4.5 - number / 2, group=group))
        write_data_dir(recipe / "data" / "study" / "echo" / name, utterances)
    directories = ["--datadir", "data/study/echo", "--dumpdir", "dump/study/echo"]
    done = run_script(recipe / "run.sh", *directories, "--stage", "1", "--stop_stage", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    # The mark that the script makes after stages 0 and 1 with these options.
    options = [
        *STUDY["protocols"]["echo"]["options"].split(),
        *directories,
        "--train_sets",
        "train",
        "--test_sets",
        "test",
    ]
    command = ["bash", "-c", '. ../TEMPLATE/options.sh; checksum "$@"', "bash", *options]
    mark = subprocess.run(command, cwd=recipe, capture_output=True, text=True, check=True).stdout.strip()
    (recipe / "dump" / "study" / "echo" / f".prepared.{mark}").touch()

    (recipe / "study").mkdir()
    (recipe / "study" / "study.sh").symlink_to(EGS / "TEMPLATE" / "study" / "study.sh")
    short = {"conf": "spectral", "overrides": ["max_steps=2", "warmup_steps=1", "eval_every=2"]}
    broken = short | {"overrides": [*short["overrides"], "max_seconds=0.1"]}
    page = {"protocols": ["echo"], "models": ["short"]}
    definition = CORPUS | {
        "protocols": {"echo": STUDY["protocols"]["echo"]},
        "models": {"short": short, "broken": broken},
        "pages": {
            "one": page | {"seeds": [1]},
            "two": page | {"seeds": [1, 2]},
            "failing": page | {"models": ["short", "broken"], "seeds": [3]},
        },
    }
    (recipe / "study" / "models.yaml").write_text(yaml.safe_dump(definition))
    script, exp = recipe / "study" / "study.sh", recipe / "exp" / "study" / "echo"
    done = run_script(script, "train", "one")
    assert done.returncode == 0, done.stdout + done.stderr
    first = read_kept(recipe / "study")
    assert list(first.runs) == [("echo", "short", 1)]
    # On another machine, which has only the results.
    shutil.rmtree(recipe / "exp")
    done = run_script(script, "train", "two")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name.rpartition("_")[2] for path in exp.glob("*_seed*")] == ["seed2"]
    second = read_kept(recipe / "study")
    assert second.runs["echo", "short", 1] == first.runs["echo", "short", 1]
    facts = re.findall(r"^- (seeds|test): (.*)", (recipe / "study" / "TWO.md").read_text(), re.MULTILINE)
    assert [re.findall(r"\d+", found) for _, found in facts] == [["1", "2"], ["6", "3"]]
    # A run that fails does not take the others of its array with it.
    assert run_script(script, "train", "failing").returncode != 0
    assert list(read_kept(recipe / "study").runs) == [("echo", "short", seed) for seed in (1, 2, 3)]
    assert not (recipe / "study" / "FAILING.md").exists()


def test_help_lists_the_options():
    done = run_script(RECIPE / "study" / "study.sh", "--help")
    assert done.returncode == 0 and "--db_root" in done.stdout


@pytest.mark.parametrize("options", [(), ("page",), ("unknown", "results"), ("page", "results", "--unknown", "1")])
def test_wrong_usage_of_the_script_is_refused(options):
    assert run_script(RECIPE / "study" / "study.sh", *options).returncode == 2


def test_a_model_is_the_name_of_a_directory():
    done = run_script(EGS / "TEMPLATE" / "sweep.sh", "--models", "distilmos+init_model=a/b")
    assert done.returncode == 2
    assert "--models" in done.stderr
