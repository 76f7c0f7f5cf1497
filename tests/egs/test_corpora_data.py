"""Stage 0 of recipes with a download, on generated corpora in the published layouts."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.corpora import (
    Design,
    write_bvcc,
    write_hablamos,
    write_nisqa,
    write_somos,
    write_speechocean762,
    write_ttsds2,
)
from helpers.fileserver import serve
from helpers.recipes import EGS, run_script, says

from distilmos.data.datadir import read_data_dir
from distilmos.data.tables import read_table

SETS = ("train", "dev", "test")
SILENT = "sys4bafa-uttc2e86f6.wav"
WRITERS: dict[str, Callable[[Path], Path]] = {
    "bvcc": write_bvcc,
    "somos": write_somos,
    "nisqa": write_nisqa,
    "hablamos": write_hablamos,
    "ttsds2": write_ttsds2,
    "speechocean762": write_speechocean762,
}


@pytest.fixture(scope="session")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("corpora")
    return {name: write(root / name) for name, write in WRITERS.items()}


@pytest.fixture
def copy_of(corpora: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """Copy a corpus, so that a test may change it."""
    return lambda name: Path(shutil.copytree(corpora[name], tmp_path / "db"))


def prepare(recipe: str, root: Path, datadir: Path, *options: str, partial: bool = True) -> tuple[int, str]:
    """Run local/data.sh; return its exit status and its output."""
    allow = ("--allow_partial", "true") if partial else ()
    done = run_script(EGS / recipe / "local" / "data.sh", "--db_root", root, "--datadir", datadir, *allow, *options)
    return done.returncode, done.stdout + done.stderr


def test_bvcc(corpora: dict[str, Path], tmp_path: Path) -> None:
    status, said = prepare("bvcc", corpora["bvcc"], tmp_path)
    assert status == 0, said
    sets = {name: read_data_dir(tmp_path / name) for name in SETS}
    assert [len(data.wavs) for data in sets.values()] == [12, 6, 6]
    for name, source in zip(SETS, ("TRAINSET", "DEVSET", "TESTSET"), strict=True):
        rows = [line.split(",") for line in (corpora["bvcc"] / "DATA/sets" / source).read_text().splitlines()]
        ratings = [(u, listener, score) for u, pairs in sets[name].ratings.items() for listener, score in pairs]
        assert sorted(ratings) == sorted((r[1][:-4], r[4].split("_")[2], float(r[2])) for r in rows)
        assert all(system == utterance.split("-")[0] for utterance, system in sets[name].systems.items())
        assert all(mos * 8 == round(mos * 8) for mos in sets[name].mos.values())
    table = [line.split("\t") for line in (tmp_path / "listeners.tsv").read_text().splitlines()]
    assert table[0] == ["listener", "age", "gender", "hearing_impairment"]
    heard = {listener for data in sets.values() for pairs in data.ratings.values() for listener, _ in pairs}
    assert {row[0] for row in table[1:]} == heard
    assert ["simulated07", "50-59", "Female", "Yes"] in table
    assert (tmp_path / "report.txt").read_text() in said


def test_counts_must_be_the_published_ones(corpora: dict[str, Path], tmp_path: Path) -> None:
    for recipe, values in (
        ("bvcc", ("train", 12, "4,974")),
        ("somos", ("dev", 6, "3,000")),
        ("nisqa", ("NISQA_TEST_LIVETALK", 6, 232)),
        ("hablamos", ("test.csv", 6, 408)),
        ("ttsds2", ("subjective_results.csv", 48, "4,731")),
    ):
        status, said = prepare(recipe, corpora[recipe], tmp_path / recipe, partial=False)
        assert status == 2
        assert says(said, *values)
        assert "--allow_partial" in said
        assert not (tmp_path / recipe).exists()


def add_silent(root: Path) -> None:
    """Add BVCC's silent utterance, whose name is longer than the others."""
    soundfile.write(root / "DATA/wav" / SILENT, np.zeros(8000), 16000)
    with (root / "DATA/sets/TRAINSET").open("a") as stream:
        for number in range(8):
            stream.write(f"sys4bafa,{SILENT},1,x,{{}}_18-29_l{number}_Male_Valid_1_No\n")


