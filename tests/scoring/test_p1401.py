"""Measures and tests of ITU-T P.1401, and the mappings behind them."""

import json
import math

import numpy as np
import pytest
import soundfile
from helpers.pages import tables

from distilmos.cli import main
from distilmos.data.datadir import Utterance, write_data_dir
from distilmos.data.schema import Scale
from distilmos.data.tables import write_table
from distilmos.mapping import fit_map
from distilmos.scoring.p1401 import compare_correlations, compare_rmse

# Of NISQA's evaluation (gabrielmittag/NISQA, NISQA_lib.py: calc_mapping and calc_eval_metrics) of `listening_test`, for
# utterances, with the 95 % intervals of Student's t. Its third-order mapping rises on the whole scale here.
NISQA = {
    "none": {"RMSE": 0.709703215788058, "RMSE_star": 0.36991165167316553, "LCC": 0.8755689813175603},
    "first order": {"RMSE": 0.49512540555970536, "RMSE_star": 0.14458657286576956, "LCC": 0.8755689813175606},
}
NISQA_THIRD_ORDER_RMSE = 0.4973753056642708


def listening_test():
    """Return 24 utterances of 6 systems: id, system, prediction, and the scores of nine listeners."""
    rows = []
    for number in range(24):
        predicted = 1.2 + 3.7 * ((7 * number) % 24) / 23
        quality = 1.3 + 3.2 * ((predicted - 1) / 4) ** 1.6 + 0.7 * math.sin(5 * number)
        scores = [round(min(5, max(1, quality + 0.9 * math.sin(3 * number + 2 * listener)))) for listener in range(9)]
        rows.append((f"u{number:02d}", f"s{number % 6}", predicted, scores))
    return rows


@pytest.fixture
def scored(tmp_path, capsys):
    """Return a function that scores `listening_test` and returns the rows of `p1401` and what the command printed."""
    wav = tmp_path / "tone.wav"
    soundfile.write(wav, np.full(1600, 0.1), 16000)

    def score(condition=None, votes=False, listeners=9, predicted=None):
        utterances = []
        for name, system, _, scores in listening_test():
            said = tuple((f"l{number}", float(each)) for number, each in enumerate(scores[:listeners]))
            spread = {"mos": (float(np.std(scores, ddof=1)), len(scores))}
            given = {"mos": float(np.mean(scores)), "votes": spread} if votes else {"ratings": said}
            utterances.append(Utterance(name, wav, system, condition=condition and condition.get(system), **given))
        write_data_dir(tmp_path / "raw" / "test", utterances)
        guesses = predicted or {name: guess for name, _, guess, _ in listening_test()}
        write_table(tmp_path / "results" / "test" / "utt2mos", guesses)
        arguments = ["--data", str(tmp_path / "raw" / "test"), "--results", str(tmp_path / "results" / "test")]
        assert main(["score", *arguments, "--samples", "5"]) == 0
        metrics = json.loads((tmp_path / "results" / "test" / "metrics.json").read_text())
        return {(row["level"], row["mapping"]): row for row in metrics["p1401"]}, capsys.readouterr().out

    return score


@pytest.mark.parametrize("votes", [False, True], ids=["ratings", "votes"])
def test_measures_are_those_of_nisqa(scored, votes):
    rows, _ = scored(votes=votes)
    for mapping, expected in NISQA.items():
        row = rows["utterance", mapping]
        assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-9)
        assert row["count"] == 24
    assert NISQA_THIRD_ORDER_RMSE - 1e-6 < rows["utterance", "third order"]["RMSE"] <= NISQA_THIRD_ORDER_RMSE
    outliers = {mapping: rows["utterance", mapping]["outlier_ratio"] * 24 for mapping in NISQA}
    assert outliers == pytest.approx({"none": 11, "first order": 10})


def test_systems_have_intervals_of_all_their_ratings(scored):
    rows, _ = scored()
    errors, widths = [], []
    for system in range(6):
        members = [row for row in listening_test() if row[1] == f"s{system}"]
        ratings = np.array([row[3] for row in members], float).ravel()
        errors.append(abs(ratings.mean() - np.mean([row[2] for row in members])))
        widths.append(2.030108 * ratings.std(ddof=1) / 6)  # t of 35 degrees of freedom; 36 ratings
    excess = np.maximum(np.array(errors) - widths, 0)
    assert excess.any()
    assert rows["system", "none"]["RMSE_star"] == pytest.approx(np.sqrt(np.mean(excess**2)), abs=1e-6)
    assert rows["system", "none"]["outlier_ratio"] == pytest.approx(np.mean(excess > 0))


def test_conditions_are_those_of_sys2cond(scored):
    assert not any(level == "condition" for level, _ in scored()[0])
    rows, printed = scored({"s0": "c0", "s1": "c0", "s2": "c1"})
    assert rows["condition", "none"]["count"] == 5
    means = {}
    for _, system, predicted, scores in listening_test():
        means.setdefault({"s0": "c0", "s1": "c0", "s2": "c1"}.get(system, system), []).append(
            np.mean(scores) - predicted
        )
    error = np.sqrt(np.mean([np.mean(each) ** 2 for each in means.values()]))
    assert rows["condition", "none"]["RMSE"] == pytest.approx(error)
    # Four degrees of freedom leave one of five conditions.
    assert ("condition", "third order") in rows
    table = tables(printed)[1]
    header = ["level", "mapping", "N", "RMSE", "RMSE*", "outlier ratio", "LCC", "SRCC", "KTAU"]
    assert table[0] == header
    assert [row[:2] for row in table[1:]] == [list(key) for key in rows]
    assert table[1][3] == f"{NISQA['none']['RMSE']:.3f}"


