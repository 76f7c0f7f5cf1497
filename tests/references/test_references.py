"""`distilmos references` and the rows that the report shows below the scores of a model."""

import json
import math

import numpy as np
import pytest
import soundfile
from helpers.pages import section, tables

from distilmos.cli import main
from distilmos.data.archive import open_archive
from distilmos.data.datadir import Utterance, write_data_dir
from distilmos.data.schema import Scale
from distilmos.data.tables import read_table, write_table
from distilmos.metrics import METRICS, agreement
from distilmos.references.published import MODELS
from distilmos.tokens.info import TokenInfo

LAYERS, WIDTH = 3, 8
RIDGE, LENGTH, OTHERS, TRAINING = "ridge regression", "length", "other utterances", "mean of the training set"


@pytest.fixture
def make(tmp_path):
    """Return a function that writes a rated set with pooled layers, and predictions of a model if it is a test set."""
    tones = []
    for seconds in (0.1, 0.2, 0.3):
        tones.append(tmp_path / f"{seconds}.wav")
        soundfile.write(tones[-1], np.full(round(16000 * seconds), 0.1), 16000)

    def write(name, mos, features, *, ssl="tiny", systems=4, scales=(), fingerprint="f", **columns):
        """Write raw/NAME, pooled/NAME and results/NAME; `features` (N, LAYERS, WIDTH)."""
        utterances = [
            Utterance(
                f"{name}-{n:03d}",
                tones[n % 3],
                f"s{n % systems}",
                mos=float(score),
                **{column: values[n] for column, values in columns.items()},
            )
            for n, score in enumerate(mos)
        ]
        write_data_dir(tmp_path / "raw" / name, utterances, scales=scales)
        with open_archive(tmp_path / "pooled" / name / "pooled") as archive:
            for utterance, matrix in zip(utterances, features, strict=True):
                archive.write(utterance.id, matrix.astype(np.float32))
        TokenInfo(ssl, fingerprint, LAYERS).write(tmp_path / "pooled" / name)
        predicted = {u.id: 3 + 0.1 * n for n, u in enumerate(utterances)}
        write_table(tmp_path / "exp" / "results" / name / "utt2mos", predicted)
        return utterances

    return write


def draw(seed, number):
    """Return random features (number, LAYERS, WIDTH) and a MOS that is linear in those of the second layer."""
    generator = np.random.default_rng(seed)
    features = generator.standard_normal((number, LAYERS, WIDTH))
    return features, np.clip(3 + 0.3 * features[:, 1] @ np.sign(np.arange(WIDTH) - 3.5), 1, 5)


def panel(mos):
    """Return ratings of each utterance by three listeners who differ, and their means."""
    generator = np.random.default_rng(3)
    scores = np.clip(np.round(mos[:, None] + generator.normal(0, 0.7, (len(mos), 3))), 1, 5)
    return [tuple(zip("abc", row, strict=True)) for row in scores.tolist()], scores.mean(1)


def references(root, *names, pooled=True, options=(), status=0):
    """Run `distilmos references`; return for each set the rows: name -> row."""
    words = ["references", "--train", str(root / "raw" / "train"), "--samples", "50"]
    for name in names:
        words += ["--test", str(root / "raw" / name), str(root / "exp" / "results" / name)]
    if pooled:
        words += ["--pooled", str(root / "pooled"), "--train-pooled", str(root / "pooled" / "train")]
    assert main([*words, *map(str, options)]) == status
    if status:
        return []
    found = [json.loads((root / "exp" / "results" / name / "references.json").read_text())["rows"] for name in names]
    return [{row["name"]: row for row in rows} for rows in found]


def row_of(rows, start):
    (row,) = (row for name, row in rows.items() if name.startswith(start))
    return row


def value(row, measure, level="utterance"):
    return row["levels"][level][measure]["value"]


def test_the_ridge_regression_is_fitted_to_the_training_set_alone(make, tmp_path):
    features, mos = draw(1, 60)
    make("train", mos, features)
    unseen, high = draw(2, 40)
    make("test", high, unseen)
    make("reversed", 6 - high, unseen)
    same, turned = references(tmp_path, "test", "reversed")
    assert row_of(same, RIDGE)["name"] == "ridge regression, layer 2 of frozen tiny"
    assert value(row_of(same, RIDGE), "LCC") > 0.95
    # A fit that had seen these ratings would follow them.
    assert value(row_of(turned, RIDGE), "LCC") == pytest.approx(-value(row_of(same, RIDGE), "LCC"))


def test_the_layer_is_chosen_on_the_training_set(make, tmp_path):
    features, mos = draw(1, 60)
    make("train", mos, features)
    unseen, high = draw(2, 40)
    make("test", high, unseen[:, [1, 0, 2]])  # here the first layer would be the best
    (rows,) = references(tmp_path, "test")
    assert "layer 2" in row_of(rows, RIDGE)["name"] and value(row_of(rows, RIDGE), "LCC") < 0.6


