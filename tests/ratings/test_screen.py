"""`distilmos screen-ratings`: bad listeners are found, good ones stay, and nothing is dropped silently."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.pages import section, tables

from distilmos.cli import main
from distilmos.data.datadir import Utterance, read_data_dir, write_data_dir
from distilmos.data.schema import Control, Scale
from distilmos.simulation.listeners import make_listeners, simulate_ratings

SYSTEMS, EACH = 16, 12


def rated(directory: Path, ratings: Mapping[str, list[tuple[str, float]]], **more: object) -> Path:
    """Write a data directory; the first letters of an utterance, up to a hyphen, are its system."""
    audio = directory.parent / "x.wav"
    soundfile.write(audio, np.full(1600, 0.1), 16000)
    utterances = [
        Utterance(name, audio, name.partition("-")[0], ratings=tuple(pairs), seconds=0.1)
        for name, pairs in ratings.items()
    ]
    write_data_dir(directory, utterances, **more)  # type: ignore[arg-type]
    return directory


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ratings by 24 simulated listeners and four bad ones, as crowdsourced tests have them; one is only harsh."""
    random = np.random.default_rng(3)
    quality = np.repeat(random.uniform(1.3, 4.6, SYSTEMS), EACH) + random.normal(0, 0.3, SYSTEMS * EACH)
    names = [f"s{n // EACH:02d}-{n:03d}" for n in range(quality.size)]
    panel = make_listeners(24, random)
    ratings = {name: list(simulate_ratings(q, panel, 8, random)) for name, q in zip(names, quality, strict=True)}
    ways = {
        "random": lambda q: random.integers(1, 6),
        "reversed": lambda q: 6 - q + random.normal(0, 0.5),
        "always3": lambda q: 3,
        "nearly5": lambda q: 5 - (random.random() < 0.03),
        "harsh": lambda q: q - 1 + random.normal(0, 0.5),
    }
    for listener, way in ways.items():
        for n in random.choice(quality.size, 60, replace=False):
            ratings[names[n]].append((listener, float(np.clip(np.rint(way(quality[n])), 1, 5))))
    return rated(tmp_path_factory.mktemp("planted") / "data", ratings)


def test_planted_listeners_are_found_and_no_other(planted: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["screen-ratings", str(planted), str(out)]) == 0
    found = {row["listener"]: row["reasons"] for row in rows(out / "screening.tsv") if row["rejected"] == "yes"}
    assert {name: re.findall(r"(\w+): ", reasons)[0] for name, reasons in found.items()} == {
        "always3": "straight",
        "nearly5": "straight",
        "random": "correlation",
        "reversed": "correlation",
    }
    # Every rating is in the new directory or in the list of rejected ones.
    before, after = read_data_dir(planted), read_data_dir(out)
    rejected = {(row["utterance"], row["listener"]): row for row in rows(out / "rejected.tsv")}
    for utterance, pairs in before.ratings.items():
        kept = [pair for pair in pairs if (utterance, pair[0]) not in rejected]
        assert after.ratings[utterance] == kept
        assert after.mos[utterance] == pytest.approx(np.mean([score for _, score in kept]), abs=1e-9)
    assert all(row["reasons"] for row in rejected.values())
    outliers = {key for key, row in rejected.items() if row["reasons"].startswith("outlier: ")}
    assert {listener for _, listener in set(rejected) - outliers} == set(found)
    page = (out / "SCREENING.md").read_text()
    assert {row[0] for row in tables(section(page, "Rejected listeners"))[0][1:]} == set(found)
    changes = {row[0]: row[1:] for row in tables(section(page, "What it changes"))[0][1:]}
    assert changes["listeners"] == ["29", "25"]
    total = sum(map(len, before.ratings.values()))
    assert changes["ratings"] == [f"{total:,}", f"{total - len(rejected):,}"]
    single = [float(value) for value in changes["ICC(1,1), reliability of one rating"]]
    assert single[1] > single[0] + 0.1
    systems = tables(section(page, "What it changes"))[2]
    assert len(systems) == 1 + SYSTEMS and all(len(row) == 6 for row in systems)


def test_rules_can_be_chosen(planted: Path, tmp_path: Path) -> None:
    assert main(["screen-ratings", str(planted), str(tmp_path / "out"), "--rules", "straight"]) == 0
    found = {row["listener"] for row in rows(tmp_path / "out" / "screening.tsv") if row["rejected"] == "yes"}
    assert found == {"always3", "nearly5"}
    assert main(["screen-ratings", str(planted), str(tmp_path / "out"), "--rules", "correlation"]) == 0
    known = {row["listener"]: row for row in rows(tmp_path / "out" / "screening.tsv")}
    # The LCC of equal ratings is not defined; that is no reason to keep them.
    assert (known["always3"]["rejected"], known["always3"]["correlation"]) == ("yes", "")
    assert {"random", "reversed"} < {name for name, row in known.items() if row["rejected"] == "yes"}
    options = ["--rules", "correlation", "straight", "--min-ratings", "61"]
    assert main(["screen-ratings", str(planted), str(tmp_path / "none"), *options]) == 0
    assert (tmp_path / "none" / "ratings").read_bytes() == (planted / "ratings").read_bytes()
    assert rows(tmp_path / "none" / "rejected.tsv") == []


