import json

import numpy as np
import pytest
from helpers.pages import tables

from distilmos.cli import main
from distilmos.errors import InputError
from distilmos.metrics import METRICS
from distilmos.scoring.bootstrap import holm, two_sided_p
from distilmos.scoring.compare import compare_results
from distilmos.scoring.results import score_results


@pytest.fixture
def two_results(make_set, rated_rows):
    """Two results directories of the same set; the errors of the second are much smaller."""
    data, a = make_set(rated_rows, name="a", notes="The ratings are simulated.")
    better = [(u, s, mos, mos + 0.2 * (predicted - mos)) for u, s, mos, predicted in rated_rows]
    data_b, b = make_set(better, name="b", notes="The ratings are simulated.")
    score_results(data, a, samples=5)
    score_results(data_b, b, samples=5)
    return a, b


def test_a_result_does_not_differ_from_itself(two_results):
    a, _ = two_results
    comparison = compare_results(a, a, samples=50)
    for level in ("utterance", "system"):
        for name in METRICS:
            entry = comparison[level][name]
            assert entry["difference"] == entry["low"] == entry["high"] == 0
            assert entry["p"] == 1


def test_the_difference_is_b_minus_a_and_a_much_better_b_is_significant(two_results):
    a, b = two_results
    forward, backward = compare_results(a, b, samples=99), compare_results(b, a, samples=99)
    error = forward["utterance"]["MSE"]
    assert error["b"] == pytest.approx(0.04 * error["a"])
    assert error["low"] < error["difference"] < error["high"] < 0
    assert error["p"] == pytest.approx(0.02)  # the smallest p that 99 resamples can give
    assert forward["utterance"]["SRCC"]["low"] > 0
    for name in METRICS:
        assert backward["system"][name]["difference"] == -forward["system"][name]["difference"]
        assert backward["system"][name]["low"] == pytest.approx(-forward["system"][name]["high"])
        assert backward["system"][name]["p"] == forward["system"][name]["p"]


def test_pairing_narrows_the_interval(two_results, make_set, rated_rows):
    """A constant shift of all predictions does not change the correlation of any resample."""
    a, _ = two_results
    data, shifted = make_set([(u, s, mos, p + 0.5) for u, s, mos, p in rated_rows], name="shifted")
    score_results(data, shifted, samples=5)
    entry = compare_results(a, shifted, samples=50)["utterance"]["LCC"]
    assert max(abs(entry["low"]), abs(entry["high"])) < 1e-9


def test_p_value_counts_both_tails():
    assert two_sided_p(np.array([1.0] * 96 + [-1.0] * 3)) == pytest.approx(2 * 4 / 100)
    assert two_sided_p(np.array([1.0, -1.0, np.nan])) == 1.0
    assert np.isnan(two_sided_p(np.array([np.nan])))
    ties = np.array([1.0] * 90 + [1e-17] * 5 + [-1e-17] * 4)  # rounding errors of differences of 0
    assert two_sided_p(ties) == two_sided_p(np.array([1.0] * 90 + [0.0] * 9))


def test_p_values_of_several_comparisons_are_corrected():
    """The order of the values does not matter, and none exceeds 1."""
    found = holm([0.04, 0.01, float("nan"), 0.03, 0.9])
    np.testing.assert_allclose(found, [0.09, 0.04, np.nan, 0.09, 0.9])
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_compare_command_prints_and_writes(two_results, tmp_path, capsys):
    a, b = map(str, two_results)
    assert main(["compare", a, b, "--samples", "20", "--json", str(tmp_path / "out.json")]) == 0
    printed = capsys.readouterr().out
    assert printed.count("The ratings are simulated.") == 1
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["counts"] == {"utterances": 60, "systems": 12}
    (_, *rows), (_, *tests) = tables(printed)
    entry = written["system"]["KTAU"]
    numbers = [f"{entry['a']:.3f}", f"{entry['b']:.3f}", f"{entry['difference']:+.3f}"]
    ends = f"[{entry['low']:+.3f}, {entry['high']:+.3f}]"
    assert rows[-1] == ["system", "KTAU", *numbers, ends, f"{entry['p']:.3f}"]
    assert len(rows) == 2 * len(METRICS)
    assert [row[:2] for row in tests[:3]] == [["utterance", name] for name in ("none", "first order", "third order")]
    values = [entry for name in ("LCC", "RMSE") for entry in written["p1401"][-1][name].items()]
    shown = ["<0.001" if key == "p" and value < 0.001 else f"{value:.3f}" for key, value in values]
    assert tests[-1] == ["system", "third order", *shown]


def test_different_sets_are_refused_and_each_difference_is_named(two_results, make_set, rated_rows):
    a, _ = two_results
    changed = [("new", "s00", 3.0, 3.0), ("s00-u1", "s00", 4.999, 3.0), *rated_rows[2:]]
    data, other = make_set(changed, name="other")
    score_results(data, other, samples=5)
    with pytest.raises(InputError) as raised:
        compare_results(a, other)
    only_a, only_other, rated = map(str.strip, str(raised.value).splitlines()[1:])
    assert only_a.startswith(f"{a}: ") and "s00-u0" in only_a
    assert only_other.startswith(f"{other}: ") and "new" in only_other
    assert rated.startswith(f"{other}: ") and "s00-u1" in rated and "4.999" in rated


def test_unscored_results_are_refused(tmp_path, capsys):
    assert main(["compare", str(tmp_path), str(tmp_path)]) == 2
    assert f"{tmp_path / 'scored.tsv'}: " in capsys.readouterr().err


def test_more_utterances_of_the_same_systems_do_not_narrow_the_interval(make_set, rated_rows):
    """If all errors are those of systems, only the number of systems counts."""
    rows = [(f"{s}-{copy}", s, mos, guess) for _, s, mos, guess in rated_rows[::5] for copy in range(4)]
    data, a = make_set(rows, name="a")
    data_b, b = make_set([(u, s, mos, mos + 0.5 * (guess - mos)) for u, s, mos, guess in rows], name="b")
    scores = score_results(data, a, samples=50)
    assert all(scores["utterance"][name] == pytest.approx(scores["system"][name]) for name in METRICS)
    score_results(data_b, b, samples=50)
    comparison = compare_results(a, b, samples=50)
    assert all(comparison["utterance"][name] == pytest.approx(comparison["system"][name]) for name in METRICS)


def test_single_utterances_are_resampled_if_there_is_one_system(make_set, rated_rows):
    data, results = make_set([(u, "s", mos, guess) for u, _, mos, guess in rated_rows])
    error = score_results(data, results, samples=50)["utterance"]["MSE"]
    assert error["low"] < error["value"] < error["high"]