def test_simple_references_are_those_computed_by_hand(make, tmp_path):
    features, mos = draw(1, 30)
    make("train", mos, features)
    unseen, rated = draw(2, 24)
    make("test", rated, unseen)
    (rows,) = references(tmp_path, "test", pooled=False)
    assert not any(name.startswith(RIDGE) for name in rows)
    training = row_of(rows, TRAINING)
    assert training["levels"]["utterance"].keys() == {"MSE"} and "pairs" not in training
    assert value(training, "MSE") == pytest.approx(np.mean((rated - mos.mean()) ** 2))
    length = row_of(rows, LENGTH)
    seconds = np.array([0.1, 0.2, 0.3] * 8)
    assert length["levels"]["utterance"].keys() == {*METRICS} - {"MSE"}
    assert value(length, "SRCC") == pytest.approx(agreement(rated, seconds)["SRCC"])
    others = np.array([np.mean([rated[m] for m in range(24) if m != n and m % 4 == n % 4]) for n in range(24)])
    condition = row_of(rows, OTHERS)
    assert condition["levels"].keys() == {"utterance"}
    assert {m: value(condition, m) for m in METRICS} == pytest.approx(agreement(rated, others))
    low, high = (condition["levels"]["utterance"]["MSE"][end] for end in ("low", "high"))
    assert low < value(condition, "MSE") < high


def test_utterances_that_are_alone_in_their_condition_are_left_out_and_counted(make, tmp_path):
    features, mos = draw(1, 30)
    make("train", mos, features)
    make("test", mos[:6], features[:6], systems=4)
    make("alone", mos[:4], features[:4], systems=4)
    make("one", mos[:5], features[:5], systems=4)
    partly, alone, one = references(tmp_path, "test", "alone", "one", pooled=False)
    name = row_of(partly, OTHERS)["name"]
    assert "4 of 6 utterances" in name
    assert value(partly[name], "MSE") == pytest.approx(((mos[0] - mos[4]) ** 2 + (mos[1] - mos[5]) ** 2) / 2)
    # Without a second condition, the mean of the others falls as the utterance rises.
    assert not any(name.startswith(OTHERS) for rows in (alone, one) for name in rows)


def test_copies_of_a_condition_count_as_one(make, tmp_path):
    features, mos = draw(1, 30)
    make("train", mos, features)
    make("test", mos[:6], features[:6], systems=6, condition=["c", "c", "c", "d", "d", "d"])
    (rows,) = references(tmp_path, "test", pooled=False)
    halves = mos[:6].reshape(2, 3)
    others = (halves.sum(1, keepdims=True) - halves) / 2
    assert value(row_of(rows, OTHERS), "MSE") == pytest.approx(np.mean((others - halves) ** 2))


def test_a_further_table_of_the_same_name_does_not_hide_single_ratings(make, tmp_path):
    """As in egs/speechocean762, whose utt2mos and utt2fluency hold the same scores."""
    features, mos = draw(1, 30)
    make("train", mos, features)
    ratings, means = panel(mos)
    make("test", means, features, ratings=ratings, scales=[Scale(0, 10, "fluency")])
    data, results = tmp_path / "raw" / "test", tmp_path / "exp" / "results" / "test"
    write_table(data / "utt2fluency", read_table(data / "utt2mos"))
    (results / "scale").write_text("0 10 fluency\n")
    (rows,) = references(tmp_path, "test", pooled=False)
    assert any("listener" in name for name in rows)
    assert main(["score", "--data", str(data), "--results", str(results), "--samples", "20"]) == 0
    metrics = json.loads((results / "metrics.json").read_text())
    assert all("RMSE_star" in row for row in metrics["p1401"] if row["level"] == "utterance")


def test_listeners_are_a_reference_where_single_ratings_are_known(make, tmp_path):
    features, mos = draw(1, 30)
    make("train", mos, features)
    ratings, means = panel(mos)
    make("test", means, features, ratings=ratings)
    (rows,) = references(tmp_path, "test", pooled=False)
    ceiling = [name for name in rows if name.startswith("listener ceiling")]
    assert len(ceiling) == 3
    assert all(rows[name]["levels"].keys() == {"utterance", "system"} for name in ceiling)
    assert all(0.3 < value(rows[name], "LCC") < 1 for name in ceiling)


def test_published_models_that_have_scored_the_set_are_references(make, tmp_path, capsys):
    features, mos = draw(1, 30)
    make("train", mos, features)
    scale = Scale(0, 100, "MUSHRA")
    utterances = make("test", 25 * (mos - 1), features, scales=[scale])
    scores = {u.id: score for u, score in zip(utterances, mos.tolist(), strict=True)}
    table, options = tmp_path / "published" / "test" / "dnsmos", ("--published", tmp_path / "published")
    write_table(table, scores)
    (rows,) = references(tmp_path, "test", pooled=False, options=options)
    assert value(rows[MODELS["dnsmos"].title], "MSE") == pytest.approx(0, abs=1e-12)  # of 1 to 5, mapped to the scale
    assert MODELS["distillmos"].title not in rows
    assert value(row_of(rows, TRAINING), "MSE") == pytest.approx(np.mean((25 * (mos - mos.mean())) ** 2))
    write_table(table, dict(list(scores.items())[1:]))
    references(tmp_path, "test", pooled=False, options=options, status=2)
    said = capsys.readouterr().err
    assert str(table) in said and utterances[0].id in said


