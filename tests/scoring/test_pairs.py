"""Accuracy of the order of pairs by the difference of their ratings."""

import json

import numpy as np
import pytest
from helpers.pages import section, tables

from distilmos.cli import main
from distilmos.scoring.pairs import DIFFERENCES, overall, pair_accuracy


def by_hand(rated, predicted, width=4.0):
    """Count pair by pair."""
    edges = [low * width / 4 for low in DIFFERENCES] + [np.inf]
    found = [[0, 0.0] for _ in DIFFERENCES]
    for one in range(len(rated)):
        for other in range(one):
            apart = round(abs(rated[one] - rated[other]), 6)
            if apart == 0:
                continue
            place = next(n for n in range(len(DIFFERENCES)) if edges[n] <= apart < edges[n + 1])
            agrees = (rated[one] - rated[other]) * (predicted[one] - predicted[other])
            found[place][0] += 1
            found[place][1] += 0.5 if agrees == 0 else float(agrees > 0)
    return found


@pytest.mark.parametrize("width", [4.0, 100.0])
def test_pairs_are_those_counted_one_by_one(width):
    generator = np.random.default_rng(1)
    rated = np.round(generator.uniform(0, width, 60) * 20 / width) * width / 20  # with ties and differences on edges
    predicted = np.round(rated + width * generator.normal(0, 0.2, 60) / 4, 0)
    rows = pair_accuracy(rated, predicted, width)
    assert [(row["pairs"], row["accuracy"]) for row in rows] == [
        (count, pytest.approx(right / count) if count else None) for count, right in by_hand(rated, predicted, width)
    ]
    total, accuracy = sum(row["pairs"] for row in rows), overall(rows)
    right = sum(right for _, right in by_hand(rated, predicted, width))
    assert accuracy == (pytest.approx(right / total), total)


def test_ties_of_predictions_count_half_and_ties_of_ratings_do_not_count():
    rows = pair_accuracy(np.array([1.0, 1.0, 2.0, 4.5]), np.array([2.0, 3.0, 2.0, 2.0]))
    # 1-2: a tie and a wrong order; 2-4.5: a tie; 1-4.5: a tie and a wrong order.
    assert [row["pairs"] for row in rows] == [0, 0, 0, 0, 2, 3]
    assert [row["accuracy"] for row in rows[4:]] == [0.25, pytest.approx(1 / 3)]
    assert rows[0]["accuracy"] is None and rows[-1]["high"] is None


def test_scores_and_report_show_the_pairs(make_set, rated_rows, tmp_path):
    data, results = make_set(rated_rows)
    assert main(["score", "--data", str(data), "--results", str(results), "--samples", "20"]) == 0
    pairs = json.loads((results / "metrics.json").read_text())["pairs"]
    rated, predicted = (np.array([row[column] for row in rated_rows]) for column in (2, 3))
    assert pairs["utterance"] == pair_accuracy(rated, predicted)
    assert sum(row["pairs"] for row in pairs["system"]) == 12 * 11 / 2
    assert main(["report", str(results.parents[1])]) == 0
    page = section((results.parents[1] / "RESULTS.md").read_text(), "test")
    (shown,) = (table for table in tables(page) if len(table) == 1 + len(DIFFERENCES) + 1)
    for row, of_class in zip(shown[1:], pairs["utterance"], strict=False):
        assert row[1:3] == [f"{of_class['accuracy']:.3f}", f"{of_class['pairs']:,}"]
    assert shown[-1][1] == f"{overall(pairs['utterance'])[0]:.3f}"


def test_a_faulty_table_of_pairs_is_refused(make_set, rated_rows, capsys):
    data, results = make_set(rated_rows)
    assert main(["score", "--data", str(data), "--results", str(results), "--samples", "20"]) == 0
    metrics = json.loads((results / "metrics.json").read_text())
    del metrics["pairs"]["system"][0]["low"]
    (results / "metrics.json").write_text(json.dumps(metrics))
    assert main(["report", str(results.parents[1])]) == 2
    assert str(results / "metrics.json") in capsys.readouterr().err
