"""egs/mini, stages 0 to 8, with small settings; kaldiio and joblib read the files that the stages write."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import joblib
import kaldiio
import numpy as np
import pytest
import yaml
from helpers.pages import section, tables
from helpers.recipes import says

from distilmos.data.tables import read_floats

RECIPE = Path(__file__).resolve().parents[2] / "egs" / "mini"
SETS = ("train", "dev", "test", "test_ood")
CLUSTERS = 16
LEVELS = ("utterance", "system")
# The convolutions of HuBERT's feature extractor: (kernel, stride).
CONVOLUTIONS = ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))
SMALL = [
    *("--size", "small", "--clusters", str(CLUSTERS), "--max_frames", "2000", "--tag", "small"),
    *("--train_opts", "max_steps=4", "--train_opts", "warmup_steps=1", "--train_opts", "eval_every=2"),
    *("--train_opts", "max_seconds=10", "--train_opts", "batch_seconds=20", "--train_opts", "num_workers=0"),
    *("--train_opts", "hidden_dim=32"),
]


class Recipe:
    """egs/mini with its output in `root`."""

    def __init__(self, root):
        self.data, self.dump, self.exp = root / "data", root / "dump", root / "exp"
        self.raw = self.dump / "raw"
        self.kmeans = self.exp / f"kmeans_hubert_tiny_k{CLUSTERS}"
        self.tokens = self.dump / f"tokens_hubert_tiny_k{CLUSTERS}"
        self.model = self.exp / "small"

    def run(self, *options):
        directories = ["--datadir", self.data, "--dumpdir", self.dump, "--expdir", self.exp]
        return execute([RECIPE / "run.sh", *SMALL, *directories, *options])

    def stage(self, number, *options):
        return self.run("--stage", number, "--stop_stage", number, *options)


def execute(command, cwd=None):
    """Run `command` in the virtual environment of the tests; stdout and stderr together, as on a terminal."""
    environment = os.environ | {
        "VIRTUAL_ENV": sys.prefix,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def keys(table):
    return [line.split()[0] for line in table.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """The recipe after all stages, in a directory whose name has a space."""
    recipe = Recipe(tmp_path_factory.mktemp("mini recipe"))
    done = recipe.run()
    assert done.returncode == 0, done.stdout
    recipe.output = done.stdout
    return recipe


@pytest.fixture
def fresh(tmp_path):
    """The recipe before any stage."""
    return Recipe(tmp_path)


@pytest.mark.slow
def test_every_stage_announces_its_start_and_end(recipe):
    for stage in range(9):
        assert len(re.findall(rf"^\S+ \S+ stage {stage}: ", recipe.output, re.MULTILINE)) == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_stages_0_and_1_write_16_khz_audio_with_its_tables(recipe, name):
    raw, data = recipe.raw / name, recipe.data / name
    archive = kaldiio.load_scp(str(raw / "wav.scp"))
    durations = dict(line.split() for line in (raw / "utt2dur").read_text().splitlines())
    assert list(archive) == list(durations) == keys(data / "wav.scp") == sorted(archive)
    for utterance, (rate, samples) in archive.items():
        assert (rate, samples.dtype, samples.ndim) == (16000, np.int16, 1)
        assert float(durations[utterance]) == samples.size / 16000
    for table in ("utt2sys", "utt2mos", "ratings", "sys2group", "notes"):
        assert (raw / table).read_bytes() == (data / table).read_bytes()
    assert "simulated" in (raw / "notes").read_text()


@pytest.mark.slow
def test_stage_2_samples_training_frames_of_every_layer(recipe):
    layers = [kaldiio.load_scp(str(path)) for path in sorted((recipe.dump / "feats").glob("layer*.scp"))]
    assert len(layers) > 1
    frames = {utterance: matrix.shape for utterance, matrix in layers[0].items()}
    assert 0 < sum(shape[0] for shape in frames.values()) <= 2000
    assert set(frames) <= set(keys(recipe.raw / "train" / "wav.scp"))
    for layer in layers:
        assert {utterance: matrix.shape for utterance, matrix in layer.items()} == frames


@pytest.mark.slow
def test_stage_3_learns_every_layer(recipe):
    quality = json.loads((recipe.kmeans / "quality.json").read_text())
    feats = sorted(path.stem for path in (recipe.dump / "feats").glob("layer*.scp"))
    assert len(feats) == len(quality["layers"])
    for layer in feats:
        centroids = np.load(recipe.kmeans / f"{layer}.npy", allow_pickle=False)
        model = joblib.load(recipe.kmeans / f"{layer}.joblib")
        assert centroids.shape[0] == CLUSTERS
        np.testing.assert_array_equal(model.cluster_centers_, centroids)
    assert (recipe.kmeans / "quality.md").read_text() in recipe.output


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train", "dev"])
def test_stage_4_gives_every_encoder_frame_a_token_of_every_layer(recipe, name):
    audio = kaldiio.load_scp(str(recipe.raw / name / "wav.scp"))
    layers = sorted((recipe.tokens / name).glob("layer*.scp"))
    assert [path.name for path in layers] == sorted(path.name for path in (recipe.dump / "feats").glob("layer*.scp"))
    for path in layers:
        tokens = kaldiio.load_scp(str(path))
        assert list(tokens) == list(audio)
        for utterance, ids in tokens.items():
            frames = audio[utterance][1].size
            for kernel, stride in CONVOLUTIONS:
                frames = (frames - kernel) // stride + 1
            assert ids.shape == (frames,)
            assert np.issubdtype(ids.dtype, np.integer)
            assert ids.min() >= 0 and ids.max() < CLUSTERS


@pytest.mark.slow
def test_stage_5_trains_with_the_settings_given(recipe):
    events = [json.loads(line) for line in (recipe.model / "log.jsonl").read_text().splitlines()]
    assert [events[0]["event"], events[-1]["event"]] == ["start", "end"]
    assert {event["step"] for event in events if event["event"] == "dev"} == {2, 4}
    assert yaml.safe_load((recipe.model / "config.yaml").read_text())["hidden_dim"] == 32
    assert (recipe.model / "final" / "model.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test", "test_ood"])
def test_stages_6_and_7_predict_and_score_every_test_set(recipe, name):
    results = recipe.model / "results" / name
    assert keys(results / "utt2mos") == keys(recipe.raw / name / "wav.scp")
    metrics = json.loads((results / "metrics.json").read_text())
    for level in LEVELS:
        assert {"MSE", "LCC", "SRCC", "KTAU"} <= set(metrics[level])


@pytest.mark.slow
def test_stage_7_reports_that_the_ratings_are_simulated(recipe):
    for name in ("RESULTS.md", "report.html"):
        assert "simulated" in (recipe.model / name).read_text(encoding="utf-8")


@pytest.mark.slow
def test_stage_7_analyses_the_layers_where_it_is_asked_for(recipe):
    assert "(analysis/" not in (recipe.model / "RESULTS.md").read_text()
    done = recipe.stage(7, "--analyze", "true")
    assert done.returncode == 0, done.stdout
    markdown, page = ((recipe.model / name).read_text() for name in ("RESULTS.md", "report.html"))
    result = json.loads((recipe.model / "analysis" / "analysis.json").read_text())
    assert [Path(path).name for path in result["data"]] == ["dev", "test", "test_ood"]
    assert len(result["tokens"]) == len(result["similarity"])
    assert "(analysis/" in markdown and 'id="analysis"' in page


@pytest.mark.slow
def test_stage_8_exports_a_model_that_predicts_the_same_elsewhere(recipe, tmp_path):
    shutil.copytree(recipe.model / "model", tmp_path / "model")
    out = tmp_path / "utt2mos"
    done = execute(["distilmos", "predict", recipe.raw / "test", "--model", tmp_path / "model", "--out", out])
    assert done.returncode == 0, done.stdout
    # Another number of threads changes the order of sums.
    assert read_floats(out) == pytest.approx(read_floats(recipe.model / "results" / "test" / "utt2mos"), abs=1e-4)


@pytest.mark.slow
def test_a_stage_can_be_run_again_with_other_shards(recipe):
    before = {path: kaldiio.load_scp(str(path)) for path in (recipe.tokens / "dev").glob("layer*.scp")}
    before = {path: dict(tokens.items()) for path, tokens in before.items()}
    done = recipe.stage(4, "--nj", 3)
    assert done.returncode == 0, done.stdout
    for path, tokens in before.items():
        again = kaldiio.load_scp(str(path))
        assert list(again) == list(tokens)
        for utterance in tokens:
            np.testing.assert_array_equal(again[utterance], tokens[utterance])


@pytest.mark.slow
def test_sslmos_needs_no_tokens(recipe, tmp_path):
    shutil.copytree(recipe.raw, tmp_path / "dump" / "raw")
    baseline = Recipe(tmp_path)
    done = baseline.run("--stage", 2, "--stop_stage", 5, "--train_opts", "model=sslmos")
    assert done.returncode == 0, done.stdout
    for stage in (2, 3):
        assert len(re.findall(rf"^stage {stage}\b.*sslmos", done.stdout, re.MULTILINE)) == 1
    assert (baseline.model / "final" / "model.safetensors").exists()
    # Its encoder is compared with, but no tokens are made.
    assert {path.name for path in baseline.dump.iterdir()} == {"raw", "pooled_hubert_tiny"}
    for name in ("train", "test", "test_ood"):
        scp = baseline.dump / "pooled_hubert_tiny" / name / "pooled.scp"
        assert keys(scp) == keys(baseline.raw / name / "wav.scp")


@pytest.mark.slow
def test_a_spectral_network_needs_no_encoder(recipe, tmp_path):
    shutil.copytree(recipe.raw, tmp_path / "dump" / "raw")
    spectral = ["--train_opts", "model=spectral", "--train_opts", "spectral_dim=4"]
    done = Recipe(tmp_path).run("--stage", 2, "--stop_stage", 4, *spectral)
    assert done.returncode == 0, done.stdout
    assert len(re.findall(r"^stage [234]\b.*spectral", done.stdout, re.MULTILINE)) == 3


@pytest.mark.slow
def test_scores_are_shown_beside_references(recipe):
    for name in ("test", "test_ood"):
        shown = tables(section((recipe.model / "RESULTS.md").read_text(encoding="utf-8"), name))[0]
        labels = [row[0] for row in shown]
        for start in ("mean of the training set", "length", "other utterances", "listener ceiling", "ridge regression"):
            assert any(label.startswith(f"utterance: {start}") for label in labels), labels
        assert "frozen hubert_tiny" in labels[-1]


def few_utterances(recipe, root):
    """A recipe in `root` whose sets are the first two utterances of each set of `recipe`."""
    few = Recipe(root)
    for name in SETS:
        (few.data / name).mkdir(parents=True)
        for table in ("wav.scp", "utt2sys", "utt2mos", "utt2dur"):
            lines = (recipe.data / name / table).read_text(encoding="utf-8").splitlines(keepends=True)
            (few.data / name / table).write_text("".join(lines[:2]), encoding="utf-8")
    return few


@pytest.mark.slow
def test_more_shards_than_utterances(recipe, tmp_path):
    few = few_utterances(recipe, tmp_path)
    done = few.stage(1, "--nj", 3)
    assert done.returncode == 0, done.stdout
    assert len(kaldiio.load_scp(str(few.raw / "dev" / "wav.scp"))) == 2


@pytest.mark.slow
def test_a_failing_shard_fails_its_stage_and_shows_its_log(recipe, tmp_path):
    few = few_utterances(recipe, tmp_path)
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"no audio")
    scp = few.data / "dev" / "wav.scp"
    second = keys(scp)[1]
    scp.write_text(f"{scp.read_text().splitlines()[0]}\n{second} {broken}\n")
    done = few.stage(1)
    assert done.returncode == 1
    assert f"{scp}:2: {second}" in done.stdout
    assert "dump_audio.2.log" in done.stdout
    assert "stage 1" in done.stdout.splitlines()[-1]
    assert not (few.raw / "dev" / "wav.scp").exists()


@pytest.mark.parametrize(
    ("stage", "missing", "maker"),
    [
        (1, "data/train/wav.scp", 0),
        (2, "dump/raw/train/wav.scp", 1),
        (3, "dump/feats/layer1.scp", 2),
        (4, f"exp/kmeans_hubert_tiny_k{CLUSTERS}/quality.json", 3),
        (5, "dump/raw/train/wav.scp", 1),
        (6, "exp/small/final/config.yaml", 5),
        (7, "exp/small/results/test/utt2mos", 6),
        (8, "exp/small/final/config.yaml", 5),
    ],
)
def test_a_stage_without_its_input_names_the_file_and_the_stage_that_makes_it(fresh, tmp_path, stage, missing, maker):
    done = fresh.stage(stage)
    assert done.returncode == 2
    assert says(done.stdout.splitlines()[-1], f"stage {stage}", tmp_path / missing, f"stage {maker}")
    assert list(tmp_path.iterdir()) == []


def test_help_lists_the_options_of_the_recipe_and_of_the_stages():
    done = execute([RECIPE / "run.sh", "--nj", "7", "--help"])
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert any(line.startswith("  --size ") for line in lines)
    assert any(line.startswith("  --nj ") and line.endswith("[7]") for line in lines)
    assert any(line.startswith("  8  ") for line in lines)


@pytest.mark.parametrize(
    ("options", "values"),
    [
        (["--stages", "3"], ["--stages"]),
        (["--PATH", "/"], ["--PATH"]),
        (["--nj", "two"], ["--nj", "'two'"]),
        (["--nj", "0"], ["--nj", 1]),
        (["--clusters", "0"], ["--clusters", 1]),
        (["--stage_to_tmpdir", "yes"], ["--stage_to_tmpdir", "'yes'"]),
        (["--analyze", "yes"], ["--analyze", "'yes'"]),
        (["--stage"], ["--stage"]),
        (["--stop_stage", "9"], [0, 9]),
        (["3"], ["'3'"]),
        (["--train_opts", "max_step=3"], ["max_step=3", "max_steps"]),
        (["--conf", "conf/no.yaml"], ["conf/no.yaml"]),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(fresh, tmp_path, options, values):
    done = fresh.run(*options)
    assert done.returncode == 2
    assert says(done.stdout, *values)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        # It would make other tokens in the same directory.
        (["--models", "distilmos distilmos@max_frames=9"], 2, "@max_frames=9"),
        (["--models", "distilmos@clusters=9@teacher=mfcc@seed=2"], 2, "@seed=2"),
        (["--train_sets", "a b", "--help"], 0, "--seeds"),
        (["--help", "--train_sets", "a b"], 0, "--seeds"),
    ],
)
def test_a_sweep_that_starts_nothing(tmp_path, options, status, said):
    command = [RECIPE.parent / "TEMPLATE" / "sweep.sh", "--expdir", tmp_path / "exp", *options]
    done = execute(command, RECIPE)
    assert done.returncode == status and said in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_sweep_trains_settings_and_tokens_of_other_options_and_continues(recipe):
    directories = ["--datadir", recipe.data, "--dumpdir", recipe.dump, "--expdir", recipe.exp]
    models = "distilmos distilmos+token_weight=0 distilmos@clusters=5"
    options = [*SMALL, *directories, "--test_sets", "test"]
    options = [word for pair in zip(options[::2], options[1::2], strict=True) if pair[0] != "--tag" for word in pair]
    command = [RECIPE.parent / "TEMPLATE" / "sweep.sh", "--models", models, "--seeds", "1", *options]
    done = execute(command, RECIPE)
    assert done.returncode == 0, done.stdout
    trained = {name: recipe.exp / f"{name}_seed1" for name in models.split()}
    assert yaml.safe_load((trained["distilmos+token_weight=0"] / "config.yaml").read_text())["token_weight"] == 0
    clusters = {n: yaml.safe_load((p / "final" / "config.yaml").read_text())["clusters"] for n, p in trained.items()}
    assert clusters == {**dict.fromkeys(models.split(), CLUSTERS), "distilmos@clusters=5": 5}
    page = (recipe.exp / "sweep.md").read_text()
    for model in models.split()[1:]:
        assert re.search(rf"^[^|\n]*{re.escape(model)} - distilmos\b", page, re.MULTILINE)
    tokens = recipe.dump / "tokens_hubert_tiny_k5" / "train" / "layer1.ark"
    before = [path.stat().st_mtime_ns for path in (tokens, trained["distilmos"] / "final" / "model.safetensors")]
    assert execute(command, RECIPE).returncode == 0
    after = [path.stat().st_mtime_ns for path in (tokens, trained["distilmos"] / "final" / "model.safetensors")]
    assert after == before

    # --dev true does not use the test set.
    chosen = [*command[:1], "--models", "distilmos+head_lr=2e-3", "--seeds", "1", "--dev", "true", *options]
    assert execute(chosen, RECIPE).returncode == 0
    assert not (recipe.exp / "distilmos+head_lr=2e-3_seed1" / "results").exists()
    log = (recipe.exp / "distilmos+head_lr=2e-3_seed1" / "log.jsonl").read_text().splitlines()
    page = (recipe.exp / "sweep.md").read_text()
    assert f"{json.loads(log[-1])['dev']['utterance']['MSE']:.3f}" in page
    assert json.loads(log[0])["commit"] in page
    assert " - distilmos" not in page
