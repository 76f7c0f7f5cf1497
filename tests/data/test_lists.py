"""Rating lists of corpora: every fault is named with its line, and nothing else is lost."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from distilmos.data.lists import RatingColumns, filled, gather_ratings, read_rows, score

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
    for fault, start, value in zip(sorted(faults), (2, 3, 4), ("1", "utt", "3"), strict=True):
        assert re.match(rf"{path}:{start}: .*\b{value}\b", fault)


def test_a_list_that_cannot_be_read_is_one_of_the_faults(tmp_path: Path) -> None:
    faults: list[str] = []
    texts = {"none": None, "empty": "", "header": "utt;sys\n1;2\n", "latin": b"utt,sys\n\xe9,1\n"}
    for name, text in texts.items():
        if text is not None:
            write(tmp_path / name, text)
        assert read_rows(tmp_path / name, ("utt", "sys"), faults, header=True) == []
    assert [fault.partition(": ")[0] for fault in faults] == [
        f"{tmp_path}/{where}" for where in ("none", "empty", "header:1", "latin:2")
    ]
    assert "'utt;sys'" in faults[2]


def test_a_stray_quote_costs_its_own_line_alone(tmp_path: Path) -> None:
    lines = [f"u{n},{n}" for n in range(8000)]
    lines[3], lines[60], lines[90] = 'u3,"3', 'u60,60"', 'u90,"9"0'
    faults: list[str] = []
    path = write(tmp_path / "list", "\n".join(lines) + "\n")
    rows = read_rows(path, ("utt", "mos"), faults, header=False)
    assert {f"u{n}" for n in range(8000)} - {row["utt"] for row in rows} == {"u3", "u90"}
    assert [fault.split(": ")[0] for fault in faults] == [f"{path}:4", f"{path}:91"]


def test_empty_values_are_for_the_caller_to_sort_out(tmp_path: Path) -> None:
    path = write(tmp_path / "list.csv", "utt,kind,mos\nu1,mos,3\nu2,other,\nu3,mos,\n")
    faults: list[str] = []
    rows = read_rows(path, ("utt", "kind", "mos"), faults, header=True, may_be_empty=True)
    assert (len(rows), faults) == (3, [])
    wanted = filled([row for row in rows if row["kind"] == "mos"], ("utt", "mos"), faults)
    assert [row["utt"] for row in wanted] == ["u1"]
    assert len(faults) == 1 and re.match(rf"{path}:4: .*\bmos\b", faults[0])


@pytest.mark.parametrize("value", ["0", "5.01", "nan", "inf", "x", "3,5"])
def test_scores_outside_the_scale(tmp_path: Path, value: str) -> None:
    row = read_rows(write(tmp_path / "l", f'u;"{value}"\n'), ("utt", "mos"), [], header=False, delimiter=";")[0]
    faults: list[str] = []
    assert score(row, "mos", faults) is None
    assert len(faults) == 1 and faults[0].startswith(f"{tmp_path / 'l'}:1: mos {value!r} ")


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
    wanted = (":2: .*'2.5'", r":5: u1 .*\b008\b.*\b1\b.*\b007\b", r":4: .*\bA\b.*\bu1\b.*\b1\b")
    for fault, pattern in zip(faults + repeated, wanted, strict=True):
        assert re.match(f"{path}{pattern}", fault)
