"""The files `scale` and `votes`, and tables of further targets."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from distilmos.cli import main
from distilmos.data.datadir import Utterance, read_data_dir, write_data_dir
from distilmos.data.schema import Scale
from distilmos.errors import InputError


@pytest.fixture
def fluency(tmp_path: Path) -> Path:
    """Four utterances rated for fluency from 0 to 10 and, three of them, for accuracy from 0 to 5."""
    soundfile.write(tmp_path / "x.wav", np.full(1600, 0.1), 16000)
    utterances = [
        Utterance(
            f"u{n}",
            tmp_path / "x.wav",
            f"s{n}",
            ratings=(("L1", 2 * n), ("L2", 2 * n + 1)),
            targets={"accuracy": n} if n else {},
            votes={"mos": (0.5, 2), "accuracy": (1.25, 8)} if n else {},
        )
        for n in range(4)
    ]
    write_data_dir(tmp_path / "f", utterances, scales=[Scale(0, 10, "fluency"), Scale(0, 5, "accuracy")])
    return tmp_path / "f"


def test_a_data_directory_keeps_scales_targets_and_votes(fluency: Path) -> None:
    data = read_data_dir(fluency)
    assert (fluency / "scale").read_text() == "0 10 fluency\n0 5 accuracy\n"
    assert (data.scale, data.mos["u3"]) == (Scale(0, 10, "fluency"), 6.5)
    assert data.target("accuracy") == (Scale(0, 5, "accuracy"), {"u1": 1, "u2": 2, "u3": 3})
    assert data.votes["u2"] == {"mos": (0.5, 2), "accuracy": (1.25, 8)}
    with pytest.raises(InputError, match="prosodic"):
        data.target("prosodic")


def test_votes_may_be_separated_by_tabs(fluency: Path) -> None:
    before = read_data_dir(fluency).votes
    (fluency / "votes").write_text((fluency / "votes").read_text().replace(" ", "\t", 1))
    assert read_data_dir(fluency).votes == before


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("scale", "0 10\n", "scale:1: .*0 10"),
        ("scale", "10 0 fluency\n0 5 accuracy\n", "scale:1: .*10 to 0"),
        ("scale", "0 inf fluency\n", "scale:1: .*inf"),
        ("scale", "0 10 fluency\n0 5 prosodic\n", "scale:2: .*utt2prosodic"),
        ("scale", "0 10 fluency\n0 5 accuracy\n0 5 accuracy\n", "scale:3: accuracy"),
        ("scale", "", "scale: empty"),
        ("scale", "0 6 fluency\n", r"utt2mos:4: u3.* 6\.5 .*0 to 6"),
        ("scale", "0 6 fluency\n", r"ratings:8: u3 L2: 7 .*0 to 6"),
        ("utt2accuracy", "u1 1\nu2 6\n", r"utt2accuracy:2: u2.*0 to 5"),
        ("utt2accuracy", "u1 x\n", "utt2accuracy:1: u1"),
        ("utt2accuracy", "u1 1\nu9 1\n", "utt2accuracy:2: u9"),
        ("votes", "u1 mos 0.5\n", "votes:1: .*mos 0.5"),
        ("votes", "u1 mos -1 3\n", "votes:1: .*-1"),
        ("votes", "u1 mos 1 0\n", "votes:1: .*1 0"),
        ("votes", "u1 mos 1 2\nu1 mos 1 2\n", "votes:2: u1 mos"),
        ("votes", f"u1 mos 1 {'9' * 5000}\n", "votes:1: "),
        ("votes", "u1 sys 1 2\n", "votes:1: sys"),
        ("scale", "0 10 fluency\n0 5 accuracy\n0 9 sys\n", "scale:3: sys"),
        ("votes", "u2 mos 1 2\nu1 mos 1 2\n", "votes:2: u1"),
        ("votes", "u9 mos 1 2\n", "votes:1: u9"),
        ("votes", "u1 prosodic 1 2\n", "votes:1: prosodic"),
    ],
)
def test_faults_are_named_with_file_and_line(name: str, text: str, fault: str, fluency: Path, capsys) -> None:
    (fluency / name).write_text(text)
    assert main(["validate-data", str(fluency)]) == 2
    assert re.search(fault, capsys.readouterr().err)


def test_joined_corpora_with_different_scales_are_mapped_to_1_to_5(fluency: Path, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    write_data_dir(tmp_path / "m", [Utterance("v", tmp_path / "x.wav", "s", 3.0, targets={"accuracy": 4})])
    for out, order in (("fm", ("f", "m")), ("mf", ("m", "f"))):
        assert main(["combine-data", str(tmp_path / out), *(f"{name}={tmp_path / name}" for name in order)]) == 0
        joined = read_data_dir(tmp_path / out)
        assert (joined.scale, joined.mos["v"], joined.mos["u3"]) == (Scale(1, 5, "MOS"), 3.0, 1 + 6.5 * 0.4)
        assert joined.ratings["u3"] == [("f-L1", pytest.approx(3.4)), ("f-L2", pytest.approx(3.8))]
        assert joined.targets["accuracy"] == {"u1": 1.8, "u2": 2.6, "u3": pytest.approx(3.4), "v": 4.0}
        assert joined.votes["u1"] == {"mos": (pytest.approx(0.2), 2), "accuracy": (1.0, 8)}


def test_a_part_without_a_target_does_not_state_its_scale(fluency: Path, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("u0\n")
    assert main(["subset-data", str(fluency), str(tmp_path / "part"), "--utt-list", str(tmp_path / "list")]) == 0
    assert (tmp_path / "part" / "scale").read_text() == "0 10 fluency\n"
    assert not (tmp_path / "part" / "utt2accuracy").exists()


def test_repair_keeps_the_scale_and_drops_scores_outside_it(fluency: Path) -> None:
    (fluency / "utt2accuracy").write_text("u1 6\nu2 2\n")
    (fluency / "votes").write_text("u3 mos 0.5 2\nu1 accuracy 0.5 2\nu9 accuracy 0.5 2\n")
    (fluency / "utt2mos").unlink()
    assert main(["fix-data", str(fluency)]) == 0
    data = read_data_dir(fluency)
    assert data.targets == {"accuracy": {"u2": 2.0}}
    assert (data.scale.highest, list(data.votes)) == (10, ["u1", "u3"])


def test_kaldi_tables_are_not_targets(fluency: Path) -> None:
    (fluency / "utt2num_frames").write_text("u0 98\n")
    (fluency / "utt2lang").write_text("u0 en\n")
    (fluency / "utt2num_samples").write_text("u0 16000\n")
    assert main(["validate-data", str(fluency)]) == 0
