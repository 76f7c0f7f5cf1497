"""`distilmos import-ratings`: each format becomes a data directory, and every fault is named."""

from __future__ import annotations

import base64
import csv
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from distilmos.cli import main
from distilmos.data.datadir import DataDir, read_data_dir
from distilmos.data.schema import Control, Scale


def sounds(directory: Path, names: Iterable[str]) -> Path:
    for name in names:
        path = directory / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.full(800, 0.1), 16000)
    return directory


def table(path: Path, rows: Sequence[Sequence[Any]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def run(tmp_path: Path, exports: Path | Sequence[Path], *options: object, audio: bool = True) -> int:
    files = [exports] if isinstance(exports, Path) else exports
    given = ["--audio", tmp_path / "wav"] if audio else []
    return main(["import-ratings", *map(str, (*files, "--out", tmp_path / "data", *given, *options))])


def imported(tmp_path: Path, exports: Path | Sequence[Path], *options: object, audio: bool = True) -> DataDir:
    assert run(tmp_path, exports, *options, audio=audio) == 0
    return read_data_dir(tmp_path / "data")


MUSHRA = ["session_test_id", "age", "session_uuid", "trial_id", "rating_stimulus", "rating_score", "rating_time"]
MUSHRA_ROWS = [
    [*MUSHRA, "rating_comment"],
    *(
        ["t", 30, f"p{p}", trial, name, score, 900, 'clear,\nbut "thin"']
        for p, scores in enumerate([(100, 20, 70), (95, 35, 50), (60, 95, 40)], 1)
        for trial in ("one", "two")
        for name, score in zip(("reference", "anchor70", "C1"), scores, strict=True)
    ),
]


@pytest.mark.parametrize("separator", ["/", "_", "-"])
def test_webmushra(separator: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sounds(tmp_path / "wav", [f"{trial}{separator}{name}" for trial in ("one", "two") for name in ("reference", "C1")])
    data = imported(tmp_path, table(tmp_path / "x.csv", MUSHRA_ROWS))
    names = [
        f"{trial}{'-' if separator == '/' else separator}{name}"
        for trial in ("one", "two")
        for name in ("C1", "reference")
    ]
    assert data.utterances == sorted(names)
    assert data.scale == Scale(0, 100, "MUSHRA")
    assert data.ratings[names[0]] == [("p1", 70), ("p2", 50), ("p3", 40)]
    assert data.mos[names[1]] == 85
    assert set(data.systems.values()) == {"C1", "reference"}
    assert [data.tables["utt2sent"][name] for name in names] == ["one", "one", "two", "two"]
    assert data.controls["p3"] == [
        control
        for trial in ("one", "two")
        for control in (
            Control("reference", f"{trial}/reference", 60, 90, 100),
            Control("anchor", f"{trial}/anchor70", 95, 0, 90),
        )
    ]
    assert [control.right for control in data.controls["p2"]] == [True] * 4
    # The browser made the anchors: they have no recording, and the report says so.
    report = (tmp_path / "data" / "report.txt").read_text()
    assert re.findall(r"x\.csv:(\d+): (\S+) has no recording", report) == [
        ("4", "one/anchor70"),
        ("10", "two/anchor70"),
    ]
    assert report.strip() in capsys.readouterr().out


def test_webmushra_of_older_versions_and_likert_pages(tmp_path: Path) -> None:
    sounds(tmp_path / "wav", ["one/C1", "one/C2"])
    old = [["session_test_id", "email", "age", *MUSHRA[3:]]]
    old += [["t", f"{name}@x.org", 30, "one", "C1", score, 1] for name, score in (("a", 10), ("b", 20.5))]
    data = imported(tmp_path, table(tmp_path / "x.csv", old))
    # An e-mail address does not get into the data directory.
    assert data.ratings == {"one-C1": [("listener1", 10), ("listener2", 20.5)]}
    likert = [["session_test_id", "name", "trial_id", "stimuli_rating1", "stimuli_rating2", "stimuli", "rating_time"]]
    likert += [
        ["t", "Jo Ann", "one", " 4 ", 2, "C1", 5],
        ["t", "Bo", "one", 2, 3, "C1", 5],
        ["t", "Bo", "one", 1, 5, "C2", 5],
    ]
    data = imported(tmp_path, table(tmp_path / "lss.csv", likert))
    assert data.ratings["one-C1"] == [("listener1", 4), ("Bo", 2)]
    likert.append(["t", "listener1", "one", 5, 3, "C2", 5])  # another one than Jo Ann
    assert imported(tmp_path, table(tmp_path / "lss.csv", likert)).ratings["one-C2"] == [("Bo", 1), ("listener2", 5)]
    assert "utt2sent" not in data.tables
    assert data.target("question2")[1] == {"one-C1": 2.5, "one-C2": 5}
    assert data.votes["one-C1"]["question2"] == (pytest.approx(0.5**0.5), 2)
    assert data.scale == Scale(1, 5, "MOS")


def test_a_trial_of_webmushra_needs_recordings_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sounds(tmp_path / "wav", ["C1", "one/C1", "reference"])
    assert run(tmp_path, table(tmp_path / "x.csv", MUSHRA_ROWS)) == 2
    assert re.findall(r"(\d+): no recording of (\S+)", capsys.readouterr().err) == [("12", "two/C1")]


def test_webmushra_with_its_configuration(tmp_path: Path) -> None:
    sounds(tmp_path / "wav", ["res/a", "res/ref", "res/low"])
    (tmp_path / "test.yaml").write_text(
        "testname: x\npages:\n  - type: generic\n    id: hello\n  -\n    - random\n    - type: mushra\n      id: one\n"
        "      reference: configs/res/ref.wav\n      stimuli: {C1: configs/res/a.wav, anchor70: configs/res/low.wav}\n"
    )
    rows = [row for row in MUSHRA_ROWS if "two" not in row]
    data = imported(tmp_path, table(tmp_path / "x.csv", rows), "--recordings", tmp_path / "test.yaml")
    assert dict(data.systems) == {"res-a": "C1", "res-low": "anchor70", "res-ref": "reference"}


def beaqle(path: Path, user: str, ratings: dict[str, Any], **change: Any) -> Path:
    files = {name: f"audio/{name}.wav" for name in ratings}
    test = {"TestID": "id1", "Runtime": 1200, "rating": ratings, "filename": files, **change}
    result = [test, {"TestID": "id2"}, {"UserName": user, "UserEmail": "a@b.c", "UserComment": ""}]
    path.write_text(json.dumps(result))
    return path


def test_beaqlejs(tmp_path: Path) -> None:
    sounds(tmp_path / "wav", ["Reference", "1", "2"])
    files = [
        beaqle(tmp_path / f"{n}.txt", user, {"Reference": ref, "1": one, "2": 7.5})
        for n, (user, ref, one) in enumerate([("ann", 100, 40), ("", 80, 60)])
    ]
    data = imported(tmp_path, files)
    assert data.ratings["1"] == [("ann", 40), ("1", 60)]  # without a name, the file gives it
    assert data.systems["Reference"] == "Reference"
    assert len(set(data.tables["utt2sent"].values())) == 1
    assert [control.right for controls in data.controls.values() for control in controls] == [False, True]


P808 = ["HITId", "WorkerId", "Input.tp", "Input.tp_ans", "Input.gold_clips", "Input.gold_clips_ans"]
P808 += [f"Answer.q{n}{end}" for n in range(1, 5) for end in ("", "_url")]
URL = "https://x.net/clips"
P808_ROWS = [
    P808,
    *(
        [
            *(
                "h",
                f"W{w}",
                f"{URL}/trap.wav",
                2,
                f"{URL}/gold.wav",
                5,
                a,
                f"{URL}/c1/a.wav?sig=%20",
                b,
                f"{URL}/c2/a.wav",
            ),
            *(trap, f"{URL}/trap.wav", gold, f"{URL}/gold.wav"),
        ]
        for w, (a, b, trap, gold) in enumerate([(4, 2, 2, 5), (5, 1, 2, 4), (3, 3, 3, 3)], 1)
    ),
]


def test_p808_answers(tmp_path: Path) -> None:
    sounds(tmp_path / "wav", ["c1/a", "c2/a", "other"])
    data = imported(tmp_path, table(tmp_path / "batch.csv", P808_ROWS))
    assert data.ratings == {"c1-a": [("W1", 4), ("W2", 5), ("W3", 3)], "c2-a": [("W1", 2), ("W2", 1), ("W3", 3)]}
    assert dict(data.systems) == {"c1-a": "c1", "c2-a": "c2"}
    assert data.controls["W2"] == [Control("trapping", "trap.wav", 2, 2, 2), Control("gold", "gold.wav", 4, 4, 6)]
    assert [control.right for control in data.controls["W3"]] == [False, False]


def test_p808_with_several_qualities_and_hidden_gold_answers(tmp_path: Path) -> None:
    sounds(tmp_path / "wav", ["c1/a"])
    gold = f"{URL}/gold.wav"
    answer = base64.b64encode(f"{gold}_4".encode()).decode()
    header = ["WorkerId", "Input.gold_url", "Input.gold_ovrl_ans"]
    header += [f"Answer.q{n}_{end}" for n in (1, 2) for end in ("sig", "bak", "ovrl", "url")]
    rows = [
        [worker, gold, answer, sig, 3, ovrl, f"{URL}/c1/a.wav", 5, 5, given, gold]
        for worker, sig, ovrl, given in (("A", 4, 3, 3), ("B", 2, 5, 2))
    ]
    rows.append(["C", gold, answer, *[""] * 8])
    data = imported(tmp_path, table(tmp_path / "batch.csv", [header, *rows]))
    assert data.ratings == {"c1-a": [("A", 3), ("B", 5)]}
    assert data.target("sig")[1] == {"c1-a": 3} and data.target("bak")[1] == {"c1-a": 3}
    assert data.votes["c1-a"]["sig"] == (pytest.approx(2**0.5), 2)
    assert {name: [control.right for control in given] for name, given in data.controls.items()} == {
        "A": [True],
        "B": [False],
    }
    assert re.search(r"batch\.csv:4: ", (tmp_path / "data" / "report.txt").read_text())


def test_p808_votes_and_clips(tmp_path: Path) -> None:
    sounds(tmp_path / "wav", ["c01_a", "c02_a"])
    votes = [["HITId", "workerid", "file", "short_file_name", "vote", "question_type"]]
    rated = (
        ("W1", "c01_a", 4, "OVRL"),
        ("W2", "c01_a", 3, "OVRL"),
        ("W1", "c02_a", 1, "OVRL"),
        ("W1", "c01_a", 5, "SIG"),
    )
    votes += [["h", w, f"{URL}/{clip}.wav", "", vote, f"MOS_{kind}"] for w, clip, vote, kind in rated]
    data = imported(tmp_path, table(tmp_path / "votes.csv", votes), "--system", r"c(\d+)_")
    assert data.ratings == {"c01_a": [("W1", 4), ("W2", 3)], "c02_a": [("W1", 1)]}
    assert set(data.systems.values()) == {"01", "02"}
    assert data.target("sig")[1] == {"c01_a": 5}
    clips = [["file_url", "n", "MOS", "std", "95%CI", "short_file_name", "vote_1", "vote_2"]]
    clips += [[f"{URL}/c01_a.wav", 2, 3.5, 0.7071, 0.98, "", 3, 4], [f"{URL}/c02_a.wav", 1, 2, "", "", "", 2, ""]]
    data = imported(tmp_path, table(tmp_path / "clips.csv", clips), "--system", r"c\d+")
    assert data.mos == {"c01_a": 3.5, "c02_a": 2} and not data.ratings
    assert data.votes == {"c01_a": {"mos": (0.7071, 2)}} and data.systems["c01_a"] == "c01"


def test_plain_lists(tmp_path: Path) -> None:
    sounds(tmp_path, ["a", "sub/b"])
    (tmp_path / "x.tsv").write_text("user\twav\tmos\tmodel\nu1\ta.wav\t7\tm1\nu1\tsub/b.wav\t0\tm2\nu1\ta.wav\t3\tm1\n")
    columns = ("--column", "listener=user", "--column", "file=wav", "--column", "score=mos", "--column", "system=model")
    data = imported(
        tmp_path, tmp_path / "x.tsv", *columns, "--scale", "0 10 fluency", "--notes", "A note.", audio=False
    )
    assert data.ratings == {"a": [("u1", 7)], "sub-b": [("u1", 0)]}
    assert (data.scale, data.notes, dict(data.systems)) == (
        Scale(0, 10, "fluency"),
        "A note.",
        {"a": "m1", "sub-b": "m2"},
    )
    # The first rating counts; the report names the other one.
    assert re.search(r"x\.tsv:4: a\.wav .*x\.tsv:2", (tmp_path / "data" / "report.txt").read_text())


def test_hidden_reference_of_a_plain_list(tmp_path: Path) -> None:
    sounds(tmp_path / "wav", ["ref/a", "ref/b", "low/a"])
    rows = [["listener", "file", "score"], ["u1", "ref/a.wav", 5], ["u1", "ref/b.wav", 4.5], ["u1", "low/a.wav", 5]]
    path = table(tmp_path / "x.csv", rows)
    data = imported(tmp_path, path, "--reference", "ref", "--anchor", "low")
    assert [(control.kind, control.right) for control in data.controls["u1"]] == [
        ("reference", True),
        ("reference", False),
        ("anchor", False),
    ]
    assert run(tmp_path, path, "--reference", "clean") == 2


def test_mos_bench_and_urgent(tmp_path: Path) -> None:
    sounds(tmp_path / "wav", ["a", "b"])
    header = ["wav_path", "score", "system_id", "sample_id", "listener_id"]
    rows = [["/db/a.wav", 4, "s1", "a", "L1"], ["/db/a.wav", 2, "s1", "a", "L2"], ["/db/b.wav", 5, "s2", "b", "L1"]]
    data = imported(tmp_path, table(tmp_path / "x.csv", [header, *rows]))
    assert data.ratings["a"] == [("L1", 4), ("L2", 2)] and data.systems["b"] == "s2"
    (tmp_path / "x.tsv").write_text("".join("\t".join(map(str, row)) + "\n" for row in [header, *rows]))
    assert imported(tmp_path, tmp_path / "x.tsv").ratings == data.ratings
    for score, more in (("score", ["listener_id"]), ("avg_score", [])):
        means = [["wav_path", score, "system_id", "sample_id", *more]]
        means += [[f"/db/{name}.wav", 1.5, "s1", name, *["" for _ in more]] for name in "ab"]
        data = imported(tmp_path, table(tmp_path / "x.csv", means))
        assert data.mos == {"a": 1.5, "b": 1.5} and not data.ratings
    lines = [
        {"audio_path": f"/db/{n}.wav", "system_id": "s", "sample_id": n, "metrics": {"mos": 2.5, "pesq": 1}}
        for n in "ab"
    ]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, lines)))
    data = imported(tmp_path, tmp_path / "x.jsonl")
    assert data.mos == {"a": 2.5, "b": 2.5} and not data.targets
    assert "pesq of 2 lines" in (tmp_path / "data" / "report.txt").read_text()