def test_bvcc_silent_utterance(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    root = copy_of("bvcc")
    add_silent(root)
    status, said = prepare("bvcc", root, tmp_path / "drop")
    assert status == 0, said
    assert says(said, "train", SILENT)
    assert "sys4bafa-uttc2e86f6" not in read_data_dir(tmp_path / "drop/train").wavs
    assert says(said, "train", 13, "4,974")  # the published number includes it
    assert prepare("bvcc", root, tmp_path / "keep", "--silent", "keep")[0] == 0
    assert read_data_dir(tmp_path / "keep/train").systems["sys4bafa-uttc2e86f6"] == "sys4bafa"


def test_bvcc_system_truth(corpora: dict[str, Path], tmp_path: Path) -> None:
    assert prepare("bvcc", corpora["bvcc"], tmp_path, "--system_truth", "corpus")[0] == 0
    lines = (corpora["bvcc"] / "DATA/mydata_system.csv").read_text().splitlines()[1:]
    listed = {line.split(",")[0]: float(line.split(",")[1]) for line in lines}
    for name in SETS:
        assert read_data_dir(tmp_path / name).system_mos == pytest.approx(listed)
    assert prepare("bvcc", corpora["bvcc"], tmp_path)[0] == 0
    assert not (tmp_path / "test" / "sys2mos").exists()


def test_bvcc_systems_that_are_only_in_test(tmp_path: Path) -> None:
    """mydata_system.csv averages train and dev; six of the published systems are in neither."""
    root = write_bvcc(tmp_path, Design(reach={"train": 4, "dev": 5}))
    status, said = prepare("bvcc", root, tmp_path / "data", "--system_truth", "corpus")
    assert status == 0, said
    data = read_data_dir(tmp_path / "data/test")
    known = {system for name in ("train", "dev") for system in read_data_dir(tmp_path / "data" / name).systems.values()}
    (new,) = set(data.systems.values()) - known
    assert says(said, "mydata_system.csv", new)
    scores = [mos for utterance, mos in data.mos.items() if data.systems[utterance] == new]
    assert data.system_mos[new] == pytest.approx(sum(scores) / len(scores))


def test_bvcc_without_test_ratings(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    root = copy_of("bvcc")
    sets = root / "DATA" / "sets"
    (sets / "TESTSET").unlink()
    status, said = prepare("bvcc", root, tmp_path / "means")
    assert status == 0, said
    assert says(said, "test", "TESTSET", "test_mos_list.txt")
    data = read_data_dir(tmp_path / "means/test")
    listed = dict(line.split(",") for line in (sets / "test_mos_list.txt").read_text().splitlines())
    assert data.mos == {name[:-4]: float(mean) for name, mean in listed.items()}
    assert data.ratings == {}

    (sets / "test_mos_list.txt").unlink()
    (sets / "test.scp").write_text("".join(f"{name[:-4]}\n" for name in listed))  # as in out-of-domain lists
    status, said = prepare("bvcc", root, tmp_path / "names")
    assert status == 0, said
    assert says(said, "test", "TESTSET", "test.scp")
    data = read_data_dir(tmp_path / "names/test", rated=False)
    assert (set(data.wavs), data.mos) == ({name[:-4] for name in listed}, {})

    names = (sets / "test.scp").read_text().splitlines()
    (sets / "test.scp").write_text("\n".join([*names, names[0]]) + "\n")
    status, said = prepare("bvcc", root, tmp_path / "twice")
    assert status == 2
    assert says(said, f"test.scp:{len(names) + 1}", f"{names[0]}.wav", 1)

    # The package of the challenge's first phase has no test set.
    (sets / "test.scp").unlink()
    status, said = prepare("bvcc", root, tmp_path / "none", partial=False)
    assert status == 2
    assert says(said, "TESTSET", "test_mos_list.txt", "test.scp")
    for path in {root / "DATA" / "wav" / f"{name}.wav" for name in names}:
        path.unlink()
    status, said = prepare("bvcc", root, tmp_path / "none")
    assert status == 0, said
    assert sorted(path.name for path in (tmp_path / "none").iterdir() if path.is_dir()) == ["dev", "train"]


def test_bvcc_without_the_blizzard_wavs(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    root = copy_of("bvcc")
    system = next((root / "DATA/wav").iterdir()).name.split("-")[0]
    gone = [path for path in (root / "DATA/wav").iterdir() if path.name.startswith(system)]
    for path in gone:
        path.unlink()
    status, said = prepare("bvcc", root, tmp_path / "data", partial=False)
    assert status == 2
    assert says(said, len(gone), 1, f"{system} ({len(gone)})")
    assert all(script in said for script in ("01_get.py", "02_gather.py", "03_preprocess.py", "sv56"))
    status, said = prepare("bvcc", root, tmp_path / "data")
    assert status == 0, said
    assert sum(len(read_data_dir(tmp_path / "data" / name).wavs) for name in SETS) == 24 - len(gone)


def test_bvcc_root_may_be_the_parent_or_the_challenge_copy(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    root = copy_of("bvcc")
    (tmp_path / "up").mkdir()
    root.rename(tmp_path / "up" / "phase1-main")
    assert prepare("bvcc", tmp_path / "up", tmp_path / "data")[0] == 0
    status, said = prepare("bvcc", tmp_path, tmp_path / "data2")
    assert (status, says(said, tmp_path, "main.tar.gz")) == (2, True)


@pytest.mark.parametrize("variant", ["full", "clean"])
def test_somos(corpora: dict[str, Path], tmp_path: Path, variant: str) -> None:
    status, said = prepare("somos", corpora["somos"], tmp_path, "--variant", variant)
    assert status == 0, said
    lists = corpora["somos"] / "training_files" / "split1" / variant
    for name, source in zip(SETS, ("TRAINSET", "VALIDSET", "TESTSET"), strict=True):
        data = read_data_dir(tmp_path / name)
        rows = [line.split(",") for line in (lists / source).read_text().splitlines()[1:]]
        ratings = [(u, listener, score) for u, pairs in data.ratings.items() for listener, score in pairs]
        assert sorted(ratings) == sorted((row[1][:-4], row[3], float(row[2])) for row in rows)
        assert set(data.systems.values()) == {row[0] for row in rows}  # 000, not 0
        assert data.groups["000"] == "natural"
        sentences = read_table(tmp_path / name / "utt2sent")
        assert all(u == f"{sentences[u]}_{data.systems[u]}" for u in data.wavs)


def test_foreign_test_sets(corpora: dict[str, Path], tmp_path: Path) -> None:
    for recipe in ("nisqa", "hablamos", "ttsds2"):
        status, said = prepare(recipe, corpora[recipe], tmp_path)
        assert status == 0, said
    for name in ("nisqa_for", "nisqa_p501", "nisqa_livetalk", "hablamos", "ttsds2"):
        data = read_data_dir(tmp_path / name)
        assert len(data.wavs) == 6
        assert len(set(data.systems.values())) == 6
    ttsds2 = read_data_dir(tmp_path / "ttsds2")
    assert {system.split("-")[0] for system in ttsds2.systems.values()} == {"noisy", "kids"}
    assert all("-TTS_" in system for system in ttsds2.systems.values())  # TTS 1 in the list
    # The list's system_id differs for every recording, so a voice is the system.
    assert set(read_data_dir(tmp_path / "hablamos").systems.values()) == {f"A{n}" for n in range(6)}
    assert all(len(ratings) == 8 for ratings in ttsds2.ratings.values())


def spoil(root: Path) -> list[tuple[object, ...]]:
    """Spoil a SOMOS tree in every way; return the values that a line must contain for each fault."""
    lists = root / "training_files/split1/clean"
    train = (lists / "TRAINSET").read_text().splitlines()
    names = list(dict.fromkeys(line.split(",")[1] for line in train[1:]))
    by_name = {name: next(n for n, line in enumerate(train, start=1) if f",{name}," in line) for name in names}
    audios = root / "audios"
    expected: list[tuple[object, ...]] = []

    def bad(number: int, *values: str) -> Path:
        path = audios / names[number]
        expected.append((f"TRAINSET:{by_name[names[number]]}", path, *values))
        return path

    bad(0).write_bytes(b"")
    path = bad(1)
    path.write_bytes(path.read_bytes()[:-1000])
    bad(2).write_bytes(b"no audio at all")
    bad(3).unlink()
    soundfile.write(bad(4, "10.0 ms"), np.zeros(240), 24000)
    line = by_name[names[5]]
    for value in ("6", "0", "x", "3.5", ""):
        train.append(f"{names[5].rsplit('_', 1)[1][:-4]},{names[5]},{value},new{value}")
        expected.append((f"TRAINSET:{len(train)}", "choice", *([f"'{value}'"] if value else [])))
    listener = train[line - 1].split(",")[3]
    train.append(train[line - 1])
    expected.append((f"TRAINSET:{len(train)}", listener, names[5], line))
    train.append(f"009,{names[5]},3,another")
    expected.append((f"TRAINSET:{len(train)}", names[5], "009", line))
    train.append(f"001,has blank_{1:03d}.wav,3,another")
    expected.append((f"TRAINSET:{len(train)}", "'has blank_001'"))
    train.append("001,half a line")
    expected.append((f"TRAINSET:{len(train)}", 2, 4))
    # With CRLF and a byte order mark, as from a spreadsheet.
    (lists / "TRAINSET").write_bytes(b"\xef\xbb\xbf" + "".join(f"{line}\r\n" for line in train).encode())
    with (lists / "TESTSET").open("a") as stream:
        stream.write(f"{names[6].rsplit('_', 1)[1][:-4]},{names[6]},3,another\n")
    expected.append((names[6][:-4], f"TRAINSET:{by_name[names[6]]}"))
    shutil.copy(audios / names[7], audios / "unrated_000.wav")
    expected.append((audios / "unrated_000.wav",))
    return expected


def test_one_run_reports_all_faults(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    root = copy_of("somos")
    expected = spoil(root)
    old = tmp_path / "data"
    assert prepare("somos", root, old)[0] == 2
    assert not old.exists()
    status, said = prepare("somos", root, old, partial=False)
    assert status == 2
    assert [values for values in expected if not says(said, *values)] == []
    assert "Traceback" not in said
    assert not old.exists()


def test_unusual_but_usable_audio(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    root = copy_of("hablamos")
    wavs = sorted((root / "test").iterdir())
    listed = {line.split(",")[0] for line in (root / "test.csv").read_text().splitlines()[1:]}
    stereo, narrow, floating, long = [root / name for name in sorted(listed)][:4]
    soundfile.write(stereo, np.full((8000, 2), 0.1), 16000)
    soundfile.write(narrow, np.full(8000, 0.1), 8000)
    soundfile.write(floating, np.full(44100, 0.1), 44100, subtype="FLOAT")
    soundfile.write(long, np.full(1200 * 8000, 0.01, np.float32), 8000, subtype="PCM_U8")
    new = root / "test" / "señal_ñ.wav"
    stereo.rename(new)
    text = (root / "test.csv").read_text().replace(stereo.name, new.name)
    (root / "test.csv").write_text(text, encoding="utf-8")
    assert prepare("hablamos", root, tmp_path / "data")[0] == 0
    data = read_data_dir(tmp_path / "data/hablamos")
    assert len(data.wavs) == 6 <= len(wavs)
    assert data.durations[long.stem] == pytest.approx(1200)
    assert "señal_ñ" in data.wavs


def test_bvcc_from_a_mirror_with_another_file(corpora: dict[str, Path], tmp_path: Path) -> None:
    """The checksum refuses the file, and nothing of it is left."""
    served = tmp_path / "served"
    served.mkdir()
    with tarfile.open(served / "main.tar.gz", "w:gz") as packed:
        packed.add(corpora["bvcc"], "main")
    downloads = tmp_path / "downloads"
    with serve(served) as server:
        options = ("--base_url", server.url, "--download_dir", downloads, "--datadir", tmp_path / "data")
        done = run_script(EGS / "bvcc/local/data.sh", *options, "--allow_partial", "true")
    assert done.returncode == 1
    md5 = hashlib.md5((served / "main.tar.gz").read_bytes()).hexdigest()
    assert says(done.stderr, md5, "fc880c2a208c3285a47bd9a64f34eb11")
    assert list(downloads.iterdir()) == []
    assert not (tmp_path / "data").exists()


def test_somos_from_a_mirror_with_another_file(corpora: dict[str, Path], tmp_path: Path) -> None:
    served = tmp_path / "served"
    served.mkdir()
    with zipfile.ZipFile(served / "somos.zip", "w") as packed:
        packed.write(corpora["somos"] / "audios", "audios")
    with serve(served) as server:
        server.break_after = [10]
        options = ("--base_url", server.url, "--download_dir", tmp_path / "downloads", "--datadir", tmp_path / "data")
        done = run_script(EGS / "somos/local/data.sh", *options)
        assert server.requests[1][1] == "bytes=10-"
    assert done.returncode == 1
    assert says(done.stderr, "3,971,669,902")


@pytest.mark.parametrize(
    ("recipe", "archive", "inside", "first"),
    [
        ("nisqa", "NISQA_Corpus.zip", "NISQA_Corpus", "nisqa_for"),
        ("hablamos", "HablaMOS.tar.gz", "HablaMOS", "hablamos"),
        ("ttsds2", "ttsds2.zip", "", "ttsds2"),
        ("speechocean762", "speechocean762.tar.gz", "speechocean762", "test"),
    ],
)
def test_download_to_data_directories(
    corpora: dict[str, Path], tmp_path: Path, recipe: str, archive: str, inside: str, first: str
) -> None:
    """These archives have no known checksum."""
    (tmp_path / "served").mkdir()
    kind = "zip" if archive.endswith(".zip") else "gztar"
    tree = tmp_path / "tree"
    shutil.copytree(corpora[recipe], tree / inside)
    shutil.make_archive(str(tmp_path / "served" / archive.split(".")[0]), kind, tree)
    with serve(tmp_path / "served") as server:
        server.break_after = [1000]
        options = ("--base_url", server.url, "--download_dir", tmp_path / "downloads", "--datadir", tmp_path / "data")
        done = run_script(EGS / recipe / "local/data.sh", *options, "--allow_partial", "true")
        assert done.returncode == 0, done.stdout + done.stderr
        assert [wanted for _, wanted in server.requests] == [None, "bytes=1000-"]
        # A second run uses the download.
        assert run_script(EGS / recipe / "local/data.sh", *options, "--allow_partial", "true").returncode == 0
        assert len(server.requests) == 2
    assert len(read_data_dir(tmp_path / "data" / first).wavs) == 6


def test_somos_natural_speech_rated_on_several_pages(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    """All ratings count in the mean; a second rating of synthetic speech by the same listener is a fault."""
    root = copy_of("somos")
    path = root / "training_files/split1/clean/TRAINSET"
    lines = path.read_text().splitlines()
    natural = next(line for line in lines if line.startswith("000,"))
    _, wav, choice, listener = natural.split(",")
    path.write_text("\n".join([*lines, natural]) + "\n")
    (path.with_name("train_mos_list.txt")).unlink()
    assert prepare("somos", root, tmp_path / "data")[0] == 0
    ratings = read_data_dir(tmp_path / "data/train").ratings[wav[:-4]]
    assert (f"{listener}#2", float(choice)) in ratings
    other = next(line for line in lines[1:] if not line.startswith("000,"))
    path.write_text("\n".join([*lines, other]) + "\n")
    status, said = prepare("somos", root, tmp_path / "other", partial=False)
    assert status == 2
    assert says(said, f"TRAINSET:{len(lines) + 1}", other.split(",")[3], other.split(",")[1])
