"""combine-data, subset-data, split-data and fix-data, through the command line."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from distilmos.cli import main
from distilmos.data.datadir import Utterance, read_data_dir, validate_data_dir, write_data_dir
from distilmos.data.tables import read_floats, read_table, write_table


def make(directory: Path, prefix: str, count: int = 6, notes: str = "", rated: bool = True) -> Path:
    """Write a data directory of `count` utterances of three systems, a and b of a group each."""
    utterances = []
    for number in range(count):
        audio = directory.parent / f"{prefix}{number}.wav"
        soundfile.write(audio, np.full(800 + number, 0.1), 16000)
        utterances.append(
            Utterance(
                id=f"{prefix}{number}",
                audio=audio,
                system="abc"[number % 3],
                ratings=(("L1", 1 + number % 5), ("L2", 3)) if rated else (),
                speaker=f"s{number % 2}",
                sentence=f"t{number // 3}",
                group="xyz"[number % 3],
                condition="same" if number % 3 else None,
            )
        )
    write_data_dir(directory, utterances, notes)
    return directory


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return make(tmp_path / "one", "u", notes="The ratings are simulated.")


def contents(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir() if path.is_file()}


def test_combined_corpora_keep_their_names_apart(one: Path, tmp_path: Path) -> None:
    two = make(tmp_path / "two", "v", 4)
    out = tmp_path / "out"
    assert main(["combine-data", str(out), f"first={one}", f"second={two}"]) == 0
    data, left, right = read_data_dir(out), read_data_dir(one), read_data_dir(two)
    assert data.wavs == left.wavs | right.wavs
    assert data.mos == left.mos | right.mos
    assert data.durations == left.durations | right.durations
    assert data.systems["u0"] == "first-a"
    assert data.systems["v0"] == "second-a"
    assert data.ratings["v1"] == [("second-L1", 2.0), ("second-L2", 3.0)]
    assert (data.groups["first-b"], data.groups["second-b"]) == ("y", "y")
    assert data.conditions["u0"] == "first-a"
    assert data.conditions["u1"] == data.conditions["u2"] == "first-same" != data.conditions["v1"]
    assert data.notes == "The ratings are simulated."
    assert read_table(out / "utt2corpus") == {u: {"u": "first", "v": "second"}[u[0]] for u in data.wavs}
    assert read_table(out / "utt2sent")["v3"] == "second-t1"


def test_parts_of_one_corpus_are_put_together_again(one: Path, tmp_path: Path) -> None:
    assert main(["split-data", str(one), str(tmp_path / "parts"), "x=1", "y=2"]) == 0
    parts = [str(tmp_path / "parts" / name) for name in "xy"]
    assert [len(read_data_dir(part).wavs) for part in parts] == [2, 4]
    assert main(["combine-data", str(tmp_path / "out"), *parts]) == 0
    assert contents(tmp_path / "out") == contents(one)


def test_true_scores_of_systems_stay(one: Path, tmp_path: Path) -> None:
    """Unless a system of the utterances has none; further systems do not matter."""
    (one / "sys2mos").write_text("a 1.5\nb 2\nc 3\nz 4\n")
    assert main(["combine-data", str(tmp_path / "all"), str(one)]) == 0
    assert read_table(tmp_path / "all" / "sys2mos").items() >= {"a": "1.5", "b": "2", "c": "3"}.items()
    other = make(tmp_path / "x=1", "v")
    assert main(["combine-data", str(tmp_path / "both"), f"one={one}", f"other={other}"]) == 0
    assert not (tmp_path / "both" / "sys2mos").exists()


def test_what_cannot_be_combined(one: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unrated = make(tmp_path / "unrated", "w", rated=False)
    assert main(["combine-data", str(tmp_path / "out"), str(one), str(unrated), f"again={one}"]) == 2
    said = capsys.readouterr().err
    assert re.search(rf"^ *{unrated}: .*utt2mos", said, re.M)
    assert not (tmp_path / "out").exists()
    other = make(tmp_path / "other", "o")
    shutil.copy(one / "wav.scp", other / "wav.scp")
    assert main(["combine-data", str(tmp_path / "out"), str(one), str(other)]) == 2
    assert f"{other / 'wav.scp'}:1: u0 " in capsys.readouterr().err
    copy = Path(shutil.copytree(one, tmp_path / "copy"))
    (copy / "sys2group").write_text("a x\nb other\nc z\n")
    assert main(["combine-data", str(tmp_path / "out"), str(one), str(copy)]) == 2
    said = capsys.readouterr().err
    assert re.search(rf"^ *{copy}: .*u5 .*{one}", said, re.M)
    assert re.search(rf"^ *{copy}/sys2group: b .*other.* y", said, re.M)


def test_subsets(one: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = tmp_path / "list"
    wanted.write_text("c\n\na\n")
    assert main(["subset-data", str(one), str(tmp_path / "sys"), "--sys-list", str(wanted)]) == 0
    data = read_data_dir(tmp_path / "sys")
    assert set(data.systems.values()) == set(data.groups) == {"a", "c"}
    assert data.ratings == {u: r for u, r in read_data_dir(one).ratings.items() if u in data.wavs}
    wanted.write_text("u5\nu0\n")
    assert main(["subset-data", str(one), str(tmp_path / "utt"), "--utt-list", str(wanted)]) == 0
    assert read_data_dir(tmp_path / "utt").utterances == ["u0", "u5"]
    for name in ("d1", "d2"):
        assert main(["subset-data", str(one), str(tmp_path / name), "--count", "3"]) == 0
    assert contents(tmp_path / "d1") == contents(tmp_path / "d2")
    assert len(read_data_dir(tmp_path / "d1").wavs) == 3
    capsys.readouterr()
    wanted.write_text("u5\nnobody\n")
    assert main(["subset-data", str(one), str(tmp_path / "no"), "--utt-list", str(wanted)]) == 2
    assert main(["subset-data", str(one), str(tmp_path / "no"), "--count", "7"]) == 2
    said = capsys.readouterr().err
    assert f"{wanted}:2: nobody " in said
    assert re.search(r"\b6\b.*\b7\b", said)
    assert not (tmp_path / "no").exists()


def test_a_part_never_replaces_its_source(one: Path, tmp_path: Path) -> None:
    before = contents(one)
    assert main(["subset-data", str(one), str(one), "--count", "3"]) == 2
    assert main(["split-data", str(one), str(tmp_path), "one=0.6", "dev=0.4"]) == 2
    assert contents(one) == before
    assert not (tmp_path / "dev").exists()


@pytest.mark.parametrize(("by", "table"), [("system", "utt2sys"), ("speaker", "utt2spk"), ("sentence", "utt2sent")])
def test_parts_share_nothing(one: Path, tmp_path: Path, by: str, table: str) -> None:
    assert main(["split-data", str(one), str(tmp_path / "parts"), "train=0.6", "dev=0.4", "--by", by]) == 0
    parts = [tmp_path / "parts" / name for name in ("train", "dev")]
    values = [set(read_table(part / table).values()) for part in parts]
    assert values[0]
    assert values[1]
    assert not values[0] & values[1]
    assert sum(len(read_data_dir(part).wavs) for part in parts) == 6


def test_a_part_that_would_be_empty(one: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["split-data", str(one), str(tmp_path / "parts"), "a=1", "b=1", "c=1", "--by", "speaker"]
    assert main(command) == 2
    assert f"{tmp_path / 'parts' / 'c'}: " in capsys.readouterr().err
    assert not (tmp_path / "parts").exists()


def test_fixing(one: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(one)
    assert main(["fix-data", str(one)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert contents(one) == before

    (one.parent / "u1.wav").write_bytes(b"")
    (one.parent / "u2.wav").unlink()
    lines = before["utt2mos"].splitlines()
    (one / "utt2mos").write_text("\n".join([lines[3] + "x", *reversed(lines[:3]), lines[0], lines[5], "stray 3"]))
    (one / "ratings").write_text("u0 L1 1\nu0 L2 3\nu0 L1 2\nu0 L3 9\nu9 L1 3\n")
    (one / "utt2dur").unlink()
    (one / "card.md").write_text("kept")
    assert main(["fix-data", str(one)]) == 0
    said = capsys.readouterr().out
    assert validate_data_dir(one) == []
    assert read_data_dir(one).utterances == ["u0", "u5"]
    assert (one / "card.md").read_text() == "kept"
    assert (one / ".backup" / "wav.scp").read_text() == before["wav.scp"]
    for pattern in (
        r"utt2mos:1: u3\b",
        r"ratings: u9 ",
        r"utt2mos:5: u0 .*\b4\b",
        r"ratings:3: u0 .*\bL1\b",
        r"ratings:4: 'u0 L3 9'",
        r"wav.scp: u1 .*u1.wav: ",
        r"wav.scp: u2 .*u2.wav: ",
        r"wav.scp: u4 .*utt2mos",
        r"utt2mos: stray ",
        r"utt2dur: u0 ",
    ):
        assert re.search(rf"^{one}/{pattern}", said, re.M), pattern
    # Once more, nothing is left to do.
    assert main(["fix-data", str(one)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_score_follows_the_ratings_that_are_left(one: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_table(one / "utt2mos", read_floats(one / "utt2mos") | {"u0": 3.0})
    (one / "ratings").write_text("u0 L1 1\nu0 L2 44\nu0 L3 4\nu0 L4 4\n")
    assert main(["fix-data", str(one)]) == 0
    assert f"{one}/utt2mos: u0" not in capsys.readouterr().out  # it is the mean of 1, 4 and 4
    (one / "ratings").write_text("u0 L1 1\nu0 L2 44\nu0 L3 4\n")
    assert main(["fix-data", str(one)]) == 0
    assert re.search(rf"^{one}/utt2mos: u0\b.* 2\.5\b.* 3\.0$", capsys.readouterr().out, re.M)
    assert read_floats(one / "utt2mos")["u0"] == 2.5
    (one / "ratings").write_text("u0 L1 4\nu0 L1 4\nu0 L2 2\n")  # a repetition of the same score
    assert main(["fix-data", str(one)]) == 0
    assert re.search(rf"^{one}/ratings:2: u0 .*\bL1\b", capsys.readouterr().out, re.M)
    assert read_floats(one / "utt2mos")["u0"] == 3


def test_scores_come_from_ratings_and_every_backup_stays(one: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(one)
    (one / "ratings").write_text("".join(f"u{n} L1 {1 + n % 5}\nu{n} L2 3\n" for n in range(6)))
    (one / "utt2mos").unlink()
    assert main(["fix-data", str(one)]) == 0
    assert f"{one}/utt2mos: " in capsys.readouterr().out
    assert read_floats(one / "utt2mos") == {f"u{n}": (4 + n % 5) / 2 for n in range(6)}
    (one / "utt2sys").write_text("\n".join(before["utt2sys"].splitlines()[1:]) + "\n")
    assert main(["fix-data", str(one)]) == 0
    assert (one / ".backup" / "utt2sys").read_text() == before["utt2sys"]
    assert (one / ".backup.2" / "utt2sys").read_text() != before["utt2sys"]


def test_nothing_is_overwritten_by_mistake(one: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The directory to write comes first: forgotten, the first source would be it."""
    before = contents(one)
    shutil.copytree(one, tmp_path / "other")
    assert main(["combine-data", str(one), str(tmp_path / "other")]) == 2
    assert f"{one}: " in capsys.readouterr().err
    assert contents(one) == before
    assert main(["combine-data", "--overwrite", str(tmp_path / "other"), str(one)]) == 0
    (tmp_path / "speech").mkdir()
    (tmp_path / "speech" / "a.wav").touch()
    assert main(["combine-data", "--overwrite", str(tmp_path / "speech"), str(one)]) == 2
    assert f"{tmp_path / 'speech'}: " in capsys.readouterr().err
    assert (tmp_path / "speech" / "a.wav").exists()
    assert main(["split-data", str(one), str(tmp_path / "parts"), "a=1", "a=2"]) == 2
    assert "a a" in capsys.readouterr().err
    assert not (tmp_path / "parts").exists()
    assert main(["split-data", str(one), str(tmp_path / "parts"), "a=1", "b=1"]) == 0
    assert f"warning: {tmp_path / 'parts' / 'a'}: " in capsys.readouterr().out


def test_what_cannot_be_fixed_stays(one: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(6):
        (one.parent / f"u{number}.wav").unlink()
    before = contents(one)
    assert main(["fix-data", str(one)]) == 2
    assert re.search(rf"{one}: .*u0\.wav", capsys.readouterr().err)
    assert contents(one) == before
    assert not (one / ".backup").exists()
