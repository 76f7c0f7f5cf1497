import json
import random
import re

import numpy as np
import pytest
from helpers.pages import tables
from scipy import stats

from distilmos.cli import main
from distilmos.data.tables import write_table
from distilmos.errors import InputError
from distilmos.metrics import METRICS, agreement
from distilmos.scoring.bootstrap import bootstrap_agreement, interval
from distilmos.scoring.results import HEADER, Scored, read_metrics, read_scored, score_levels, score_results


def scored(rows):
    return [Scored(u, s, "", mos, predicted) for u, s, mos, predicted in rows]


def strict_json(path):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_measures_of_a_small_set_are_those_computed_by_hand():
    rows = [("a", "x", 1.0, 1.5), ("b", "x", 2.0, 2.0), ("c", "y", 2.0, 3.0), ("d", "y", 4.0, 3.5)]
    scores = score_levels(scored(rows), samples=10)
    values = {name: entry["value"] for name, entry in scores["utterance"].items()}
    assert values["MSE"] == pytest.approx((0.25 + 0 + 1 + 0.25) / 4)
    assert values["KTAU"] == pytest.approx(5 / np.sqrt(5 * 6))  # tau-b: 5 of 6 pairs agree, one is tied in the ratings
    assert values["SRCC"] == pytest.approx(4.5 / np.sqrt(4.5 * 5))  # Pearson of the ranks 1 2.5 2.5 4 and 1 2 3 4
    assert values["LCC"] == pytest.approx(3.0 / np.sqrt(4.75 * 2.5))
    # System means: rated 1.5, 3.0; predicted 1.75, 3.25.
    assert scores["system"]["MSE"]["value"] == pytest.approx(0.0625)
    assert scores["system"]["LCC"]["value"] == pytest.approx(1.0)


def test_measures_agree_with_scipy_on_ties():
    generator = np.random.default_rng(0)
    rated, predicted = generator.integers(1, 6, 80) / 1.0, generator.integers(1, 6, 80) / 1.0
    rows = [(f"u{n:02d}", f"s{n}", *pair) for n, pair in enumerate(zip(rated, predicted, strict=True))]
    scores = score_levels(scored(rows), samples=5)["utterance"]
    assert scores["MSE"]["value"] == pytest.approx(np.mean((rated - predicted) ** 2))
    assert scores["LCC"]["value"] == pytest.approx(np.corrcoef(rated, predicted)[0, 1])
    assert scores["SRCC"]["value"] == pytest.approx(np.corrcoef(stats.rankdata(rated), stats.rankdata(predicted))[0, 1])
    assert scores["KTAU"]["value"] == pytest.approx(stats.kendalltau(rated, predicted).statistic)


def test_system_level_weighs_systems_alike():
    rows = [("a1", "a", 1.0, 1.0), ("b1", "b", 5.0, 3.0), *((f"c{n}", "c", 3.0, 3.0) for n in range(8))]
    assert score_levels(scored(rows), samples=5)["system"]["MSE"]["value"] == pytest.approx(4 / 3)


@pytest.mark.parametrize(
    "rows",
    [
        [("a", "s", 3.0, 2.5)],
        [("a", "s", 3.0, 2.5), ("b", "t", 3.0, 4.0)],
        [("a", "s", 3.0, 2.5), ("b", "t", 4.0, 2.5)],
    ],
    ids=["one utterance", "constant ratings", "constant predictions"],
)
def test_undefined_correlations_are_null_in_valid_json(make_set, rows):
    data, results = make_set(rows)
    score_results(data, results, samples=20)
    metrics = strict_json(results / "metrics.json")
    for level in ("utterance", "system"):
        error = metrics[level]["MSE"]
        if len(rows) > 1:
            assert error["low"] <= error["value"] <= error["high"]
        else:  # all resamples of one item are the same and give no interval
            assert (error["value"], error["low"], error["high"]) == (0.25, None, None)
        for name in METRICS[1:]:
            assert metrics[level][name] == {"value": None, "low": None, "high": None, "undefined": 20}


def test_a_resample_has_the_measures_of_its_items(monkeypatch):
    # Blocks of three resamples of 12 items; the last block has one.
    monkeypatch.setattr("distilmos.scoring.bootstrap._BLOCK", 36)
    generator = np.random.default_rng(3)
    rated, predictions = np.round(generator.random(12) * 4), generator.random((2, 12))
    values = bootstrap_agreement(rated, predictions, 7, seed=5)
    draws = np.random.default_rng(5)
    for sample in range(7):
        drawn = draws.integers(12, size=12)
        for row, predicted in enumerate(predictions):
            ours, theirs = rated[drawn], predicted[drawn]
            assert values["MSE"][sample, row] == pytest.approx(((ours - theirs) ** 2).mean(), rel=1e-12)
            assert values["LCC"][sample, row] == pytest.approx(stats.pearsonr(ours, theirs).statistic, rel=1e-12)
            assert values["SRCC"][sample, row] == pytest.approx(stats.spearmanr(ours, theirs).statistic, rel=1e-12)
            assert values["KTAU"][sample, row] == pytest.approx(stats.kendalltau(ours, theirs).statistic, rel=1e-12)