def answers(kind: str, wrong: int, total: int, stimulus: str = "t") -> list[Control]:
    low, high = (0, 90) if kind == "anchor" else (90, 100)
    bad = 95 if kind == "anchor" else 20
    return [Control(kind, f"{stimulus}{n}", bad if n < wrong else 90, low, high) for n in range(total)]


def test_control_questions(tmp_path: Path) -> None:
    controls = {
        "passes": [*answers("reference", 3, 20), *answers("anchor", 3, 20)],  # 15 % is not more than 15 %
        "deaf": answers("reference", 4, 20),
        "fooled": answers("anchor", 4, 20),
        "absent": answers("trapping", 1, 1),
        "wild": [*answers("gold", 1, 2), *answers("trapping", 0, 3)],
        "others": answers("anchor", 0, 20),
    }
    for n in range(8):
        controls[f"good{n}"] = answers("anchor", 0, 20)
    ratings = {f"s{u}-u{u}": [(name, 10.0 * u) for name in controls] for u in range(5)}
    data = rated(tmp_path / "data", ratings, scales=[Scale(0, 100, "MUSHRA")], controls=controls)
    assert main(["screen-ratings", str(data), str(tmp_path / "out")]) == 0
    found = {row["listener"]: row for row in rows(tmp_path / "out" / "screening.tsv")}
    assert {name: row["reasons"].partition(":")[0] for name, row in found.items() if row["rejected"] == "yes"} == {
        "deaf": "reference",
        "fooled": "anchor",
        "absent": "trapping",
        "wild": "gold",
    }
    assert (found["passes"]["reference_asked"], found["passes"]["reference_wrong"]) == ("20", "3")
    assert (
        main(["screen-ratings", str(data), str(tmp_path / "mild"), "--max-wrong", "0.2", "--rules", "reference"]) == 0
    )
    assert rows(tmp_path / "mild" / "rejected.tsv") == []


def test_an_anchor_that_fools_many_listeners_checks_nobody(tmp_path: Path) -> None:
    controls = {f"L{n}": answers("anchor", 1 if n < 2 else 0, 4) for n in range(7)}
    ratings = {f"s{u}-u{u}": [(name, 10.0 * u) for name in controls] for u in range(3)}
    data = rated(tmp_path / "data", ratings, scales=[Scale(0, 100, "MUSHRA")], controls=controls)
    assert main(["screen-ratings", str(data), str(tmp_path / "out")]) == 0  # 2 of 7 are more than 25 %
    assert rows(tmp_path / "out" / "rejected.tsv") == []
    del controls["L1"]
    data = rated(tmp_path / "data", ratings, scales=[Scale(0, 100, "MUSHRA")], controls=controls)
    assert main(["screen-ratings", str(data), str(tmp_path / "out")]) == 0  # 1 of 6 are not
    assert {row["listener"] for row in rows(tmp_path / "out" / "rejected.tsv")} == {"L0"}


def test_correlation_is_with_the_other_listeners_that_stay(tmp_path: Path) -> None:
    scores = {"A": [1, 3, 2, 5, 4], "B": [2, 3, 1, 4, 5], "C": [1, 1, 3, 5, 2], "bad": [5, 1, 4, 1, 2]}
    ratings = {f"s-u{u}": [(name, float(given[u])) for name, given in scores.items()] for u in range(5)}
    data = rated(tmp_path / "data", ratings, controls={"bad": answers("gold", 1, 1)})
    assert main(["screen-ratings", str(data), str(tmp_path / "out")]) == 0
    found = {row["listener"]: float(row["correlation"]) for row in rows(tmp_path / "out" / "screening.tsv")}
    for name, given in scores.items():
        others = np.mean([scores[other] for other in "ABC" if other != name], axis=0)
        assert found[name] == pytest.approx(np.corrcoef(given, others)[0, 1], abs=1e-4)


def test_equal_ratings_of_equal_utterances_are_no_straight_lining(tmp_path: Path) -> None:
    ratings = {f"s-u{u}": [("A", 3.0), ("B", 3.0 + (u == 4)), ("C", 3.0)] for u in range(12)}
    ratings |= {f"t-u{u}": [("B", 1.0), ("C", 5.0 if u % 2 else 1.0)] for u in range(12)}
    data = rated(tmp_path / "data", ratings)
    options = ["--min-ratings", "10", "--rules"]
    assert main(["screen-ratings", str(data), str(tmp_path / "out"), *options, "straight"]) == 0
    assert rows(tmp_path / "out" / "rejected.tsv") == []
    assert main(["screen-ratings", str(data), str(tmp_path / "out"), *options, "correlation"]) == 0
    assert "A" not in {row["listener"] for row in rows(tmp_path / "out" / "rejected.tsv")}


