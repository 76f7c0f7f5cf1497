"""The card of a data directory."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.pages import tables

from distilmos.cli import main
from distilmos.data.datadir import Utterance, write_data_dir
from distilmos.metrics import METRICS


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
    facts, systems, groups, agreement, ceiling, shared = map(numbers, tables(card))
    assert (
        facts
        == [
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
            ["2.50", *facts[-3][1:]],  # mean MOS with its interval
            facts[-2],
            ["0.71"],  # standard deviation of the ratings of an utterance
        ]
    )
    assert [row[:2] + row[4:] for row in systems] == [
        ["1", "3.00", "0.00"],
        ["1", "2.50", "0.71"],
        ["1", "2.00", "1.41"],
    ]
    assert [row[:2] for row in groups] == [["3", "2.50"]] and groups[0][2:4] == facts[-3][1:]
    assert len(agreement) == 3
    assert len(ceiling) == 6 and [len(row) for row in ceiling[:2]] == [len(METRICS)] * 2
    levels = [line.split("\t")[0] for line in (train / "scores.tsv").read_text().splitlines()]
    assert levels == ["level", "set", "group", *["system"] * 3, *["utterance"] * 3]
    # Utterances, systems, listeners, speakers (unknown) and sentences; the blind set has no listeners either.
    assert shared == [["0", "3", "1", "3", "3", "3", "2", "3"], ["0", "3", "0", "3", "1", "3"]]
    assert [row[0] for row in tables(card)[1][1:]] == ["z", "y", "x"]
    assert [row[0] for row in tables(card)[5][1:]] == ["test", "blind"]
    assert re.findall(r"\b(?:30 s|a\d)\b", card.splitlines()[-1]) == ["30 s", "a1"]
    assert (train / "mos_histogram.svg").read_text().count("<path") > 4
    (facts, overlaps) = map(numbers, tables((blind / "SUMMARY.md").read_text()))
    assert facts == [["1"], ["0.000"], ["1.00", "1.00", "1.00"], ["1"], ["1"], [], ["1"]]
    assert len(overlaps) == 2
    assert not (blind / "mos_histogram.svg").exists() and not (blind / "scores.tsv").exists()


def test_intervals_of_votes_and_conditions(tmp_path: Path) -> None:
    audio = tmp_path / "x.wav"
    soundfile.write(audio, np.full(1600, 0.1), 16000)
    votes = {"a1": (0.5, 4), "a2": (1.0, 9), "b1": (0.0, 1)}  # standard deviation and number
    voted = [Utterance(u, audio, u[0], mos=3, votes={"mos": each}, condition="c") for u, each in votes.items()]
    write_data_dir(tmp_path / "voted", voted)
    ratings = {"a1": [("A", 1), ("B", 3)], "b1": [("A", 3), ("B", 5)], "d1": [("A", 4)]}
    single = [
        Utterance(u, audio, u[0], ratings=tuple(pairs), condition="ab" if u[0] in "ab" else "d")
        for u, pairs in ratings.items()
    ]
    write_data_dir(tmp_path / "single", single)
    assert main(["summarize-data", str(tmp_path / "voted"), str(tmp_path / "single")]) == 0
    # Student's t with 3 and 8 degrees of freedom, 3.182 and 2.306; a single vote has no interval.
    facts = numbers(tables((tmp_path / "voted" / "SUMMARY.md").read_text())[0])
    assert ["1", "9", "4"] in facts and [f"{(3.182 * 0.5 / 2 + 2.306 * 1 / 3) / 2:.2f}"] in facts
    facts, systems, conditions = tables((tmp_path / "single" / "SUMMARY.md").read_text())[:3]
    assert [row[:3] for row in conditions[1:]] == [["d", "1", "4.00"], ["ab", "2", "3.00"]]
    assert conditions[1][3:] == systems[2][3:] == ["-", "-"] and "[" in conditions[2][3]
    # One listener of d1 has no interval; those of a1 and b1 reach from the one rating to the other.
    assert [row[1] for row in facts[1:] if row[1].startswith("1.00 in")] == ["1.00 in the mean"]
    rows = [line.split("\t") for line in (tmp_path / "single" / "scores.tsv").read_text().splitlines()]
    assert [row[1:3] for row in rows if row[0] == "condition"] == [["ab", "2"], ["d", "1"]]
    assert rows[-1] == ["utterance", "d1", "1", "1", "4.0000", "", "", ""]