def test_items_of_a_cluster_are_drawn_together(monkeypatch):
    monkeypatch.setattr("distilmos.scoring.bootstrap._BLOCK", 36)
    generator = np.random.default_rng(3)
    rated, predictions = np.round(generator.random(12) * 4), generator.random((2, 12))
    names = np.array(list("cabbaaacbdda"))
    values = bootstrap_agreement(rated, predictions, 7, seed=5, clusters=names)
    draws = np.random.default_rng(5)
    for sample in range(7):
        drawn = [item for cluster in draws.integers(4, size=4) for item in np.flatnonzero(names == "abcd"[cluster])]
        for row, predicted in enumerate(predictions):
            wanted = agreement(rated[drawn], predicted[drawn])
            assert {name: values[name][sample, row] for name in METRICS} == pytest.approx(wanted, nan_ok=True)
    assert np.isnan(bootstrap_agreement(rated, predictions, 7, seed=5, clusters=np.zeros(12))["MSE"]).all()


def test_resamples_without_a_correlation_are_left_out_and_counted():
    # Of 3 items, a resample is constant with probability 3/27.
    rated, predicted = np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.5])
    values = bootstrap_agreement(rated, predicted[np.newaxis], 500, seed=1)
    low, high, undefined = interval(values["SRCC"][:, 0])
    assert (low, high) == (pytest.approx(1.0), pytest.approx(1.0))
    assert 25 < undefined < 95
    assert interval(values["MSE"][:, 0])[2] == 0


@pytest.mark.slow
def test_intervals_cover_the_truth_at_their_nominal_rate():
    generator = np.random.default_rng(7)
    trials, correlation = 60, 0.7
    covered = {(name, level): 0 for name in METRICS for level in (0.5, 0.95)}
    mixing = np.linalg.cholesky([[1.0, correlation], [correlation, 1.0]])
    truth = {
        "MSE": 2 - 2 * correlation,
        "LCC": correlation,
        "SRCC": 6 / np.pi * np.arcsin(correlation / 2),
        "KTAU": 2 / np.pi * np.arcsin(correlation),
    }
    for trial in range(trials):
        rated, predicted = mixing @ generator.normal(size=(2, 80))
        values = bootstrap_agreement(rated, predicted[np.newaxis], 150, seed=trial)
        for name, level in covered:
            low, high, _ = interval(values[name][:, 0], level)
            covered[name, level] += low <= truth[name] <= high
    for (name, level), count in covered.items():
        deviation = np.sqrt(trials * level * (1 - level))
        assert abs(count - trials * level) <= 3 * deviation, f"{name} {level}: {count} of {trials}"


def test_bootstrap_depends_on_the_seed_and_not_on_the_order_of_the_input(rated_rows):
    rows = scored(rated_rows)
    shuffled = random.Random(3).sample(rows, len(rows))
    first = score_levels(rows, samples=50, seed=4)
    assert score_levels(shuffled, samples=50, seed=4) == first
    assert score_levels(rows, samples=50, seed=5)["utterance"]["LCC"] != first["utterance"]["LCC"]


def test_score_command_writes_metrics_and_scored_table(make_set, rated_rows, capsys):
    groups = {system: "echo" if system < "s06" else "noise" for _, system, _, _ in rated_rows}
    data, results = make_set(rated_rows, notes="The ratings are simulated.", groups=groups)
    assert main(["score", "--data", str(data), "--results", str(results), "--samples", "30"]) == 0
    assert "The ratings are simulated." in capsys.readouterr().out
    metrics = strict_json(results / "metrics.json")
    assert metrics["set"] == "test"
    assert metrics["notes"] == (results / "notes").read_text().strip() == "The ratings are simulated."
    assert metrics["counts"] == {"utterances": 60, "systems": 12}
    assert metrics["bootstrap"] == {"samples": 30, "seed": 1, "level": 0.95}
    rated, predicted = (np.array(column) for column in zip(*[row[2:] for row in sorted(rated_rows)], strict=True))
    for name, value in agreement(rated, predicted).items():
        entry = metrics["utterance"][name]
        assert entry["value"] == pytest.approx(value)
        assert entry["low"] < entry["value"] < entry["high"]
    assert (results / "scored.tsv").read_text().splitlines()[0] == "\t".join(HEADER)
    assert read_scored(results)[0] == Scored("s00-u0", "s00", "echo", *rated_rows[0][2:])
    assert {row.group for row in read_scored(results)} == {"echo", "noise"}


