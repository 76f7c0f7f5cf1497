"""`distilmos interpolate`: models between the pretrained and the fine-tuned encoder of a finished run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from distilmos.cli import main
from distilmos.data.tables import read_floats, write_table
from distilmos.model.config import ModelConfig
from distilmos.model.networks import build_model
from distilmos.model.package import load_model_dir, save_model_dir
from distilmos.ssl.load import load_ssl
from distilmos.ssl.store import save_encoder
from distilmos.training.batching import BatchOrder
from distilmos.training.loader import BatchReader
from distilmos.training.ratedset import read_rated_set

QUICK = ("max_steps=4", "warmup_steps=0", "eval_every=2", "num_workers=0", "encoder_lr=0.01")
BASELINE = (*QUICK, "model=sslmos", "token_weight=0")
SPECTRAL = (*QUICK, "model=spectral", "token_weight=0", "spectral_dim=8")


def interpolate(exp: Path, *options: str | Path, alphas: tuple[str, ...] = ("0.5",)) -> int:
    return main(["interpolate", str(exp), "--device", "cpu", "--alpha", *alphas, *map(str, options)])


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "model.safetensors")


def encoder_of(directory: Path) -> dict[str, torch.Tensor]:
    found = weights(directory)
    return {name.removeprefix("encoder."): found[name] for name in found if name.startswith("encoder.")}


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), name


def content(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def edit_log(exp: Path, change) -> None:
    events = [json.loads(line) for line in (exp / "log.jsonl").read_text().splitlines()]
    (exp / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in change(events)))


def edit_settings(exp: Path, **settings: object) -> None:
    values = yaml.safe_load((exp / "config.yaml").read_text())
    (exp / "config.yaml").write_text(yaml.safe_dump(values | settings))


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory) -> Path:
    """A finished run; tests must not change it."""
    out = tmp_path_factory.mktemp("run") / "exp"
    assert main(corpus.arguments(out, *QUICK)) == 0
    return out


@pytest.fixture(scope="module")
def spectral(corpus, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("spectral") / "exp"
    assert main(corpus.arguments(out, *SPECTRAL)) == 0
    return out


@pytest.fixture(scope="module")
def points(run, corpus, tmp_path_factory) -> Path:
    """A copy of the run with the models at 0, 0.5 and 1, scored on the dev set."""
    exp = Path(shutil.copytree(run, tmp_path_factory.mktemp("points") / "exp"))
    assert interpolate(exp, "--data", corpus.raw("dev"), alphas=("0", ".50", "1.0")) == 0
    return exp


@pytest.fixture
def copy(run, tmp_path) -> Path:
    """A copy of the run that a test may change."""
    return Path(shutil.copytree(run, tmp_path / "exp"))


def test_alpha_is_the_share_of_the_fine_tuned_encoder(points, corpus) -> None:
    before, after = load_ssl(corpus.encoder).state_dict(), encoder_of(points / "final")
    assert sum(not torch.equal(before[name], after[name]) for name in before) > len(before) / 2
    out = points / "interpolated"
    assert_equal(encoder_of(out / "alpha_0"), before)
    assert_equal(encoder_of(out / "alpha_1"), after)
    half = encoder_of(out / "alpha_0.5")
    assert half.keys() == before.keys()
    for name, tensor in half.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, ((before[name].double() + after[name].double()) / 2).float()), name


def test_a_run_with_updates_of_low_rank(corpus, tmp_path) -> None:
    exp = tmp_path / "exp"
    assert main(corpus.arguments(exp, *BASELINE, "lora_rank=2")) == 0
    assert interpolate(exp) == 0
    before, after = load_ssl(corpus.encoder).state_dict(), encoder_of(exp / "final")
    half = encoder_of(exp / "interpolated" / "alpha_0.5")
    assert half.keys() == after.keys() == before.keys()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed and all(torch.allclose(half[n], (before[n] + after[n]) / 2, atol=1e-7) for n in changed)


def test_alpha_1_is_the_final_model_to_the_bit(points, corpus, tmp_path) -> None:
    model = points / "interpolated" / "alpha_1"
    assert (model / "model.safetensors").read_bytes() == (points / "final" / "model.safetensors").read_bytes()
    table = tmp_path / "utt2mos"
    assert main(["predict", str(corpus.raw("dev")), "--model", str(points / "final"), "--out", str(table)]) == 0
    assert (model / "results" / "dev" / "utt2mos").read_bytes() == table.read_bytes()


def test_the_heads_stay_as_trained(points) -> None:
    final = weights(points / "final")
    heads = [name for name in final if not name.startswith("encoder.") and "running_" not in name]
    assert heads
    for name in ("alpha_0", "alpha_0.5"):
        found = weights(points / "interpolated" / name)
        assert found.keys() == final.keys()
        for head in heads:
            assert torch.equal(found[head], final[head]), head


def test_batch_norm_fits_the_interpolated_encoder(points, corpus) -> None:
    data = read_rated_set(corpus.raw("train"), 2.0)
    plans = BatchOrder(data.num_samples, 6 * 16000, 1).epoch(0)
    trained = load_model_dir(points / "final").feature_processor.blocks[0].bn
    for name in ("alpha_0", "alpha_0.5"):
        model = load_model_dir(points / "interpolated" / name)
        norm = model.feature_processor.blocks[0].bn
        frames = []
        norm.register_forward_pre_hook(lambda _, inputs, frames=frames: frames.append(inputs[0]))
        with torch.no_grad():
            for batch in map(BatchReader(data).read, plans):
                model(batch.audio, batch.num_samples)
        means, variances = (torch.stack([statistic(x) for x in frames]).mean(0) for statistic in (mean, variance))
        torch.testing.assert_close(norm.running_mean, means, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(norm.running_var, variances, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(norm.running_mean, trained.running_mean, rtol=1e-2)


def mean(frames: torch.Tensor) -> torch.Tensor:
    return frames.mean(0)


def variance(frames: torch.Tensor) -> torch.Tensor:
    return frames.var(0)


def test_the_table_has_the_scores_of_predict_and_score(points, corpus, tmp_path) -> None:
    data, out = str(corpus.raw("dev")), points / "interpolated"
    found = json.loads((out / "interpolation.json").read_text())["models"]
    assert [model["alpha"] for model in found] == [0, 0.5, 1]
    rows = [line.strip("| ").split("|") for line in (out / "INTERPOLATION.md").read_text().splitlines() if "|" in line]
    cells = [[cell.strip() for cell in row] for row in rows[2:]]
    assert [row[:2] for row in cells] == [["dev", "0"], ["dev", "0.5"], ["dev", "1"]]
    for model, row in zip(found, cells, strict=True):
        results = tmp_path / row[1] / "dev"
        table = str(results / "utt2mos")
        assert main(["predict", data, "--model", str(out / f"alpha_{row[1]}"), "--out", table]) == 0
        assert main(["score", "--data", data, "--results", str(results)]) == 0
        metrics = json.loads((results / "metrics.json").read_text())
        assert model["sets"] == {"dev": metrics}
        utterance, system = metrics["utterance"], metrics["system"]
        expected = [*(utterance[name]["value"] for name in ("LCC", "SRCC", "MSE")), system["LCC"]["value"]]
        assert row[2:] == [f"{value:.3f}" for value in expected]
        written = content(out / f"alpha_{row[1]}" / "results" / "dev")
        assert {path.name: text for path, text in written.items()} == {
            path.name: text for path, text in content(results).items()
        }
    assert found[0]["sets"] != found[2]["sets"]


def test_the_run_is_left_as_it_was(points, run, tmp_path) -> None:
    """Also its report, which must not show the interpolated models as its own."""
    ours, theirs = ({path.relative_to(exp): text for path, text in content(exp).items()} for exp in (points, run))
    assert {path: text for path, text in ours.items() if path.parts[0] != "interpolated"} == theirs
    reports = []
    for name, source in (("with", points), ("without", run)):
        exp = shutil.copytree(source, tmp_path / name / "exp")
        assert main(["report", str(exp)]) == 0
        reports.append((exp / "RESULTS.md").read_text())
    assert reports[0] == reports[1]


def test_the_directory_says_where_it_comes_from(points, corpus) -> None:
    final = yaml.safe_load((points / "final" / "config.yaml").read_text())
    for name, alpha in (("alpha_0", 0), ("alpha_0.5", 0.5), ("alpha_1", 1)):
        config = yaml.safe_load((points / "interpolated" / name / "config.yaml").read_text())
        added = config["about"].pop("interpolation")
        assert added == {"run": points.name, "start": str(corpus.encoder), "alpha": alpha}
        assert config == final


def test_an_existing_directory_is_replaced(points, tmp_path) -> None:
    exp = Path(shutil.copytree(points, tmp_path / "exp"))
    (exp / "interpolated" / "alpha_0.5" / "model.safetensors").write_bytes(b"")
    assert interpolate(exp, alphas=("0.5", "0.50", "0.25")) == 0
    assert_equal(weights(exp / "interpolated" / "alpha_0.5"), weights(points / "interpolated" / "alpha_0.5"))
    names = {"alpha_0", "alpha_0.25", "alpha_0.5", "alpha_1", "INTERPOLATION.md", "interpolation.json"}
    assert {path.name for path in (exp / "interpolated").iterdir()} == names


def test_a_frozen_encoder_gives_equal_models(corpus, tmp_path) -> None:
    exp = tmp_path / "exp"
    assert main(corpus.arguments(exp, *QUICK, "encoder_lr=0")) == 0
    alphas = ("0", "0.3", "1")
    assert interpolate(exp, alphas=alphas) == 0
    final = (exp / "final" / "model.safetensors").read_bytes()
    for alpha in alphas:
        assert (exp / "interpolated" / f"alpha_{alpha}" / "model.safetensors").read_bytes() == final


def test_init_model_is_where_the_interpolation_starts(run, corpus, tmp_path) -> None:
    initial, exp = Path(shutil.copytree(run / "final", tmp_path / "initial")), tmp_path / "exp"
    assert main(corpus.arguments(exp, *QUICK, init_model=str(initial))) == 0
    assert interpolate(exp, alphas=("0", "1")) == 0
    assert_equal(encoder_of(exp / "interpolated" / "alpha_0"), encoder_of(initial))
    assert_equal(weights(exp / "interpolated" / "alpha_1"), weights(exp / "final"))
    assert not torch.equal(*(encoder_of(d)["layers.0.qkv.weight"] for d in (exp / "final", initial)))
    # Another model in its place is not what the run started from.
    shutil.copy(exp / "final" / "model.safetensors", initial)
    shutil.rmtree(exp / "interpolated")
    assert interpolate(exp) == 2
    assert not (exp / "interpolated").exists()


def test_a_spectral_init_model_has_no_encoder_to_start_from(spectral, corpus, tmp_path) -> None:
    exp = tmp_path / "exp"
    assert main(corpus.arguments(exp, *BASELINE, "spectral_dim=8", init_model=str(spectral / "final"))) == 0
    assert interpolate(exp, alphas=("0", "1")) == 0
    assert_equal(encoder_of(exp / "interpolated" / "alpha_0"), load_ssl(corpus.encoder).state_dict())
    assert_equal(weights(exp / "interpolated" / "alpha_1"), weights(exp / "final"))


def test_targets_scales_and_offsets_are_kept(corpus, tmp_path) -> None:
    sets = {name: Path(shutil.copytree(corpus.raw(name), tmp_path / name)) for name in ("train", "dev")}
    for directory in sets.values():
        scores = read_floats(directory / "utt2mos")
        write_table(directory / "utt2sig", {utterance: 20 * mos for utterance, mos in scores.items()})
        write_table(directory / "utt2bak", {utterance: 6 - mos for utterance, mos in scores.items()})
        (directory / "scale").write_text("1 5 MOS\n0 100 sig\n1 5 bak\n")
    exp = tmp_path / "exp"
    arguments = corpus.arguments(exp, *BASELINE, "spectral_dim=8", targets=["sig", "bak"])
    for name, directory in sets.items():
        arguments[arguments.index(f"--{name}") + 1] = str(directory)
    assert main(arguments) == 0
    assert interpolate(exp, "--data", sets["dev"], alphas=("0", "1")) == 0
    final = yaml.safe_load((exp / "final" / "config.yaml").read_text())
    config = yaml.safe_load((exp / "interpolated" / "alpha_0" / "config.yaml").read_text())
    assert config["scales"] == [[0.0, 100.0, "sig"], [1.0, 5.0, "bak"]]
    assert config | {"about": None} == final | {"about": None}
    assert_equal(weights(exp / "interpolated" / "alpha_1"), weights(exp / "final"))
    page = (exp / "interpolated" / "INTERPOLATION.md").read_text()
    assert [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| dev")] == [
        *2 * ["dev, sig"],
        *2 * ["dev, bak"],
    ]


def test_offsets_of_corpora_are_kept_and_weights_of_corpora_decide_the_batches(corpus, tmp_path) -> None:
    train = Path(shutil.copytree(corpus.raw("train"), tmp_path / "train"))
    utterances = list(read_floats(train / "utt2mos"))
    write_table(train / "utt2corpus", {u: "ab"[number % 2] for number, u in enumerate(utterances)})
    exp = tmp_path / "exp"
    arguments = corpus.arguments(exp, *QUICK, corpus_weights={"a": 0.25})
    arguments[arguments.index("--train") + 1] = str(train)
    assert main(arguments) == 0
    assert interpolate(exp, alphas=("0.5", "1")) == 0
    final = weights(exp / "final")
    assert_equal(weights(exp / "interpolated" / "alpha_1"), final)
    offsets = "corpus_offsets.values"
    assert torch.equal(weights(exp / "interpolated" / "alpha_0.5")[offsets], final[offsets])
    assert final[offsets].abs().max() > 0


@pytest.mark.parametrize("alpha", ["-0.1", "1.01", "nan", "inf", "half"])
def test_alpha_is_from_0_to_1(alpha, copy) -> None:
    with pytest.raises(SystemExit) as ended:
        interpolate(copy, alphas=("0.5", alpha))
    assert ended.value.code == 2
    assert not (copy / "interpolated").exists()


def test_training_data_elsewhere_is_named(copy, points, corpus) -> None:
    def moved(events: list[dict]) -> list[dict]:
        events[0]["data"]["train"]["dir"] = "nowhere"
        return events

    edit_log(copy, moved)
    assert interpolate(copy) == 2
    assert interpolate(copy, "--train", corpus.raw("dev")) == 2
    assert interpolate(copy, "--train", copy) == 2
    assert not (copy / "interpolated").exists()
    assert interpolate(copy, "--train", corpus.raw("train")) == 0
    assert_equal(weights(copy / "interpolated" / "alpha_0.5"), weights(points / "interpolated" / "alpha_0.5"))


def test_what_is_no_finished_run_is_refused(copy, spectral, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    for exp in (tmp_path / "nowhere", tmp_path / "empty", spectral, copy / "final"):
        assert interpolate(exp) == 2, exp
        assert not (exp / "interpolated").exists()
    without = Path(shutil.copytree(copy, tmp_path / "without"))
    shutil.rmtree(without / "final")
    edit_log(copy, lambda events: [event for event in events if event["event"] != "end"])
    for exp in (without, copy):
        assert interpolate(exp) == 2, exp
        assert not (exp / "interpolated").exists()


def test_another_pretrained_encoder_is_refused(copy, corpus, tmp_path) -> None:
    other = load_ssl(corpus.encoder)
    with torch.no_grad():
        other.layers[0].out.bias[0] += 1e-3
    save_encoder(other, tmp_path / "other.safetensors")
    for name in (tmp_path / "other.safetensors", "hubert_tiny", tmp_path / "nowhere"):
        edit_settings(copy, ssl_model=str(name))
        assert interpolate(copy) == 2, name
        assert not (copy / "interpolated").exists()


def test_a_final_model_of_another_run_is_refused(copy) -> None:
    other = build_model(ModelConfig(model="sslmos"), load_ssl("hubert_tiny"), None)
    save_model_dir(copy / "final", other)
    assert interpolate(copy) == 2
    assert not (copy / "interpolated").exists()


def test_damaged_values_are_refused(run, tmp_path) -> None:
    exp = Path(shutil.copytree(run, tmp_path / "about"))
    config = yaml.safe_load((exp / "final" / "config.yaml").read_text())
    (exp / "final" / "config.yaml").write_text(yaml.safe_dump(config | {"about": ["seed"]}))
    assert interpolate(exp) == 2
    exp = Path(shutil.copytree(run, tmp_path / "log"))
    edit_log(exp, lambda events: [event | {"data": None} if event["event"] == "start" else event for event in events])
    assert interpolate(exp) == 2


def test_sets_that_cannot_be_scored_are_refused(copy, corpus, tmp_path) -> None:
    unrated = Path(shutil.copytree(corpus.raw("dev"), tmp_path / "unrated"))
    (unrated / "utt2mos").unlink()
    namesake = shutil.copytree(corpus.raw("dev"), tmp_path / "other" / "dev")
    for options in ([unrated], [corpus.raw("dev"), namesake], [tmp_path / "nowhere"]):
        assert interpolate(copy, "--data", *options) == 2, options
        assert not (copy / "interpolated").exists()


def test_a_directory_appears_whole_or_not_at_all(copy, corpus, tmp_path) -> None:
    """Its predictions are a part of it, and a recording that cannot be read ends them."""
    broken = Path(shutil.copytree(corpus.raw("dev"), tmp_path / "broken"))
    lines = (broken / "wav.scp").read_text().splitlines()
    (tmp_path / "no.wav").write_bytes(b"no audio")
    lines[3] = f"{lines[3].split()[0]} {tmp_path / 'no.wav'}"
    (broken / "wav.scp").write_text("\n".join(lines) + "\n")
    assert interpolate(copy, "--data", broken) == 2
    assert content(copy / "interpolated") == {}
    assert list((copy / "interpolated").iterdir()) == []


def test_each_model_has_its_own_limit_of_novelty(corpus, tmp_path) -> None:
    exp = tmp_path / "exp"
    assert main(corpus.arguments(exp, *BASELINE, "head=statistics")) == 0
    assert interpolate(exp, alphas=("0.5", "1")) == 0
    trained, half = load_model_dir(exp / "final"), load_model_dir(exp / "interpolated" / "alpha_0.5")
    assert half.novelty_limit and half.novelty_limit != trained.novelty_limit
    assert_equal(weights(exp / "interpolated" / "alpha_1"), weights(exp / "final"))
