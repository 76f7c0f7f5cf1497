"""egs/mos_bench and the out-of-domain track of egs/bvcc, on generated corpora in their layouts."""

from __future__ import annotations

import csv
import json
import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from helpers.corpora import Design, write_bvcc_ood, write_mos_bench
from helpers.fileserver import serve
from helpers.recipes import EGS, run_script, says

from distilmos.data.datadir import DataDir, read_data_dir
from distilmos.data.tables import read_floats

OWN = ("bc23a", "bc23b", "svcc23", "singmos", "brspeechmos", "tmhint_qi", "tmhint_qi_s", "vmc24_track3")
PUBLISHED = dict(zip(OWN, ("882", "578", "4,040", "645", "243", "1,978", "1,960", "280"), strict=True))
FOLDERS = ("bc23", "svcc23", "singmos", "brspeechmos", "tmhint-qi", "tmhint-qi-s", "vmc24_track3")
# The list of each corpus, its first line with a recording, and the directory of its audio.
LISTS = {
    "bc23": ("sheet/egs/bc23/answers/answer.csv", 1, "bc23/wavs"),
    "svcc23": ("sheet/egs/svcc23/answers/listener_wise_answer.csv", 2, "svcc23/wavs"),
    "singmos": ("singmos/DATA/sets/eval_mos_list.txt", 1, "singmos/DATA/wav"),
    "brspeechmos": ("brspeechmos/test.csv", 2, "brspeechmos"),
    "tmhint-qi-s": ("sheet/egs/tmhint-qi-s/answers/answer.csv", 2, "tmhint-qi-s/wavs"),
    "vmc24_track3": ("sheet/egs/vmc24_track3/answers/track3_listener_wise_answer.csv", 2, "vmc24_track3/DATA/wav"),
}
OOD = Design(systems=4, sizes={"train": 4, "dev": 4, "test": 6}, ratings=3, seconds=0.3)


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mos_bench(tmp_path_factory.mktemp("mos_bench"))


@pytest.fixture(scope="module")
def generated_ood(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bvcc_ood(tmp_path_factory.mktemp("bvcc_ood"), OOD)


@pytest.fixture
def corpora(generated: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(generated, tmp_path / "db"))


def prepare(root: Path, datadir: Path, sets: Iterable[str] = OWN, *, partial: bool = True) -> tuple[int, str]:
    """Run local/data.sh of mos_bench; return its exit status and its output."""
    options = ("--db_root", root, "--datadir", datadir, "--sets", " ".join(sets))
    done = run_script(EGS / "mos_bench" / "local" / "data.sh", *options, "--allow_partial", str(partial).lower())
    return done.returncode, done.stdout + done.stderr


def prepare_ood(root: Path, datadir: Path, *options: str) -> tuple[int, str]:
    """Run local/data.sh of bvcc for the out-of-domain track."""
    more = ("--track", "ood", "--db_root", root, "--datadir", datadir, *options)
    done = run_script(EGS / "bvcc" / "local" / "data.sh", *more)
    return done.returncode, done.stdout + done.stderr


def rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.reader(stream))


def ratings_of(data: DataDir) -> list[tuple[str, str, float]]:
    return sorted((u, listener, score) for u, pairs in data.ratings.items() for listener, score in pairs)


