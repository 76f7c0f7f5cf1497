from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from distilmos.data.audio import audio_seconds
from distilmos.data.datadir import read_data_dir
from distilmos.data.tables import (
    MAX_NODES,
    parse_json,
    read_floats,
    read_json,
    read_lines,
    read_table,
    read_yaml,
    write_table,
)
from distilmos.errors import InputError
from distilmos.files import atomic_path


def test_written_values_read_back_exactly_in_c_order(tmp_path: Path) -> None:
    numbers = {"b": 0.1 + 0.2, "a": 1 / 3, "B": np.float64(2 / 3), "ä": 5.0}
    write_table(tmp_path / "t", numbers)
    assert read_floats(tmp_path / "t") == numbers
    assert list(read_floats(tmp_path / "t")) == ["B", "a", "b", "ä"]


def test_values_keep_their_blanks_and_rare_separators(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes("a  /x/my file.wav \nb\tx\u2028y\nc z".encode())
    assert read_table(tmp_path / "t") == {"a": "/x/my file.wav", "b": "x\u2028y", "c": "z"}


@pytest.mark.parametrize("blank", ["\u3000", "\u00a0"])
def test_a_key_has_no_white_space_of_any_kind(tmp_path: Path, blank: str) -> None:
    (tmp_path / "t").write_text(f"u1 a\nu{blank}2 b\n", encoding="utf-8")
    with pytest.raises(InputError, match="t:2: "):
        read_table(tmp_path / "t")


def test_crlf_and_byte_order_mark_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"\xef\xbb\xbfa 1\r\nb 2\r\n")
    assert read_lines(tmp_path / "t") == ["a 1", "b 2"]
    assert read_floats(tmp_path / "t") == {"a": 1.0, "b": 2.0}


def test_all_faults_are_named_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_text("a 1\nb\n\na 2\nc x\nd nan\ne -inf\n")
    with pytest.raises(InputError) as caught:
        read_floats(path)
    lines = str(caught.value).splitlines()[1:]
    assert [line.strip().split(":")[1] for line in lines] == ["2", "3", "4", "5", "6", "7"]
    assert lines[2].strip().startswith(f"{path}:4: a ") and lines[2].endswith(" 1")
    assert "'x'" in lines[3]


def test_not_utf8_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"a 1\nb \xff\n")
    with pytest.raises(InputError, match=r"t:2: "):
        read_table(tmp_path / "t")


def test_missing_file_and_directory(tmp_path: Path) -> None:
    for path in (tmp_path / "t", tmp_path):
        with pytest.raises(InputError, match=f"^{path}: "):
            read_table(path)


def test_json_is_read_or_its_bad_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": [1,\r\n "\xc3\xa4"]}\r\n')
    assert read_json(path) == {"a": [1, "ä"]}
    for content in (b'{"a": 1,\n"b"}\n', b'{"a": 1,\n"b\xff": 2}\n'):
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"^{path}:2: "):
            read_json(path)
    path.unlink()
    with pytest.raises(InputError, match=f"^{path}: "):
        read_json(path)


def test_a_fault_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("old")
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "t") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("t", "old")]


@pytest.mark.parametrize("text", [b"[" * 100000, b"[" + b"1" * 5000 + b"]", b"\xff", b"{"])
def test_every_fault_of_json_names_its_line(text):
    with pytest.raises(InputError, match=r"^x:7: "):
        parse_json(text, "x", line=7)


def test_json_of_another_type_names_the_value(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"a": [1, "b"]}')
    with pytest.raises(InputError, match=rf"^{path}: a: 1: "):
        read_json(path, dict[str, list[int]])


BOMB = "a: [&a [x], " + ", ".join(f"&{new} [{', '.join([f'*{old}'] * 10)}]" for old, new in pairwise("abcdefghi")) + "]"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("a: 1\nb: !!bool maybe", ":2"),
        ('a: 1\nb: !!int ""', ":2"),
        ("a: 1\nb: !!float x", ":2"),
        ("a: 1\nb: 2026-13-01", ":2"),
        ("a: 1\nb: !!timestamp x", ":2"),
        ("a: 1\na: 2", ":2"),
        ("a: 1\n- b", ":2"),
        ("- a", ":1"),
        ("a: \x01", ""),
        ("a: " + "[" * 5000, ""),
        ("a: [" + "1," * MAX_NODES + "]", ""),
        (BOMB, ""),
        ("a: &a [*a]", ""),
    ],
)
def test_every_fault_of_yaml_names_its_line(tmp_path, text, where):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"{path}{where}: (?!\d)"):
        read_yaml(path)


@pytest.mark.parametrize("name", ["x" * 300 + ".wav", "x\0.wav"])
def test_names_that_no_file_can_have_are_faults_of_their_recording(tmp_path, name):
    (tmp_path / "wav.scp").write_text(f"u1 {name}\n")
    (tmp_path / "utt2sys").write_text("u1 s\n")
    with pytest.raises(InputError, match=rf"{tmp_path}/wav.scp:1: u1: "):
        read_data_dir(tmp_path, rated=False)
    with pytest.raises(InputError, match=r"x\S*\.wav"):
        audio_seconds(tmp_path / name)