def test_a_set_without_pooled_layers_lacks_only_the_ridge_regression(make, tmp_path, capsys):
    features, mos = draw(1, 30)
    for name in ("train", "test", "later"):
        make(name, mos, features)
    (tmp_path / "pooled" / "later").rename(tmp_path / "away")
    test, later = references(tmp_path, "test", "later")
    assert {*test} - {*later} == {row_of(test, RIDGE)["name"]}
    assert str(tmp_path / "pooled" / "later") in capsys.readouterr().out


def test_an_unrated_set_has_no_references(make, tmp_path):
    features, mos = draw(1, 30)
    make("train", mos, features)
    make("test", mos, features)
    (tmp_path / "raw" / "test" / "utt2mos").unlink()
    assert references(tmp_path, "test") == [{}]


@pytest.mark.parametrize(
    ("change", "file"),
    [
        ("encoder", "pooled/test"),
        ("utterance", "pooled/test/pooled.scp"),
        ("shape", "pooled/train/pooled.scp"),
        ("value", "pooled/test/pooled.scp"),
        ("info", "pooled/train/info.json"),
    ],
)
def test_faulty_pooled_layers_are_refused(make, tmp_path, capsys, change, file):
    features, mos = draw(1, 30)
    make("train", mos, features[:, :2] if change == "shape" else features)
    tested = features.copy()
    if change == "value":
        tested[3, 1, 1] = math.nan
    make("test", mos, tested, fingerprint="another" if change == "encoder" else "f")
    if change == "utterance":
        scp = tmp_path / "pooled" / "test" / "pooled.scp"
        scp.write_text("".join(scp.read_text().splitlines(keepends=True)[1:]))
    if change == "info":
        (tmp_path / "pooled" / "train" / "info.json").unlink()
    test = [str(tmp_path / "raw" / "test"), str(tmp_path / "exp" / "results" / "test")]
    pooled = ["--pooled", str(tmp_path / "pooled"), "--train-pooled", str(tmp_path / "pooled" / "train")]
    assert main(["references", "--train", str(tmp_path / "raw" / "train"), "--test", *test, *pooled]) == 2
    assert f"{tmp_path / file}: " in capsys.readouterr().err
    assert not (tmp_path / "exp" / "results" / "test" / "references.json").exists()


def test_the_report_shows_the_references_below_the_scores_of_the_model(make, tmp_path):
    features, mos = draw(1, 60)
    make("train", mos, features)
    unseen, rated = draw(2, 40)
    ratings, means = panel(rated)
    make("test", means, unseen, ratings=ratings)
    results = tmp_path / "exp" / "results" / "test"
    assert main(["score", "--data", str(tmp_path / "raw" / "test"), "--results", str(results), "--samples", "20"]) == 0
    (rows,) = references(tmp_path, "test")
    assert main(["report", str(tmp_path / "exp")]) == 0
    scores = tables(section((tmp_path / "exp" / "RESULTS.md").read_text(encoding="utf-8"), "test"))[0]
    assert [row[0] for row in scores[1:3]] == ["utterance", "system"]
    labels = {f"{level}: {name}" for name, row in rows.items() for level in row["levels"]}
    assert {row[0] for row in scores[3:]} == labels
    entry = row_of(rows, RIDGE)["levels"]["utterance"]["LCC"]
    shown = next(row for row in scores if row[0].startswith(f"utterance: {RIDGE}"))
    assert shown[1 + METRICS.index("LCC")] == f"{entry['value']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]"
    constant = next(row for row in scores if row[0] == f"utterance: {TRAINING}")
    assert constant[2:] == ["-", "-", "-"]
    page = (tmp_path / "exp" / "report.html").read_text(encoding="utf-8")
    assert page.count('<tr class="reference">') == len(labels)
    assert f"utterances: {row_of(rows, RIDGE)['name']}</li>" in page  # a line of the figure


def test_a_model_without_its_package_is_refused(make, tmp_path, capsys, monkeypatch):
    features, mos = draw(1, 4)
    make("test", mos, features)
    monkeypatch.setitem(__import__("sys").modules, "speechmos", None)
    out = tmp_path / "scores"
    words = ["predict-published", "--model", "dnsmos", "--data", str(tmp_path / "raw" / "test"), "--out", str(out)]
    assert main(words) == 2
    assert "distilmos[references]" in capsys.readouterr().err and not out.exists()