def test_without_intervals_their_measures_are_left_out(scored):
    rows, printed = scored(listeners=1)  # one rating has no interval, several ratings of a system have one
    assert "RMSE_star" not in rows["utterance", "none"] and "outlier_ratio" not in rows["utterance", "none"]
    assert rows["system", "none"]["RMSE_star"] is not None
    assert tables(printed)[1][1][4] == "-"


def test_measures_that_are_not_defined_are_null(scored):
    rows, _ = scored(predicted={row[0]: 3.0 for row in listening_test()})
    for key, row in rows.items():
        assert row["LCC"] is row["SRCC"] is row["KTAU"] is None, key
        assert row["RMSE"] > 0


def test_a_first_order_mapping_is_the_line_of_least_squares_and_never_falls():
    x = np.array([1.0, 2.0, 4.0, 4.5])
    y = np.array([20.0, 30.0, 70.0, 60.0])
    slope, level = np.polyfit(x, y, 1)
    np.testing.assert_allclose(fit_map(1, x, y, 1, 5)(np.array([0.0, 3.0, 9.0])), level + slope * np.array([0, 3, 9]))
    np.testing.assert_allclose(fit_map(1, x, 100 - y, 1, 5)(x), 55.0)
    np.testing.assert_allclose(fit_map(3, x, -x, 1, 5)(x), -x.mean())


def test_a_third_order_mapping_is_the_cubic_of_least_squares_if_that_rises():
    x = np.linspace(0.5, 5.2, 50)
    y = 1 + 0.02 * (x - 1) ** 3 + 0.3 * x + 0.1 * np.sin(9 * x)
    np.testing.assert_allclose(fit_map(3, x, y, 1, 5)(x), np.polyval(np.polyfit(x, y, 3), x), atol=1e-10)


@pytest.mark.parametrize("seed", range(8))
def test_a_third_order_mapping_is_the_best_one_that_rises(seed):
    """The best of many rising cubics, of slope w (t - r)^2 + b (1 - t^2), is no better; a falling one would be."""
    generator = np.random.default_rng(seed)
    x = generator.uniform(1.3, 4.8, 60)
    y = 3 + np.sin(2 * x + seed) + 0.2 * x + 0.3 * generator.normal(size=60)
    fitted = fit_map(3, x, y, 1, 5)
    everywhere = np.linspace(-1, 7, 4001)
    assert np.diff(fitted(everywhere)).min() > -1e-12
    error = float(np.sum((fitted(x) - y) ** 2))
    assert error > np.sum((np.polyval(np.polyfit(x, y, 3), x) - y) ** 2) + 1e-3
    t = (x - 3) / 2
    for r in np.linspace(-1, 1, 81):
        touching = t**3 / 3 - r * t**2 + r * r * t
        for other in (t - t**3 / 3, 0 * t):
            parts = np.stack([np.ones(60), touching, other], axis=1)
            weights = np.linalg.lstsq(parts, y, rcond=None)[0]
            if weights[1:].min() >= 0:
                assert error <= np.sum((parts @ weights - y) ** 2) + 1e-9


def test_significance_of_differences():
    """Worked by hand: z = (artanh .9 - artanh .8) / sqrt(2 / 100); F = 4; 2.1242 is the tabulated F(0.05; 20, 20)."""
    z, p = compare_correlations(0.8, 0.9, 103)
    assert z == pytest.approx((1.4722194895832204 - 1.0986122886681098) / math.sqrt(0.02))
    assert p == pytest.approx(0.0082475, abs=1e-6)
    assert compare_correlations(0.9, 0.8, 103) == pytest.approx((-z, p))
    assert compare_rmse(0.5, 0.25, 20, 0) == pytest.approx(compare_rmse(0.25, 0.5, 20, 0))
    assert compare_rmse(0.5, 0.25, 20, 0)[0] == pytest.approx(4)
    assert compare_rmse(1, math.sqrt(2.1242), 20, 0)[1] == pytest.approx(0.05, abs=1e-5)
    assert compare_rmse(1, math.sqrt(2.1242), 24, 3)[1] == pytest.approx(0.05, abs=1e-5)
    assert compare_rmse(0.3, 0.3, 20, 1)[1] == pytest.approx(0.5)
    for undefined in (
        compare_correlations(0.5, 0.6, 3),
        compare_correlations(math.nan, 0.6, 9),
        compare_rmse(0, 1, 9, 0),
    ):
        assert all(map(math.isnan, undefined))


def test_mappings_of_other_scales():
    """The mapping does not depend on the unit of the scores."""

    def mushra(scores):
        return Scale(1, 5, "MOS").convert(scores, Scale(0, 100, "MUSHRA"))

    x = np.linspace(1.2, 4.9, 30)
    y = 3 + np.sin(2 * x)
    mapped = fit_map(3, x, y, 1, 5)(x)
    wide = fit_map(3, mushra(x), mushra(y), 0, 100)(mushra(x))
    np.testing.assert_allclose(wide, mushra(mapped), atol=1e-7)