PLAIN = "listener,file,score,system\n"


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("x.csv", "who,what\n1,2\n", r"x\.csv:1: .*who,what"),
        ("x.csv", "", r"x\.csv:1: "),
        ("x.csv", PLAIN, r"x\.csv: "),
        ("x.csv", PLAIN + "u1,a.wav,6,s\n", r"x\.csv:2: .*'6'.*1 to 5"),
        ("x.csv", PLAIN + "u1,a.wav,x,s\n", r"x\.csv:2: .*'x'"),
        ("x.csv", PLAIN + "u1,a.wav,3,s\n,a.wav,3,s\n", r"x\.csv:3: no listener"),
        ("x.csv", PLAIN + "u1,a.wav,3,s\nu1,none.wav,3,s\n", r"x\.csv:3: .*none\.wav"),
        ("x.csv", PLAIN + "u1,a.wav,3,s\nu2,a.wav,3,t\n", r"x\.csv:3: a .*\bt\b.*x\.csv:2 .*\bs\b"),
        ("x.csv", PLAIN + "u1,two.wav,3,s\n", r"x\.csv:2: two\.wav .*p/two\.wav .*q/two\.wav"),
        ("x.csv", PLAIN + "u1,p/a.wav,3,s\nu1,q/a.wav,3,s\n", r"x\.csv:3: q/a\.wav .*p/a\.wav"),
        ("x.csv", PLAIN + "u1,a.wav,3,\n", r"x\.csv:2: .*a\.wav"),
        ("x.csv", PLAIN + 'u1,"a.wav,3,s\n', r"x\.csv:2: "),
        ("x.csv", "session_test_id,rating_stimulus\n", r"x\.csv:1: .*trial_id, rating_score"),
        ("x.csv", "session_test_id,trial_id,rating_stimulus,rating_score\nt,1,C1,5\n", r"x\.csv:2: .*participant"),
        ("x.csv", "WorkerId,Answer.q1_url,Answer.q1\nW1,a.wav,7\n", r"x\.csv:2: answer\.q1 '7'"),
        ("x.csv", "WorkerId,Answer.q1_url\nW1,a.wav\n", r"x\.csv:2: q1 "),
        ("x.txt", "[1]", r"x\.txt: 0"),
        ("x.txt", "[{}]", r"x\.txt: "),
        ("x.txt", '[{"TestID": "1", "rating": {"1": "5"}, "filename": {"1": "a.wav"}}]', r"x\.txt: test set 1: .*'5'"),
        (
            "x.txt",
            '[{}, {"TestID": "1", "rating": {"1": 101}, "filename": {"1": "a.wav"}}]',
            r"x\.txt: test set 2: .*101.*0 to 100",
        ),
        ("x.jsonl", '{"audio_path": "a.wav"}', r"x\.jsonl:1: .*audio_path"),
        ("x.jsonl", '{"audio_path": "a.wav", "metrics": {"mos": 0.5}}\n{', r"x\.jsonl:1: .*0\.5(?s:.*)x\.jsonl:2"),
    ],
)
def test_faults_are_named_and_nothing_is_written(
    name: str, text: str, fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sounds(tmp_path / "wav", ["a", "p/two", "q/two"])
    (tmp_path / name).write_text(text)
    assert run(tmp_path, tmp_path / name) == 2
    assert re.search(fault, capsys.readouterr().err)
    assert not (tmp_path / "data").exists()


def test_a_list_says_which_recording_is_meant(tmp_path: Path) -> None:
    sounds(tmp_path / "wav", ["p/two", "q/two"])
    (tmp_path / "x.csv").write_text(PLAIN + "u1,two.wav,3,s\nu2,deux.wav,4,s\n")
    (tmp_path / "which.csv").write_text("stimulus,file\ntwo.wav,q/two.wav\ndeux.wav,q/two.wav\n")
    data = imported(tmp_path, tmp_path / "x.csv", "--recordings", tmp_path / "which.csv")
    assert data.ratings == {"q-two": [("u1", 3), ("u2", 4)]}


def test_control_questions_stay_with_their_listeners(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sounds(tmp_path / "wav", ["c1/a", "c2/a"])
    data = imported(tmp_path, table(tmp_path / "batch.csv", P808_ROWS)).path
    assert main(["combine-data", str(tmp_path / "both"), f"x={data}"]) == 0
    assert read_data_dir(tmp_path / "both").controls["x-W2"] == read_data_dir(data).controls["W2"]
    lines = (data / "controls").read_text().splitlines()
    (data / "controls").write_text(
        "\n".join([lines[-1], "W9 gold x 1 5", "W1 quiz x 1 1 1", "W1 gold x 1 2 1", *lines[:-1]])
    )
    assert main(["validate-data", str(data)]) == 2
    faults = re.findall(r"controls:(\d+): ", capsys.readouterr().err)
    assert faults == ["2", "3", "4", "5"]
    assert main(["fix-data", str(data)]) == 0
    assert sorted((data / "controls").read_text().splitlines()) == sorted(lines)


def test_a_listed_path_is_no_other_recording_of_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A list names the file that listeners heard; a copy elsewhere may be another version."""
    sounds(tmp_path / "wav", ["audio/old/x"])
    places = table(tmp_path / "list.csv", [["stimulus", "file"], ["x", "audio/x.wav"]])
    export = table(tmp_path / "x.csv", [["listener", "file", "score", "system"], ["a", "x", 3, "s"]])
    assert run(tmp_path, export, "--recordings", places) == 2
    assert "audio/x.wav" in capsys.readouterr().err
    sounds(tmp_path / "wav", ["audio/x"])
    data = imported(tmp_path, export, "--recordings", places)
    assert list(data.tables["wav.scp"].values()) == [str(tmp_path / "wav" / "audio" / "x.wav")]


def test_nothing_but_a_data_directory_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recordings = sounds(tmp_path / "wav", ["x"])
    export = table(
        tmp_path / "x.csv", [["listener", "file", "score", "system"], ["a", "x", 3, "s"], ["b", "x", 2, "s"]]
    )
    words = ["import-ratings", str(export), "--audio", str(recordings)]
    assert main([*words, "--out", str(recordings)]) == 2
    assert str(recordings) in capsys.readouterr().err and (recordings / "x.wav").exists()
    data, kept = tmp_path / "data", tmp_path / "kept"
    assert main([*words, "--out", str(data)]) == main([*words, "--out", str(data)]) == 0
    kept.mkdir()
    (kept / "notes.txt").touch()
    assert main(["screen-ratings", str(data), str(kept), "--rules", "outlier"]) == 2
    assert main(["split-data", str(data), str(tmp_path), "kept=1"]) == 2
    assert (kept / "notes.txt").exists()


def test_the_pattern_of_systems_is_searched_below_the_directory(tmp_path: Path) -> None:
    directory = sounds(tmp_path / "sysZ_1", ["sysA_u1"])
    export = table(tmp_path / "x.csv", [["listener", "file", "score"], ["a", "sysA_u1", 3]])
    data = imported(tmp_path, export, "--audio", directory, "--system", "^(sys[A-Z])_", audio=False)
    assert set(data.systems.values()) == {"sysA"}


def test_rejected_assignments_are_left_out_and_renamed_listeners_are_listed(tmp_path: Path) -> None:
    sounds(tmp_path / "wav", ["s/a"])
    header = ["WorkerId", "AssignmentStatus", "Answer.q1_url", "Answer.q1"]
    rows = [["x@y.org", "Approved", "s/a.wav", 3], ["W2", "Rejected", "s/a.wav", 1]]
    data = imported(tmp_path, table(tmp_path / "x.csv", [header, *rows]))
    assert [pair for pairs in data.ratings.values() for pair in pairs] == [("listener1", 3)]
    report = (tmp_path / "data" / "report.txt").read_text().splitlines()
    assert [line for line in report if "x.csv:3" in line] and [line for line in report if "listener1" in line]