def test_an_outlier_costs_one_rating(tmp_path: Path) -> None:
    ratings = {f"s-u{u}": [(f"L{n}", 1.0 + (n == u)) for n in range(12)] for u in range(12)}
    ratings["s-u3"][0] = ("L0", 5.0)
    ratings |= {f"t-u{u}": [(f"L{n}", 4.0 + n % 2) for n in range(12)] for u in range(12)}
    ratings["t-u7"][2] = ("L2", 2.0)
    data = rated(tmp_path / "data", ratings)
    assert main(["screen-ratings", str(data), str(tmp_path / "out")]) == 0
    found = rows(tmp_path / "out" / "rejected.tsv")
    assert [tuple(row.values())[:3] for row in found] == [("s-u3", "L0", "5"), ("t-u7", "L2", "2")]
    assert main(["screen-ratings", str(data), str(tmp_path / "out"), "--max-z", "100"]) == 0
    assert rows(tmp_path / "out" / "rejected.tsv") == []


def test_repeated_ratings_are_of_one_listener(tmp_path: Path) -> None:
    scores = {"A": [1, 3, 2, 5, 4], "B": [2, 3, 1, 4, 5], "C": [1, 1, 3, 5, 2], "bad": [5, 1, 4, 1, 2]}
    ratings = {f"s-u{u}": [(name, float(given[u])) for name, given in scores.items()] for u in range(5)}
    again = {"A#2": [2, 5, 1, 4, 4], "bad#2": [1, 1, 1, 1, 1]}
    for u, pairs in enumerate(ratings.values()):
        pairs += [(name, float(given[u])) for name, given in again.items()]
    ratings |= {f"t-u{u}": [("A", 3.0), ("A#2", 5.0 if u == 7 else 3.0), ("B", 3.0 + u % 2)] for u in range(12)}
    data = rated(tmp_path / "data", ratings, controls={"bad": answers("gold", 1, 1)})
    assert main(["screen-ratings", str(data), str(tmp_path / "out")]) == 0
    found = {row["listener"]: row for row in rows(tmp_path / "out" / "screening.tsv")}
    assert {name: int(row["ratings"]) for name, row in found.items()} == {"A": 34, "B": 17, "C": 5, "bad": 10}
    own = [*scores["A"], *again["A#2"], *[3] * 23, 5]
    others = np.mean([scores["B"], scores["C"]], axis=0).tolist() * 2 + [3, 4] * 12
    assert float(found["A"]["correlation"]) == pytest.approx(np.corrcoef(own, others)[0, 1], abs=1e-4)
    rejected = [(row["utterance"], row["listener"]) for row in rows(tmp_path / "out" / "rejected.tsv")]
    bad = [(f"s-u{u}", name) for u in range(5) for name in ("bad", "bad#2")]
    assert sorted(rejected) == sorted([*bad, ("t-u7", "A#2")])
    page = (tmp_path / "out" / "SCREENING.md").read_text()
    changes = {row[0]: row[1:] for row in tables(section(page, "What it changes"))[0][1:]}
    assert changes["listeners"] == ["4", "3"] and changes["ratings"] == ["66", "55"]


def test_utterances_without_a_rating_left_are_named(tmp_path: Path) -> None:
    controls = {"bad": answers("gold", 1, 1)}
    ratings = {"s-u1": [("bad", 3.0)], "s-u2": [("bad", 5.0), ("good", 2.0)], "t-u3": [("good", 4.0)]}
    data = rated(tmp_path / "data", ratings, controls=controls)
    (data / "sys2mos").write_text("s 3.5\nt 4\n")
    assert main(["screen-ratings", str(data), str(tmp_path / "out")]) == 0
    after = read_data_dir(tmp_path / "out")
    assert after.mos == {"s-u2": 2, "t-u3": 4} and not after.system_mos
    left_out = section((tmp_path / "out" / "SCREENING.md").read_text(), "Utterances without a rating left")
    assert "s-u1" in left_out and "sys2mos" in left_out


def test_bad_input_leaves_everything_as_it_was(
    planted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    controls = {"bad": answers("gold", 1, 1)}
    all_bad = rated(tmp_path / "all_bad", {"s-u1": [("bad", 3.0)]}, controls=controls)
    unrated = rated(tmp_path / "unrated", {"s-u1": [("L", 3.0)]})
    (unrated / "ratings").unlink()
    faulty = rated(tmp_path / "faulty", {"s-u1": [("L", 3.0)]})
    (faulty / "ratings").write_text("s-u1 L 7\n")
    old = rated(tmp_path / "out", {"s-u1": [("L", 3.0)]})
    for source in (all_bad, unrated, faulty):
        assert main(["screen-ratings", str(source), str(old)]) == 2
        assert str(source) in capsys.readouterr().err
        assert read_data_dir(old).ratings == {"s-u1": [("L", 3)]}
    assert main(["screen-ratings", str(planted), str(planted)]) == 2
    assert not (planted / "SCREENING.md").exists()