@pytest.mark.slow
def test_all_sets_are_prepared_and_scored(generated: Path, generated_ood: Path, tmp_path: Path) -> None:
    egs = tmp_path / "egs"
    shutil.copytree(EGS, egs, symlinks=True, ignore=shutil.ignore_patterns("data", "dump", "exp", "downloads"))
    for script, root in (("mos_bench/run.sh", generated), ("bvcc/run_ood.sh", generated_ood)):
        done = run_script(egs / script, "--db_root", root, "--allow_partial", "true", "--nj", "1")
        assert done.returncode == 0, done.stdout + done.stderr
    raw = egs / "mos_bench" / "dump" / "raw"
    assert [len(read_data_dir(raw / name).utterances) for name in OWN] == [3, 3, 6, 6, 6, 6, 6, 6]
    utterances = read_data_dir(raw / "svcc23").utterances

    # Two sets suffice for the rest, one of them of another recipe.
    for name in set(OWN) - {"svcc23"}:
        shutil.rmtree(raw / name)
    score = egs / "mos_bench" / "score.sh"
    done = run_script(score, "spectral_voip", "--num_threads", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    exp = egs / "mos_bench" / "exp" / "spectral_voip"
    page = (exp / "MOS_BENCH.md").read_text()
    assert page in done.stdout
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| ")]
    table = {row[0]: row[2:] for row in cells[2:]}
    assert list(table) == [row[0] for row in csv.reader((egs / "mos_bench/local/sets.tsv").open(), delimiter="\t")][1:]
    assert len(table) == 17
    assert {name for name, row in table.items() if row[0] != "not prepared"} == {"svcc23", "bvcc/ood_test"}
    for name, results, published in (("svcc23", "svcc23", 4040), ("bvcc/ood_test", "bvcc_ood_test", 540)):
        metrics = json.loads((exp / results / "metrics.json").read_text())
        values = [entry["value"] for level in ("utterance", "system") for entry in metrics[level].values()]
        assert table[name] == [f"6 of {published}", "4", *(f"{value:.3f}" for value in values)]
        assert len(values) == 8
    assert set(read_floats(exp / "svcc23" / "utt2mos")) == set(utterances)

    # A set whose ratings have changed is scored again, the other one is left alone.
    left = (exp / "svcc23" / "utt2mos").stat().st_mtime_ns
    changed = egs / "bvcc" / "dump" / "raw" / "ood_test"
    lines = (changed / "utt2mos").read_text().splitlines()
    (changed / "ratings").unlink()
    (changed / "utt2mos").write_text("\n".join([f"{lines[0].split()[0]} 1.125", *lines[1:]]) + "\n")
    assert run_script(score, "spectral_voip").returncode == 0
    assert (exp / "svcc23" / "utt2mos").stat().st_mtime_ns == left
    assert "1.125" in (exp / "bvcc_ood_test" / "scored.tsv").read_text()


def test_values_are_those_of_the_lists(generated: Path, tmp_path: Path) -> None:
    status, said = prepare(generated, tmp_path)
    assert status == 0, said
    sets = {name: read_data_dir(tmp_path / name) for name in OWN}
    means = dict(rows(generated / LISTS["bc23"][0]))
    for name, voice in (("bc23a", "NEB"), ("bc23b", "AD")):
        assert sets[name].mos == {u: float(mean) for u, mean in means.items() if f"-{voice}_" in u}
        assert all(u.startswith(f"VoiceMOS2023Track1-{system}_") for u, system in sets[name].systems.items())
    listed = [(u, listener, float(score)) for u, listener, score in rows(generated / LISTS["svcc23"][0])[1:]]
    twice = listed.pop()  # all ratings of a listener count, under different names
    assert ratings_of(sets["svcc23"]) == sorted([*listed, (twice[0], f"{twice[1]}#2", twice[2])])
    assert all(system == u.split("-")[1] for u, system in sets["svcc23"].systems.items())
    singmos = sets["singmos"]
    assert singmos.mos == {u: float(mean) for u, mean in rows(generated / LISTS["singmos"][0])}
    assert all(system == u.split("-")[2] for u, system in singmos.systems.items())
    assert set(sets["brspeechmos"].systems.values()) == {"natural", "tts1", "tts2", "tts3"}
    assert sorted(sets["brspeechmos"].mos.values()) == sorted(
        float(row[1]) for row in rows(generated / LISTS["brspeechmos"][0])[1:]
    )
    lines = [row for row in rows(generated / "tmhint-qi/raw_data.csv")[1:] if row[5] and row[7] != "SE1_99"]
    assert ratings_of(sets["tmhint_qi"]) == sorted((row[7], row[0], float(row[5])) for row in lines)
    assert {"clean-SNR-", "SE1-SNR-2-street_noise"} < set(sets["tmhint_qi"].systems.values())
    second = dict(rows(generated / LISTS["tmhint-qi-s"][0])[1:])  # the first line is clean speech that does not count
    assert sets["tmhint_qi_s"].mos == {u: float(mean) for u, mean in second.items()}
    assert {"clean_TMHINT", "CMGAN_snr1_pink_TMHINT"} < set(sets["tmhint_qi_s"].systems.values())
    vmc24 = sets["vmc24_track3"]
    overall = [(row[0], row[4], float(row[3])) for row in rows(generated / LISTS["vmc24_track3"][0])[1:]]
    assert ratings_of(vmc24) == sorted(overall)
    assert set(vmc24.systems.values()) == {"sys1", "sys2", "sys3", "sys4"}
    assert set(vmc24.tables["utt2spk"].values()) == {"p232"}


def test_counts_must_be_the_published_ones(generated: Path, tmp_path: Path) -> None:
    status, said = prepare(generated, tmp_path / "data", partial=False)
    assert status == 2
    assert all(says(said, name, published) for name, published in PUBLISHED.items())
    assert not (tmp_path / "data").exists()


def test_lines_without_a_recording(corpora: Path, tmp_path: Path) -> None:
    expected = []
    for path, line, audio in LISTS.values():
        name = rows(corpora / path)[line - 1][0]
        prefix = "voicemos2024-track3-" if "vmc24" in path else ""
        wav = corpora / audio / (name.removeprefix("./") if name.endswith(".wav") else f"{prefix}{name}.wav")
        wav.unlink()
        expected.append((f"{corpora / path}:{line}", wav))
    status, said = prepare(corpora, tmp_path / "data", partial=False)
    assert status == 2
    assert [values for values in expected if not says(said, *values)] == []
    assert not (tmp_path / "data").exists()
    status, said = prepare(corpora, tmp_path / "data")
    assert status == 0, said
    left = sum(len(read_data_dir(tmp_path / "data" / name).utterances) for name in OWN)
    assert left == 42 - len(expected)


def test_faulty_lines_are_reported_together(corpora: Path, tmp_path: Path) -> None:
    expected: list[tuple[object, ...]] = []
    for folder, bad in {
        "bc23": [["VoiceMOS2023Track1-A-XX_test_1", "3"], ["VoiceMOS2023Track1-A-AD_test_1", "5.5"]],
        "svcc23": [["VoiceMOS2023Track1-A-B", "l", "3"], ["VoiceMOS2023Track2-A-B", "l", "3.5"]],
        "singmos": [["sys1-utt1", "3"], ["voicemos2024-track2-a-b"]],
        "brspeechmos": [["./a.wav", "0", "a", "b"], ["./a.wav", "3", "", "b"]],
        "tmhint-qi-s": [["clean_TMHINT", "3"]],
        "vmc24_track3": [["p1_sys1", "3", "3", "3", "l"], ["p1_sys1_1", "3", "3", "bad", "l"]],
    }.items():
        path = corpora / LISTS[folder][0]
        count = len(path.read_text().splitlines())
        with path.open("a") as stream:
            stream.writelines(",".join(line) + "\n" for line in bad)
        expected += [(f"{path}:{count + number}",) for number in range(1, len(bad) + 1)]
    status, said = prepare(corpora, tmp_path / "data")
    assert status == 2
    assert [values for values in expected if not says(said, *values)] == []
    assert "Traceback" not in said
    assert not (tmp_path / "data").exists()


def test_missing_corpora(corpora: Path, tmp_path: Path) -> None:
    status, said = prepare(corpora, tmp_path / "data", ["singmos", "no_such_set"])
    assert (status, says(said, "no_such_set", *OWN)) == (2, True)
    shutil.rmtree(corpora / "singmos")
    status, said = prepare(corpora, tmp_path / "data", ["bc23a", "singmos"])
    assert (status, says(said, corpora / "singmos")) == (2, True)
    shutil.rmtree(corpora / "sheet")
    status, said = prepare(corpora, tmp_path / "data", ["bc23a"])
    assert (status, says(said, corpora / LISTS["bc23"][0], "https://github.com/unilight/sheet")) == (2, True)
    assert not (tmp_path / "data").exists()

    # Without --sets, one line says what is not there, and at least one corpus must be.
    run = EGS / "mos_bench" / "run.sh"
    options = ("--db_root", corpora, "--datadir", tmp_path / "data", "--allow_partial", "true", "--stop_stage", "0")
    done = run_script(run, *options)
    assert says(done.stdout, "singmos", corpora / "singmos")
    assert not says(done.stdout, "svcc23", corpora / "svcc23")
    done = run_script(run, "--db_root", tmp_path / "nowhere")
    assert (done.returncode, says(done.stderr, tmp_path / "nowhere")) == (2, True)
    assert all(says(done.stdout, tmp_path / "nowhere" / folder) for folder in FOLDERS)


def test_wrong_use_of_score(tmp_path: Path) -> None:
    score = EGS / "mos_bench" / "score.sh"
    for options, named in (
        ((), "model"),
        (("--out", tmp_path), "model"),
        (("no_such_model",), "no_such_model"),
        (("spectral_voip", "--no_such_option", "1"), "--no_such_option"),
        (("spectral_voip", "--dumpdir_of", "nowhere=x"), "nowhere"),
    ):
        done = run_script(score, *options)
        assert done.returncode == 2, options
        assert named in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_bvcc_out_of_domain(generated_ood: Path, tmp_path: Path) -> None:
    (tmp_path / "report.txt").write_text("of the main track")
    status, said = prepare_ood(generated_ood, tmp_path, "--allow_partial", "true")
    assert status == 0, said
    for name, source, count in (("train", "TRAINSET", 4), ("dev", "DEVSET", 4), ("test", "TESTSET", 6)):
        data = read_data_dir(tmp_path / f"ood_{name}")
        lines = rows(generated_ood / "DATA" / "sets" / source)
        assert ratings_of(data) == sorted((row[1], row[4].split("_")[2], float(row[2])) for row in lines)
        assert len(data.utterances) == count
        assert all(system == u.split("-")[0] for u, system in data.systems.items())
    assert (tmp_path / "report_ood.txt").read_text() in said
    assert (tmp_path / "report.txt").read_text() == "of the main track"
    status, said = prepare_ood(generated_ood, tmp_path / "strict")
    assert status == 2
    assert says(said, "ood_test", 6, 540)
    assert says(said, "ood_train", 4, 136)
    assert not (tmp_path / "strict").exists()


def test_bvcc_out_of_domain_faults(generated_ood: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(generated_ood, tmp_path / "db" / "phase1-ood"))
    sets = root / "DATA" / "sets"
    name = rows(sets / "TESTSET")[0][1]
    (root / "DATA" / "wav" / f"{name}.wav").unlink()
    status, said = prepare_ood(tmp_path / "db", tmp_path / "data")
    assert status == 2
    assert says(said, root / "DATA" / "wav", 1, f"{name.split('-')[0]} (1)")
    status, said = prepare_ood(tmp_path / "db", tmp_path / "data", "--allow_partial", "true")
    assert status == 0, said
    assert len(read_data_dir(tmp_path / "data" / "ood_test").utterances) == 5

    count = len(rows(sets / "DEVSET"))
    with (sets / "DEVSET").open("a") as stream:
        stream.write("sys1,sys2-utt1,3,na,{}_na_l_na_na_na_EE\nsys2,sys2-utt1,3,na,{}_18-29_l_Male_Valid_1_No\n")
    status, said = prepare_ood(tmp_path / "db", tmp_path / "bad", "--allow_partial", "true")
    assert status == 2
    assert says(said, f"DEVSET:{count + 1}", "sys1")
    assert says(said, f"DEVSET:{count + 2}", "'{}_18-29_l_Male_Valid_1_No'")
    assert not (tmp_path / "bad").exists()
    status, said = prepare_ood(tmp_path / "nothing", tmp_path / "bad")
    assert (status, says(said, tmp_path / "nothing", "ood.tar.gz")) == (2, True)
    done = run_script(EGS / "bvcc" / "local" / "data.sh", "--track", "second", "--db_root", root)
    assert (done.returncode, "second" in done.stderr) == (2, True)


def test_bvcc_out_of_domain_is_downloaded(generated_ood: Path, tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    with tarfile.open(tmp_path / "served" / "ood.tar.gz", "w:gz") as packed:
        packed.add(generated_ood, "ood")
    with serve(tmp_path / "served") as server:
        options = ("--base_url", server.url, "--download_dir", tmp_path / "downloads", "--datadir", tmp_path / "data")
        done = run_script(EGS / "bvcc/local/data.sh", "--track", "ood", *options, "--allow_partial", "true")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(read_data_dir(tmp_path / "data" / "ood_test").utterances) == 6
