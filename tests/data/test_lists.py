"""Rating lists of corpora: every fault is named with its line, and nothing else is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from distilmos.data.lists import RatingColumns, gather_ratings, read_rows, score
from distilmos.errors import InputError

COLUMNS = RatingColumns(name="utt", system="sys", score="mos", listener="who")


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_windows_files_and_quotes(tmp_path: Path) -> None:
    path = write(tmp_path / "list.csv", b'\xef\xbb\xbfsys,more, utt \r\n007,"a, b",u1\r\n\r\n 08 ,,u2\r\n')
    faults: list[str] = []
    rows = read_rows(path, ("utt", "sys"), faults, header=True)
    assert faults == []
    assert [(row["sys"], row["more"], row["utt"], row.where) for row in rows] == [
        ("007", "a, b", "u1", f"{path}:2"),
        ("08", "", "u2", f"{path}:4"),
    ]


def test_without_a_header_all_columns_are_there(tmp_path: Path) -> None:
    path = write(tmp_path / "list", "u1,3\nu2\n,4\nu3,4,5\nu4,1\n")
    faults: list[str] = []
    assert [row["utt"] for row in read_rows(path, ("utt", "mos"), faults, header=False)] == ["u1", "u4"]
    assert faults == [
        f"{path}:2: 1 values instead of 2 (utt, mos)",
        f"{path}:3: no utt",
        f"{path}:4: 3 values instead of 2 (utt, mos)",
    ]


@pytest.mark.parametrize(("text", "message"), [("", "no column utt, sys"), ("utt;sys\n", "in the header 'utt;sys'")])
def test_a_missing_column_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "list.csv", text)
    with pytest.raises(InputError, match=message) as error:
        read_rows(path, ("utt", "sys"), [], header=True)
    assert str(error.value).startswith(f"{path}:1: ")


@pytest.mark.parametrize("value", ["0", "5.01", "nan", "inf", "x", "3,5"])
def test_scores_outside_the_scale(tmp_path: Path, value: str) -> None:
    row = read_rows(write(tmp_path / "l", f'u;"{value}"\n'), ("utt", "mos"), [], header=False, delimiter=";")[0]
    faults: list[str] = []
    assert score(row, "mos", faults) is None
    assert faults == [f"{tmp_path / 'l'}:1: mos {value!r} is not a number in 1..5"]


def test_gathering_ratings(tmp_path: Path) -> None:
    lines = ["u1,007,4,A", "u2,007,2.5,A", "u1,007,5,B", "u1,007,1,A", "u1,008,3,C", "u2,007,1,B"]
    path = write(tmp_path / "list", "\n".join(lines) + "\n")
    faults: list[str] = []
    repeated: list[str] = []
    rows = read_rows(path, ("utt", "sys", "mos", "who"), faults, header=False)
    items = gather_ratings(rows, COLUMNS, faults, repeated)
    assert {name: item.ratings for name, item in items.items()} == {
        "u1": [("A", 4.0), ("B", 5.0), ("C", 3.0)],
        "u2": [("B", 1.0)],
    }
    assert items["u1"].mean == 4.0
    assert [(item.name, item.system, item.row.line) for item in items.values()] == [("u1", "007", 1), ("u2", "007", 2)]
    assert faults == [
        f"{path}:2: mos '2.5' is not a whole number in 1..5",
        f"{path}:5: u1 is of system 008, in line 1 of 007",
    ]
    assert repeated == [f"{path}:4: A has rated u1 in line 1 already"]