def test_mos_of_systems_replace_the_means_over_utterances(make_set, capsys):
    rows = [("a", "x", 1.0, 1.5), ("b", "x", 2.0, 2.0), ("c", "y", 2.0, 3.0), ("d", "y", 4.0, 3.5)]
    rows.append(("e", "z", 3.0, 4.0))
    data, results = make_set(rows)
    write_table(data / "sys2mos", {"x": 2.0, "y": 3.0, "z": 3.5})
    metrics = score_results(data, results, samples=5)
    # Predicted are 1.75, 3.25 and 4. The means over utterances would be 1.5, 3 and 3.
    assert metrics["system"]["MSE"]["value"] == pytest.approx((0.0625 + 0.0625 + 0.25) / 3)
    assert metrics["utterance"]["MSE"]["value"] == pytest.approx((0.25 + 0 + 1 + 0.25 + 1) / 5)
    assert [row.system_mos for row in read_scored(results)] == [2.0, 2.0, 3.0, 3.0, 3.5]
    write_table(data / "sys2mos", {"x": 2.0, "y": 6.0})
    assert main(["score", "--data", str(data), "--results", str(results)]) == 2
    out_of_range, missing = map(str.strip, capsys.readouterr().err.splitlines()[1:])
    assert missing.startswith(f"{data / 'utt2sys'}:5: ") and re.search(r"\bz\b", missing)
    assert out_of_range.startswith(f"{data / 'sys2mos'}:2: ") and "6.0" in out_of_range


def test_missing_and_unknown_predictions_are_named(make_set, rated_rows, capsys):
    data, results = make_set(rated_rows)
    lines = (results / "utt2mos").read_text().splitlines()
    (results / "utt2mos").write_text("\n".join([*lines[2:], "stranger 3.0"]) + "\n")
    assert main(["score", "--data", str(data), "--results", str(results)]) == 2
    first, second, unknown = map(str.strip, capsys.readouterr().err.splitlines()[1:])
    path = results / "utt2mos"
    assert first.startswith(f"{path}: ") and "s00-u0" in first
    assert second.startswith(f"{path}: ") and "s00-u1" in second
    assert unknown.startswith(f"{path}:{len(lines) - 1}: ") and "stranger" in unknown
    assert not (results / "metrics.json").exists()


def test_a_set_without_ratings_gets_counts_only(make_set, rated_rows, capsys):
    data, results = make_set([(u, s, None, predicted) for u, s, _, predicted in rated_rows])
    (results / "scored.tsv").write_text("of an earlier run")
    assert main(["score", "--data", str(data), "--results", str(results)]) == 0
    printed = capsys.readouterr().out
    assert tables(printed) == [] and {"60", "12"} <= set(re.findall(r"\d+", printed))
    assert strict_json(results / "metrics.json") == {
        "set": "test",
        "notes": "",
        "counts": {"utterances": 60, "systems": 12},
    }
    assert not (results / "scored.tsv").exists()


@pytest.mark.parametrize(
    ("lines", "place", "value"),
    [
        (["\t".join(HEADER[:-1])], ":1", "system_mos"),
        (["\t".join(HEADER), "u1\ts\tg\t3.125\t3"], ":2", "3.125"),
        (["\t".join(HEADER), "u1\ts\tg\tnan\t3\t"], ":2", "nan"),
        (["\t".join(HEADER), *2 * ["u1\ts\t\t3\t3\t"]], ":3", "u1"),
        (["\t".join(HEADER)], "", ""),
    ],
    ids=["header", "fields", "not finite", "twice", "empty"],
)
def test_a_damaged_scored_table_is_an_error_with_its_line(tmp_path, lines, place, value):
    path = tmp_path / "scored.tsv"
    path.write_text("\n".join([*lines, ""]))
    with pytest.raises(InputError, match=rf"^{re.escape(str(path))}{place}: .*{value}"):
        read_scored(tmp_path)


COUNTS = {"utterances": 4, "systems": 2}
LEVEL = {name: {"value": 0.5, "low": 0.4, "high": 0.6} for name in METRICS}
SCORES = {"set": "a", "notes": "", "counts": COUNTS, "utterance": LEVEL, "system": LEVEL}


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ("{", ""),
        ("null", ""),
        ([5], ""),
        ({**SCORES, "counts": {}}, "counts: utterances"),
        ({**SCORES, "counts": {**COUNTS, "systems": "two"}}, "counts: systems"),
        ({**SCORES, "utterance": {**LEVEL, "LCC": 0.5}}, "utterance: LCC"),
        ({**SCORES, "utterance": {**LEVEL, "LCC": {**LEVEL["LCC"], "low": [7]}}}, "utterance: LCC: low"),
        ({**SCORES, "system": {name: LEVEL[name] for name in METRICS[1:]}}, f"system .*{METRICS[0]}"),
        ({key: SCORES[key] for key in SCORES if key != "system"}, "system"),
        (json.dumps(SCORES).replace("0.6", "1e999"), "utterance: .*: high"),
        ({**SCORES, "scale": {"lowest": 5, "highest": 1, "name": "x"}}, "scale: .*5 to 1"),
    ],
)
def test_damaged_metrics_are_an_error(tmp_path, content, value):
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(SCORES))
    assert read_metrics(tmp_path)["counts"] == COUNTS
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(InputError, match=rf"^{re.escape(str(path))}(:1)?: .*{value}"):
        read_metrics(tmp_path)
