"""Stage 0 of egs/tcdvoip on a stand-in for the release and on altered copies of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.recipes import EGS, run_script
from helpers.tcdvoip import SHEET, WORKBOOK, write_tcdvoip

from distilmos.data.datadir import DataDir, read_data_dir

openpyxl = pytest.importorskip("openpyxl")

RECIPE = EGS / "tcdvoip"
SETS = ("train", "dev", "test")
TYPES = ("echo", "chop", "clip", "compspkr", "noise")


def prepare(*options: str | Path) -> subprocess.CompletedProcess[str]:
    return run_script(RECIPE / "local" / "data.sh", *options)


def read_sets(datadir: Path) -> dict[str, DataDir]:
    return {name: read_data_dir(datadir / name) for name in SETS}


def mismatches_of(report: str) -> dict[str, str]:
    """Return place -> finding of each mismatch that the report lists at its end."""
    number, _, lines = report.rpartition("audio: ")[2].partition("\n")
    found = dict(line.strip().split(": ", 1) for line in lines.splitlines())
    assert len(found) == int(number)
    return found


def kind(utterance: str) -> str:
    return utterance.split("_")[2].lower()


@pytest.fixture(scope="module")
def tcdvoip_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in for the release."""
    return write_tcdvoip(tmp_path_factory.mktemp("tcdvoip"))


def files_and_conditions(root: Path) -> tuple[list[str], list[tuple[object, ...]]]:
    """Return the audio files, and the title, the name and the ConditionID of each row of the workbook."""
    audio = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.wav"))
    sheet = openpyxl.load_workbook(root / WORKBOOK, read_only=True, data_only=True)[SHEET]
    heading, *rows = sheet.iter_rows(values_only=True)
    return audio, [heading, *(row[:2] for row in rows)]


def test_the_stand_in_is_like_the_release(tcdvoip_root: Path, tcdvoip_release: Path, tmp_path: Path) -> None:
    assert files_and_conditions(tcdvoip_root) == files_and_conditions(tcdvoip_release)
    reports = []
    for name, root in (("stand-in", tcdvoip_root), ("release", tcdvoip_release)):
        done = prepare("--db_root", root, "--datadir", tmp_path / name)
        assert done.returncode == 0, done.stderr
        reports.append(done.stdout.partition("\nMismatches ")[2])
    assert reports[0] == reports[1]


@pytest.fixture
def release(tcdvoip_root: Path, tmp_path: Path) -> Path:
    """A copy of the release with a workbook and links to the audio that a test may alter."""
    copy = tmp_path / "tcdvoip"
    shutil.copytree(tcdvoip_root / "Test Set", copy / "Test Set", copy_function=os.symlink)
    for directory in (copy / "Test Set", *(copy / "Test Set").iterdir()):
        directory.chmod(0o755)
    shutil.copyfile(tcdvoip_root / WORKBOOK, copy / WORKBOOK)
    return copy


def alter(release: Path, cells: dict[str, object]) -> None:
    book = openpyxl.load_workbook(release / WORKBOOK)
    for cell, value in cells.items():
        book[SHEET][cell] = value
    book.save(release / WORKBOOK)


