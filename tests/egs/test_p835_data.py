"""Stage 0 of egs/p835 on a generated corpus in its layout and on altered copies of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from helpers.corpora import write_p835
from helpers.recipes import EGS, link_recipe, run_script, says

from distilmos.cli import main
from distilmos.data.datadir import read_data_dir
from distilmos.data.schema import Scale
from distilmos.scoring.results import read_scored

openpyxl = pytest.importorskip("openpyxl")

SETS = {"wb": "16KHzWB-results per file", "fb": "Fullband-results per file"}
FOLDERS = {"wb": "degraded_WB_16KHz", "fb": "degraded_fullband_48KHz"}
TARGETS = ("ovrl", "sig", "bak")
ROOT = "p835_reference_conditions"
WORKBOOK = f"{ROOT}/CSP835_Ref_Conditions.xlsx"


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_p835(tmp_path_factory.mktemp("p835"))


@pytest.fixture
def corpus(generated: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(generated, tmp_path / "db"))


def prepare(root: Path, datadir: Path, *options: str, partial: bool = True) -> tuple[int, str]:
    """Run local/data.sh; return its exit status and its output."""
    allow = ("--allow_partial", "true") if partial else ()
    done = run_script(EGS / "p835" / "local" / "data.sh", "--db_root", root, "--datadir", datadir, *allow, *options)
    return done.returncode, done.stdout + done.stderr


def alter(corpus: Path, sheet: str, cells: dict[str, object]) -> None:
    book = openpyxl.load_workbook(corpus / WORKBOOK)
    for cell, value in cells.items():
        book[sheet][cell] = value
    book.save(corpus / WORKBOOK)


@pytest.mark.parametrize("target", TARGETS)
def test_values_are_those_of_the_workbook(generated: Path, tmp_path: Path, target: str) -> None:
    status, said = prepare(generated, tmp_path, "--target", target)
    assert status == 0, said
    book = openpyxl.load_workbook(generated / WORKBOOK)
    for bandwidth, sheet in SETS.items():
        data = read_data_dir(tmp_path / f"p835_{bandwidth}")
        heading, *rows = book[sheet].iter_rows(values_only=True)
        assert len(data.utterances) == len(rows) == 26
        assert data.scale == Scale(1, 5, target)
        for row in (dict(zip(heading, cells, strict=True)) for cells in rows):
            name = row["short_file_name"]
            utterance = f"{bandwidth}_{name.removesuffix('.wav')}"
            assert data.wavs[utterance][0] == generated / ROOT / FOLDERS[bandwidth] / name
            assert data.systems[utterance] == f"c{row['condition_num']:02d}"
            assert data.tables["utt2spk"][utterance] == name[-6:-4]
            assert data.mos[utterance] == row[f"MOS_{target.upper()}"]
            lines = {line.split()[0]: line.split()[1:] for line in data.vote_texts[utterance]}
            assert lines.keys() == {"mos", *TARGETS}
            for each in ("mos", *TARGETS):
                deviation = row[f"std_{target if each == 'mos' else each}"]
                assert (float(lines[each][0]), int(lines[each][1])) == (deviation, row["n votes"])
            for each in TARGETS:
                assert data.targets[each][utterance] == row[f"MOS_{each.upper()}"]


def test_groups_are_noise_and_mnru(generated: Path, tmp_path: Path) -> None:
    assert prepare(generated, tmp_path)[0] == 0
    groups = ["reference"] + 5 * ["mnru"] + 4 * ["noise"] + 3 * ["noise_mnru"]
    for bandwidth in SETS:
        data = read_data_dir(tmp_path / f"p835_{bandwidth}")
        assert data.groups == {f"c{number:02d}": group for number, group in enumerate(groups)}


def test_counts_are_the_published_ones(generated: Path, tmp_path: Path) -> None:
    status, said = prepare(generated, tmp_path / "data", partial=False)
    assert status == 2
    assert all(says(said, sheet, 26, 78) for sheet in SETS.values())
    assert "--allow_partial" in said
    assert not (tmp_path / "data").exists()


def test_missing_and_extra_recordings(corpus: Path, tmp_path: Path) -> None:
    missing = corpus / ROOT / FOLDERS["wb"] / "c1_f1.wav"
    extra = corpus / ROOT / FOLDERS["fb"] / "c1_m3.wav"
    shutil.copy(missing, extra)
    missing.unlink()
    status, said = prepare(corpus, tmp_path / "data", partial=False)
    assert status == 2
    assert says(said, f"{WORKBOOK}:{SETS['wb']}:3", missing)
    assert says(said, extra)
    assert prepare(corpus, tmp_path / "data")[0] == 0
    assert "wb_c1_f1" not in read_data_dir(tmp_path / "data" / "p835_wb").wavs
    assert "fb_c1_m3" not in read_data_dir(tmp_path / "data" / "p835_fb").wavs


def refuse(corpus: Path, tmp_path: Path, faults: list[tuple[object, ...]]) -> None:
    """Check that stage 0 refuses the corpus with a line for each fault that has all its values, and writes nothing."""
    status, said = prepare(corpus, tmp_path / "data")
    assert status == 2, said
    assert [values for values in faults if not says(said, *values)] == [], said
    assert "Traceback" not in said
    assert not (tmp_path / "data").exists()


def test_other_columns(corpus: Path, tmp_path: Path) -> None:
    alter(corpus, SETS["wb"], {"K1": "MOS"})
    alter(corpus, SETS["fb"], {"B1": "file", "D1": None})
    alter(corpus, "testplan", {"C1": "noise"})
    faults = [
        (f"{WORKBOOK}:{SETS['wb']}:1", "MOS_OVRL"),
        (f"{WORKBOOK}:{SETS['fb']}:1", "short_file_name", "n votes"),
        (f"{WORKBOOK}:testplan:1", "SNR (dB)"),
    ]
    refuse(corpus, tmp_path, faults)


def test_wrong_cells_are_named_together(corpus: Path, tmp_path: Path) -> None:
    cells: dict[str, tuple[object, tuple[object, ...]]] = {
        "K3": (5.5, ("MOS_OVRL", "'5.5'")),
        "H4": (0.9, ("MOS_SIG", "'0.9'")),
        "E5": ("good", ("MOS_BAK", "'good'")),
        "E6": (None, ("MOS_BAK",)),
        "F7": (-0.5, ("bak", "-0.5")),
        "D8": (0, ("ovrl", "0")),
        "D9": (7.5, ("ovrl", "7.5")),
        "B10": ("c1_f9.flac", ("'c1_f9.flac'",)),
        "B11": ("c99_f1.wav", ("'c99_f1.wav'",)),
        "B12": ("c0_f1.wav", ("fb_c0_f1", f"{SETS['fb']}:2")),
    }
    alter(corpus, SETS["fb"], {cell: value for cell, (value, _) in cells.items()})
    alter(corpus, SETS["wb"], {"K3": True})
    faults = [(f"{WORKBOOK}:{SETS['fb']}:{cell[1:]}", *values) for cell, (_, values) in cells.items()]
    refuse(corpus, tmp_path, [*faults, (f"{WORKBOOK}:{SETS['wb']}:3", "MOS_OVRL", "'True'")])


def test_a_workbook_without_a_sheet(corpus: Path, tmp_path: Path) -> None:
    book = openpyxl.load_workbook(corpus / WORKBOOK)
    book.remove(book[SETS["fb"]])
    book.save(corpus / WORKBOOK)
    status, said = prepare(corpus, tmp_path / "data")
    assert (status, says(said, corpus / WORKBOOK, SETS["fb"])) == (2, True)
    (corpus / WORKBOOK).write_bytes(b"not a workbook")
    status, said = prepare(corpus, tmp_path / "data")
    assert (status, says(said, corpus / WORKBOOK, SETS["fb"])) == (2, True)
    assert "Traceback" not in said


def test_a_wrong_root_says_where_the_data_come_from(tmp_path: Path) -> None:
    status, said = prepare(tmp_path, tmp_path / "data")
    assert status == 2
    assert says(said, tmp_path / WORKBOOK, "microsoft/P.808", "--db_root")


def test_another_target_is_refused(generated: Path, tmp_path: Path) -> None:
    status, said = prepare(generated, tmp_path / "data", "--target", "noise")
    assert (status, "'noise'" in said) == (2, True)
    assert not (tmp_path / "data").exists()


def test_the_default_model_is_scored_as_the_readme_says(generated: Path, tmp_path: Path) -> None:
    recipe = link_recipe("p835", tmp_path)
    done = run_script(
        recipe / "run.sh", "--db_root", generated, "--allow_partial", "true", "--target", "sig", "--nj", "1"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    raw, results = recipe / "dump" / "raw" / "p835_wb", tmp_path / "results"
    assert main(["predict", str(raw), "--out", str(results / "utt2mos")]) == 0
    assert main(["score", "--data", str(raw), "--results", str(results)]) == 0
    metrics = json.loads((results / "metrics.json").read_text())
    assert metrics["counts"] == {"utterances": 26, "systems": 13}
    assert {row.utterance: row.mos for row in read_scored(results)} == read_data_dir(raw).targets["sig"]
