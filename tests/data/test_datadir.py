from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from distilmos.data.datadir import Utterance, read_data_dir, validate_data_dir, write_data_dir
from distilmos.errors import InputError


def recording(path: Path, seconds: float = 0.1) -> Path:
    soundfile.write(path, np.zeros(int(16000 * seconds)), 16000)
    return path


@pytest.fixture
def utterances(tmp_path: Path) -> list[Utterance]:
    ids = ("u2", "ü1", "u1")
    return [
        Utterance(
            id=name,
            audio=recording(tmp_path / f"{name} a.wav"),
            system=f"s-{name}",
            ratings=(("L1", 4), ("L2", 2.5)),
            speaker="x",
            text="some words",
            group="noise",
        )
        for name in ids
    ]


@pytest.fixture
def data(utterances: list[Utterance], tmp_path: Path) -> Path:
    write_data_dir(tmp_path / "data", utterances, notes="The ratings are simulated.")
    return tmp_path / "data"


def tree(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_what_is_written_reads_back(data: Path, tmp_path: Path) -> None:
    read = read_data_dir(data)
    assert read.utterances == list(read.wavs) == ["u1", "u2", "ü1"]
    assert read.wavs["ü1"] == (tmp_path / "ü1 a.wav", None)
    assert read.systems["u2"] == "s-u2"
    assert read.durations["u1"] == 0.1
    assert read.mos["u1"] == 3.25
    assert read.ratings["u1"] == [("L1", 4.0), ("L2", 2.5)]
    assert read.groups == {"s-u1": "noise", "s-u2": "noise", "s-ü1": "noise"}
    assert read.notes == "The ratings are simulated."
    assert (data / "utt2spk").read_text() == "u1 x\nu2 x\nü1 x\n"
    assert (data / "text").read_text().startswith("u1 some words\n")
    assert (data / "ratings").read_text().startswith("u1 L1 4\nu1 L2 2.5\nu2")


def test_ratings_read_back_exactly(tmp_path: Path) -> None:
    audio = recording(tmp_path / "a.wav")
    write_data_dir(tmp_path / "data", [Utterance("a", audio, "s", ratings=(("L", 10 / 3),))])
    assert read_data_dir(tmp_path / "data").ratings["a"] == [("L", 10 / 3)]


def test_an_unrated_directory_must_be_asked_for(tmp_path: Path) -> None:
    write_data_dir(tmp_path / "data", [Utterance("a", recording(tmp_path / "a.wav"), "s")])
    assert read_data_dir(tmp_path / "data", rated=False).mos == {}
    with pytest.raises(InputError, match="utt2mos"):
        read_data_dir(tmp_path / "data")


def test_crlf_and_byte_order_mark(data: Path) -> None:
    before = read_data_dir(data)
    for path in data.iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_data_dir(data) == before


# Change of one file -> where the fault is named, and the words that it must name.
FAULTS = {
    "rating out of range": ("ratings", "u1 L1 4", "u1 L1 6", "ratings:1", "u1 L1 6"),
    "rating that is no number": ("ratings", "u2 L2 2.5", "u2 L2 good", "ratings:4", "u2 L2 good"),
    "rating given twice": ("ratings", "u1 L2 2.5", "u1 L1 2.5", "ratings:2", "u1 L1 1"),
    "rating without a listener": ("ratings", "u1 L1 4", "u1 4", "ratings:1", "u1 4"),
    "rating of nothing": ("ratings", "u2 L1", "u12 L1", "ratings:3", "u12 wav.scp"),
    "ratings out of order": ("ratings", "u1 L1 4\n", "u9 L1 4\n", "ratings:2", "u1 LC_ALL=C"),
    "mean of other ratings": ("utt2mos", "u2 3.25", "u2 3.5", "ratings:3", "u2 3.2500 3.5000"),
    "MOS out of range": ("utt2mos", "u1 3.25", "u1 0.5", "utt2mos:1", "u1 0.5"),
    "MOS that is no number": ("utt2mos", "u1 3.25", "u1 nan", "utt2mos:1", "u1 nan"),
    "MOS given twice": ("utt2mos", "u2 3.25", "u1 3.25", "utt2mos:2", "u1 1"),
    "MOS lacking": ("utt2mos", "u2 3.25\n", "", "wav.scp:2", "u2 utt2mos"),
    "MOS of nothing": ("utt2mos", "u2", "u3", "utt2mos:2", "u3 wav.scp"),
    "all MOS lacking": ("utt2mos", "u1 3.25\nu2 3.25\nü1 3.25\n", "", "wav.scp:1", "u1 utt2mos"),
    "wav without a file": ("wav.scp", "u2 a.wav", "u2 none.wav", "wav.scp:2", "u2 none.wav"),
    "wav out of order": ("wav.scp", "u1 /", "u9 /", "wav.scp:2", "u2 LC_ALL=C"),
    "wav without a path": ("wav.scp", "u2 /", "u2\nu3 /", "wav.scp:2", "u2"),
    "command": ("wav.scp", "u2 a.wav", "u2 a.wav |", "wav.scp:2", "u2 |"),
    "no system": ("utt2sys", "u2 s-u2\n", "", "wav.scp:2", "u2 utt2sys"),
    "system with a blank": ("utt2sys", "u2 s-u2", "u2 s u2", "utt2sys:2", "u2 s"),
    "system without a group": ("sys2group", "s-u2 noise\n", "", "utt2sys:2", "u2 s-u2 sys2group"),
    "duration": ("utt2dur", "u1 0.1", "u1 0", "utt2dur:1", "u1 0"),
    "speaker of nothing": ("utt2spk", "u2", "u3", "utt2spk:2", "u3 wav.scp"),
    "blank line": ("text", "u2 some", "\nu2 some", "text:2", "''"),
}


def change(data: Path, fault: str) -> tuple[str, str]:
    """Make the fault; return where it is and the words that its message must have."""
    name, old, new, where, words = FAULTS[fault]
    text = (data / name).read_text()
    assert old in text
    (data / name).write_text(text.replace(old, new, 1))
    return f"{data}/{where}:", words


def named(faults: list[str], where: str, words: str) -> bool:
    """Whether one of the faults is of this file and line, and has all of the words after it."""
    return any(
        fault.startswith(where) and all(word in fault.removeprefix(where) for word in words.split()) for fault in faults
    )


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_named_with_its_line(data: Path, fault: str) -> None:
    assert validate_data_dir(data) == []
    where, words = change(data, fault)
    faults = validate_data_dir(data)
    assert named(faults, where, words), faults
    assert all("\n" not in line for line in faults)
    with pytest.raises(InputError, match=re.escape(where)):
        read_data_dir(data)


def test_faults_of_all_files_are_named_together(data: Path) -> None:
    made = [
        change(data, fault)
        for fault in ("rating out of range", "MOS that is no number", "command", "no system", "duration")
    ]
    wavs = (data / "wav.scp").read_text()
    (data / "wav.scp").write_text(wavs.replace("ü1 a.wav", "none.wav"))
    faults = validate_data_dir(data)
    assert all(named(faults, *fault) for fault in [*made, (f"{data}/wav.scp:3:", "none.wav")])
    (data / "utt2dur").unlink()
    assert any(fault.startswith(f"{data}/utt2dur:") for fault in validate_data_dir(data))


def test_an_empty_directory_is_not_valid(tmp_path: Path) -> None:
    assert [fault.partition(": ")[0] for fault in validate_data_dir(tmp_path / "none")] == [str(tmp_path / "none")]
    for name in ("wav.scp", "utt2sys", "utt2dur", "utt2mos"):
        (tmp_path / name).touch()
    assert [fault.partition(": ")[0] for fault in validate_data_dir(tmp_path)] == [str(tmp_path / "wav.scp")]


def bad_utterances(utterances: list[Utterance], tmp_path: Path) -> Iterator[Utterance]:
    yield from utterances
    yield utterances[0]
    yield Utterance("has space", utterances[0].audio, "s", mos=3.0)
    yield Utterance("missing", tmp_path / "none.wav", "s", mos=3.0)
    cut = recording(tmp_path / "cut.wav")
    cut.write_bytes(cut.read_bytes()[:1000])
    yield Utterance("cut", cut, "s", mos=3.0)


def test_writing_names_all_faults_and_leaves_the_old_directory(
    data: Path, utterances: list[Utterance], tmp_path: Path
) -> None:
    before = tree(data)
    with pytest.raises(InputError) as caught:
        write_data_dir(data, bad_utterances(utterances, tmp_path))
    for needle in ("'has space'", f"{data}: utterance u2 ", "none.wav: ", "cut.wav: "):
        assert needle in str(caught.value)
    assert tree(data) == before
    for bad in (
        Utterance("a", utterances[0].audio, "s", mos=5.5),
        Utterance("a", utterances[0].audio, "s", mos=3.0, ratings=(("L1", 1),)),
        Utterance("a", utterances[0].audio, "s", ratings=(("L1", 1), ("L1", 2))),
        Utterance("a", utterances[0].audio, "s t", mos=3.0),
        Utterance("a", utterances[0].audio, "s", mos=3.0, text="two\nlines"),
    ):
        with pytest.raises(InputError, match=re.escape(str(data))):
            write_data_dir(data, [bad])
        assert tree(data) == before
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["data"]


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_rating_that_is_no_number_is_named(data: Path, tmp_path: Path, score: float) -> None:
    before = tree(data)
    audio = recording(tmp_path / "a.wav")
    with pytest.raises(InputError, match=rf"a L2: .*{score}"):
        write_data_dir(data, [Utterance("a", audio, "s", ratings=(("L1", 3), ("L2", score)))])
    assert tree(data) == before


def test_a_file_name_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    audio = recording(tmp_path / "a.wav").rename(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav"))
    with pytest.raises(InputError, match=r"'a': .*caf"):
        write_data_dir(tmp_path / "data", [Utterance("a", audio, "s", mos=3.0)])
    with pytest.raises(InputError, match=r"caf\\udce9"):
        write_data_dir(tmp_path / "data", [Utterance(audio.stem, audio, "s", mos=3.0)])


def test_writing_replaces_an_older_directory_as_a_whole(data: Path, tmp_path: Path) -> None:
    write_data_dir(data, [Utterance("a", recording(tmp_path / "a.wav"), "s", mos=2.0)])
    assert sorted(tree(data)) == ["utt2dur", "utt2mos", "utt2sys", "wav.scp"]


def test_a_killed_writer_leaves_the_old_directory(data: Path, tmp_path: Path) -> None:
    before = tree(data)
    body = "import os, signal, sys\nfrom distilmos.data import datadir\n"
    body += "datadir.validate_data_dir = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
    body += "datadir.write_data_dir(sys.argv[1], [datadir.Utterance('a', sys.argv[2], 's', mos=3.0)])\n"
    command = [sys.executable, "-c", body, str(data), str(tmp_path / "u1 a.wav")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert tree(data) == before