def test_split_by_conditions(tcdvoip_root: Path, tmp_path: Path) -> None:
    done = prepare("--db_root", tcdvoip_root, "--datadir", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    sets = read_sets(tmp_path)
    assert sum(len(data.wavs) for data in sets.values()) == 384
    systems = {name: set(data.systems.values()) for name, data in sets.items()}
    assert sum(map(len, systems.values())) == len(set.union(*systems.values())) == 96
    for data in sets.values():
        assert {kind(utterance) for utterance in data.wavs} == set(TYPES)
        assert min(data.mos.values()) < 2 < 4 < max(data.mos.values())
        assert all(len(scores) == 24 for scores in data.ratings.values())
    # All copies of a repeated condition are in one set: undegraded in train, MNRU levels in any.
    references = [list(data.groups.values()).count("reference") for data in sets.values()]
    assert dict(zip(sets, references, strict=True)) == {"train": 5, "dev": 0, "test": 0}
    conditions = {s: c for data in sets.values() for s, c in data.tables["sys2cond"].items()}
    assert len(conditions) == 96 and len(set(conditions.values())) == 80
    for files in ("C_21_NOISE C_21_CHOP C_11_CLIP C_11_COMPSPKR", "C_24_NOISE C_24_CHOP C_14_CLIP C_14_COMPSPKR"):
        assert sum(bool(systems[name] & set(files.split())) for name in SETS) == 1
        assert len({conditions[system] for system in files.split()}) == 1


def test_values_are_those_of_the_workbook(tcdvoip_root: Path, tmp_path: Path) -> None:
    assert prepare("--db_root", tcdvoip_root, "--datadir", tmp_path).returncode == 0
    sets = read_sets(tmp_path)
    sheet = openpyxl.load_workbook(tcdvoip_root / WORKBOOK, read_only=True, data_only=True)[SHEET]
    for name, _, mean, _, *scores in list(sheet.iter_rows(values_only=True))[1:]:
        utterance = name.removesuffix(".wav")
        data = next(data for data in sets.values() if utterance in data.wavs)
        assert data.mos[utterance] == pytest.approx(mean)
        assert data.ratings[utterance] == [(f"L{n:02d}", score) for n, score in enumerate(scores, start=1)]
        assert data.wavs[utterance][0].name == name
        assert data.systems[utterance] == utterance[:-3]


def test_the_seed_alone_decides_the_split(tcdvoip_root: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert prepare("--db_root", tcdvoip_root, "--datadir", tmp_path / name, "--seed", str(seed)).returncode == 0
    a, b, c = (
        {p.relative_to(tmp_path / n): p.read_bytes() for p in sorted((tmp_path / n).rglob("*")) if p.is_file()}
        for n in "abc"
    )
    assert a == b
    assert a[Path("test/wav.scp")] != c[Path("test/wav.scp")]


@pytest.mark.parametrize(("folds", "options"), [(4, ()), (5, ("--split", "leave_type_out", "--held_out", "chop"))])
def test_the_dev_folds_share_what_is_not_test(tcdvoip_root: Path, tmp_path: Path, folds: int, options: tuple) -> None:
    splits = []
    for fold in range(1, folds + 1):
        done = prepare("--db_root", tcdvoip_root, "--datadir", tmp_path / str(fold), "--dev_fold", str(fold), *options)
        assert done.returncode == 0, done.stderr
        splits.append(read_sets(tmp_path / str(fold)))
    assert all(split["test"].systems == splits[0]["test"].systems for split in splits)
    dealt = [set(split["dev"].systems.values()) for split in splits]
    rest = set(splits[0]["train"].systems.values()) | dealt[0]
    references = {system for system, group in splits[0]["train"].groups.items() if group == "reference"}
    assert set.union(*dealt) == rest - references
    assert sum(map(len, dealt)) == len(set.union(*dealt))
    assert min(map(len, dealt)) > 0.4 * max(map(len, dealt))
    done = prepare("--db_root", tcdvoip_root, "--datadir", tmp_path / "x", "--dev_fold", str(folds + 1), *options)
    assert done.returncode == 2 and "--dev_fold" in done.stderr and f"1..{folds} " in done.stderr


@pytest.mark.parametrize("held_out", TYPES)
def test_leave_type_out(tcdvoip_root: Path, tmp_path: Path, held_out: str) -> None:
    options = ("--split", "leave_type_out", "--held_out", held_out)
    assert prepare("--db_root", tcdvoip_root, "--datadir", tmp_path, *options).returncode == 0
    sets = read_sets(tmp_path)
    assert {kind(utterance) for utterance in sets["test"].wavs} == {held_out}
    for name in ("train", "dev"):
        assert {kind(utterance) for utterance in sets[name].wavs} == set(TYPES) - {held_out}
    assert not set(sets["train"].systems.values()) & set(sets["dev"].systems.values())
    assert sum(len(data.wavs) for data in sets.values()) == 384


def test_report_names_the_mismatches_of_the_release(tcdvoip_root: Path, tmp_path: Path) -> None:
    done = prepare("--db_root", tcdvoip_root, "--datadir", tmp_path)
    report = (tmp_path / "report.txt").read_text()
    assert done.stdout == report
    mismatches = mismatches_of(report)
    unrated = [where for where in mismatches if where.endswith(".wav")]
    assert len(unrated) == 16 and all(where.startswith("Test Set/echo/C_2") for where in unrated)
    numbers = {where: found for where, found in mismatches.items() if where not in unrated}
    assert sorted(numbers) == [f"C_{n}_{kind}" for n in (11, 12, 13, 14) for kind in ("CLIP", "COMPSPKR")]
    assert {"21", "mnru_q48"} <= set(re.findall(r"\w+", numbers["C_11_CLIP"]))


def test_other_mismatches_are_reported(release: Path, tmp_path: Path) -> None:
    alter(release, {"C2": 1.5})
    shutil.copyfile(release / "Test Set/echo/C_01_ECHO_FA.wav", release / "Test Set/echo/C_99_ECHO_FA.wav")
    done = prepare("--db_root", release, "--datadir", tmp_path / "data")
    assert done.returncode == 0
    mismatches = mismatches_of(done.stdout)
    assert mismatches["row 2"].startswith("C_01_ECHO_FA.wav: ")
    assert {"1.5", "4.5833"} <= set(re.findall(r"\d\.\d+", mismatches["row 2"]))
    assert "Test Set/echo/C_99_ECHO_FA.wav" in mismatches


def test_all_errors_are_named_together_and_nothing_is_written(release: Path, tmp_path: Path) -> None:
    alter(release, {"K17": "x", "L17": 6, "F20": None, "A30": "C_07_ECHO_FA.wav", "B40": 3, "A50": "noise.wav"})
    (release / "Test Set/noise/C_02_NOISE_FG.wav").unlink()
    empty = release / "Test Set/chop/C_02_CHOP_FG.wav"
    empty.unlink()
    empty.touch()
    done = prepare("--db_root", release, "--datadir", tmp_path / "data")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    faults = done.stderr.splitlines()[1:]
    wanted = [
        ("cell K17", "'x'"),
        ("cell L17", ": 6 "),
        ("cell F20", "None"),
        ("cell A30", "C_07_ECHO_FA.wav"),
        ("cell B30", "C_07_ECHO_FA.wav: 8 "),
        ("cell B40", "C_10_ECHO_MK.wav: 3 "),
        ("cell A50", "'noise.wav'"),
        ("row 87", "chop/C_02_CHOP_FG.wav"),
        ("row 295", "noise/C_02_NOISE_FG.wav"),
    ]
    for fault, (place, value) in zip(faults, wanted, strict=True):
        assert fault.startswith(f"  {release / WORKBOOK}: sheet '{SHEET}': {place}: ") and value in fault
    assert not (tmp_path / "data").exists()


def test_wrong_db_root_says_where_the_data_come_from(tmp_path: Path) -> None:
    done = prepare("--db_root", tmp_path, "--datadir", tmp_path / "data")
    assert done.returncode == 2
    for needle in (str(tmp_path / WORKBOOK), "Sigmedia", "QoMEX 2015", "downloads/tcdvoip", "--db_root"):
        assert needle in done.stderr
    (tmp_path / "Test Set").mkdir()
    (tmp_path / WORKBOOK).write_text("not a workbook")
    done = prepare("--db_root", tmp_path, "--datadir", tmp_path / "data")
    assert done.returncode == 2
    assert f"{tmp_path / WORKBOOK}: " in done.stderr and f"'{SHEET}'" in done.stderr
    assert "Traceback" not in done.stderr


def test_held_out_needs_its_protocol(tmp_path: Path) -> None:
    for options in (("--split", "leave_type_out"), ("--held_out", "echo")):
        done = prepare("--datadir", tmp_path / "data", *options)
        assert done.returncode == 2
        assert "--held_out" in done.stderr
