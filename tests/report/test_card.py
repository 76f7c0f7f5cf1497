"""The card of a data directory."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.pages import tables

from distilmos.cli import main
from distilmos.data.datadir import Utterance, write_data_dir
from distilmos.report.card import intraclass_correlation, split_half

Ratings = dict[str, list[tuple[str, float]]]

# P. E. Shrout, J. L. Fleiss, 1979, table 2: six targets, four judges.
SHROUT_FLEISS = ((9, 2, 5, 8), (6, 1, 3, 2), (8, 4, 6, 8), (7, 1, 2, 6), (10, 5, 6, 9), (6, 2, 4, 7))


def named(rows: Sequence[Sequence[float]]) -> Ratings:
    return {f"u{n}": [(f"L{m}", float(s)) for m, s in enumerate(row)] for n, row in enumerate(rows)}


def test_intraclass_correlation_of_the_original_paper() -> None:
    single, mean = intraclass_correlation(named(SHROUT_FLEISS))
    assert (round(single, 2), round(mean, 2)) == (0.17, 0.44)


def test_intraclass_correlation_with_unequal_numbers_of_ratings() -> None:
    random = np.random.default_rng(1)
    truth = random.normal(0, 1, 4000)
    ratings = {
        f"u{n}": [(f"L{m}", value + random.normal(0, 2)) for m in range(random.integers(1, 8))]
        for n, value in enumerate(truth)
    }
    assert intraclass_correlation(ratings)[0] == pytest.approx(1 / (1 + 4), abs=0.02)


@pytest.mark.parametrize("rows", [[[3, 4]], [[3], [4]], [[3, 3], [3, 3]]])
def test_intraclass_correlation_is_nan_where_it_is_not_defined(rows: list[list[float]]) -> None:
    assert all(map(math.isnan, intraclass_correlation(named(rows))))


def test_split_half_divides_the_listeners() -> None:
    random = np.random.default_rng(2)
    truth = random.normal(0, 1, 300)
    agreeing = {f"u{n}": [(f"L{m}", t + random.normal(0, 1)) for m in range(8)] for n, t in enumerate(truth)}
    # Each half has four ratings: the truth has variance 1, the noise of a mean 1/4.
    assert split_half(agreeing) == pytest.approx(1 / 1.25, abs=0.03)
    assert split_half(agreeing) == split_half(agreeing)
    # One listener rates half of the utterances, another rates the rest: no utterance has ratings of both halves.
    apart = {f"u{n}": [(f"L{n % 2}", float(n))] for n in range(10)}
    assert math.isnan(split_half(apart))


def make(directory: Path, prefix: str, systems: str, rated: bool = True, notes: str = "") -> Path:
    utterances = []
    for number, system in enumerate(systems):
        audio = directory.parent / f"{prefix}{number}.wav"
        soundfile.write(audio, np.full(16000 * (1 + 40 * (number == 1)), 0.1), 16000)
        ratings = ((f"L{number % 2}", 1 + number % 5), ("L9", 3)) if rated else ()
        utterances.append(Utterance(audio.stem, audio, system, ratings=ratings, text=f"sentence {number}", group="g"))
    write_data_dir(directory, utterances, notes)
    return directory


def numbers(table: list[list[str]]) -> list[list[str]]:
    """Return the numbers of each row below the header, without its first cell."""
    return [re.findall(r"\d+(?:\.\d+)?", " ".join(row[1:])) for row in table[1:]]


def test_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = make(tmp_path / "train", "a", "xyz", notes="The ratings are simulated.")
    test = make(tmp_path / "test", "b", "yw")
    blind = make(tmp_path / "blind", "c", "v", rated=False)
    assert main(["summarize-data", *map(str, (train, test, blind))]) == 0
    assert capsys.readouterr().out.split() == [f"{path}/SUMMARY.md" for path in (train, test, blind)]
    card = (train / "SUMMARY.md").read_text()
    assert card.splitlines()[0] == "# train" and "The ratings are simulated." in card
    facts, systems, agreement, shared = map(numbers, tables(card))
    assert facts == [
        ["3"],  # utterances
        ["0.012"],  # hours
        ["1.00", "41.00", "14.33"],  # seconds per utterance
        ["3"],  # systems
        ["1"],  # utterances per system
        ["2.00", "3.00", "2.50", "0.41"],  # MOS
        ["6"],  # ratings
        ["2"],  # ratings per utterance
        ["3"],  # listeners
        ["1", "3", "2"],  # ratings per listener
        ["3"],  # systems in the group
    ]
    assert systems == [["1", "3.00"], ["1", "2.50"], ["1", "2.00"]]
    assert len(agreement) == 3
    # Utterances, systems, listeners, speakers (unknown) and sentences; the blind set has no listeners either.
    assert shared == [["0", "3", "1", "3", "3", "3", "2", "3"], ["0", "3", "0", "3", "1", "3"]]
    assert [row[0] for row in tables(card)[1][1:]] == ["z", "y", "x"]
    assert [row[0] for row in tables(card)[3][1:]] == ["test", "blind"]
    assert re.findall(r"\b(?:30 s|a\d)\b", card.splitlines()[-1]) == ["30 s", "a1"]
    assert (train / "mos_histogram.svg").read_text().count("<path") > 4
    (facts, overlaps) = map(numbers, tables((blind / "SUMMARY.md").read_text()))
    assert facts == [["1"], ["0.000"], ["1.00", "1.00", "1.00"], ["1"], ["1"], [], ["1"]]
    assert len(overlaps) == 2
    assert not (blind / "mos_histogram.svg").exists()
