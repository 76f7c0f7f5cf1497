"""The files of a data directory: the guide lists them, and every command that copies sets keeps them all."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from distilmos.cli import main
from distilmos.data.dump import REWRITTEN
from distilmos.data.schema import FILES, TABLES

GUIDE = Path(__file__).resolve().parents[2] / "egs" / "README.md"
VALUES = {"utt2mos": "3.5", "sys2mos": "3.25"}  # others hold names


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A data directory of two utterances, each with a system of its own, that has every file."""
    data = tmp_path / "full"
    data.mkdir()
    for name in "ab":
        soundfile.write(tmp_path / f"{name}.wav", np.full(1600, 0.1), 16000)
    for name, table in TABLES.items():
        lines = []
        for utterance in "ab":
            key = f"{table.key}-{utterance}" if table.key != "utterance" else utterance
            value = {
                "wav.scp": str(tmp_path / f"{utterance}.wav"),
                "segments": f"recording-{utterance} 0 -1",
                "utt2dur": "0.1",
                "utt2sys": f"system-{utterance}",
                **VALUES,
            }.get(name, f"{name}-{utterance}")
            lines.append(f"{key} {value}\n")
        (data / name).write_text("".join(lines))
    (data / "ratings").write_text("a L1 3.0\na L2 4\nb L1 3.5\n")
    (data / "utt2fluency").write_text("b 7\n")
    (data / "scale").write_text("1 5 MOS\n0 10 fluency\n")
    (data / "votes").write_text("a mos 0.5 8\nb fluency 1.25 5\n")
    (data / "controls").write_text("L1 gold g.wav 5 4.0 6\nL3 trapping t 2 3 3\n")
    (data / "notes").write_text("The ratings are simulated.\n")
    assert main(["validate-data", str(data)]) == 0
    return data


def contents(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir() if path.is_file()}


def test_the_guide_lists_every_file() -> None:
    section = GUIDE.read_text().split("\n## Data directories\n")[1].split("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert sorted(re.findall(r"`([^`]+)`", "".join(cells))) == sorted(FILES)


def test_combining_and_splitting_keep_every_file_to_the_byte(full: Path, tmp_path: Path) -> None:
    before = contents(full)
    assert set(before) == {*FILES, "utt2fluency"}
    assert main(["combine-data", str(tmp_path / "joined"), str(full)]) == 0
    assert contents(tmp_path / "joined") == before
    assert main(["split-data", str(full), str(tmp_path / "parts"), "x=1", "y=1"]) == 0
    parts = [contents(tmp_path / "parts" / name) for name in "xy"]
    for name in TABLES:
        assert sorted("".join(part[name] for part in parts).splitlines()) == before[name].splitlines()


def test_stage_1_copies_every_file(full: Path, tmp_path: Path) -> None:
    for job in "12":
        assert main(["dump-audio", str(full), str(tmp_path / "raw"), "--job", job, "--jobs", "2"]) == 0
    copied = contents(tmp_path / "raw")
    assert copied == {name: text for name, text in contents(full).items() if name not in REWRITTEN}


def test_splitting_by_a_table_that_lacks_an_utterance_names_it(
    full: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (full / "utt2spk").write_text("a utt2spk-a\n")
    assert main(["split-data", str(full), str(tmp_path / "parts"), "x=1", "y=1", "--by", "speaker"]) == 2
    assert re.search(rf"{full}: b .*utt2spk", capsys.readouterr().err)
    assert not (tmp_path / "parts").exists()
