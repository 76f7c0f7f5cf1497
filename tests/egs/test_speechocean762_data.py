"""Stage 0 of egs/speechocean762 on a generated corpus in its layout and on altered copies of it."""

from __future__ import annotations

import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from helpers.corpora import write_speechocean762
from helpers.recipes import EGS, run_script, says

from distilmos.data.datadir import read_data_dir
from distilmos.data.schema import Scale
from distilmos.files import write_text

ASPECTS = ("fluency", "prosodic", "accuracy")
SETS = ("train", "dev", "test")
DETAILS = "resource/scores-detail.json"


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speechocean762(tmp_path_factory.mktemp("speechocean762"))


@pytest.fixture
def corpus(generated: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(generated, tmp_path / "db"))


def prepare(root: Path, datadir: Path, *options: str, partial: bool = True) -> tuple[int, str]:
    """Run local/data.sh; return its exit status and its output."""
    allow = ("--allow_partial", "true") if partial else ()
    script = EGS / "speechocean762" / "local" / "data.sh"
    done = run_script(script, "--db_root", root, "--datadir", datadir, *allow, *options)
    return done.returncode, done.stdout + done.stderr


def details_of(root: Path) -> dict[str, dict[str, Any]]:
    return json.loads((root / DETAILS).read_text())


def refuse(corpus: Path, tmp_path: Path, *faults: tuple[object, ...]) -> None:
    """Check that stage 0 refuses the corpus with a line for each fault that has all its values, and writes nothing."""
    status, said = prepare(corpus, tmp_path / "data")
    assert status == 2, said
    assert [values for values in faults if not says(said, *values)] == [], said
    assert "Traceback" not in said
    assert not (tmp_path / "data").exists()


def test_train_can_be_one_group_or_a_number_of_utterances(generated: Path, tmp_path: Path) -> None:
    def read(*options: str) -> dict[str, list[tuple[str, str]]]:
        out = tmp_path / "-".join(options)
        status, said = prepare(generated, out, *options)
        assert status == 0, said
        sets = {name: read_data_dir(out / name) for name in SETS}
        return {n: [(u, data.groups[data.systems[u]]) for u in data.utterances] for n, data in sets.items()}

    everything, child = read("--dev_seed", "1"), read("--train_group", "child")
    for name in ("train", "dev"):
        assert child[name] == [(u, group) for u, group in everything[name] if group == "child"] != everything[name]
    assert child["test"] == everything["test"]
    few = read("--train_utterances", "3")
    assert few == everything | {"train": few["train"]} and len(few["train"]) == 3
    assert set(few["train"]) <= set(everything["train"])
    assert read("--train_utterances", "3", "--dev_seed", "1") == few
    for number in (len(everything["train"]) + 1, -1):
        assert prepare(generated, tmp_path / "none", "--train_utterances", str(number))[0] == 2
    assert not (tmp_path / "none").exists()


def add_line(path: Path, line: str) -> int:
    """Add a line to a list; return its number."""
    text = path.read_text() + line + "\n"
    write_text(path, text)
    return text.count("\n")


@pytest.mark.parametrize("aspect", ASPECTS)
def test_scores_are_those_of_the_experts(generated: Path, tmp_path: Path, aspect: str) -> None:
    status, said = prepare(generated, tmp_path, "--aspect", aspect)
    assert status == 0, said
    details = details_of(generated)
    sets = {name: read_data_dir(tmp_path / name) for name in SETS}
    assert sorted(u for data in sets.values() for u in data.utterances) == sorted(details)
    for data in sets.values():
        assert data.scale == Scale(0, 10, aspect)
        assert "hubert_tiny" in data.notes
        for utterance in data.utterances:
            own = details[utterance]
            assert data.ratings[utterance] == [(f"expert{n}", float(own[aspect][n - 1])) for n in range(1, 6)]
            assert data.mos[utterance] == pytest.approx(statistics.fmean(own[aspect]))
            for each in ASPECTS:
                scale, scores = data.target(each)
                assert (scale.lowest, scale.highest) == (0, 10)
                assert scores[utterance] == pytest.approx(statistics.fmean(own[each]))
    assert says(said, 1, "WAVE")  # the recording without ratings


def test_speakers_are_systems_and_in_one_set(generated: Path, tmp_path: Path) -> None:
    assert prepare(generated, tmp_path)[0] == 0
    sets = {name: read_data_dir(tmp_path / name) for name in SETS}
    systems = {name: set(data.systems.values()) for name, data in sets.items()}
    assert {name: len(members) for name, members in systems.items()} == {"train": 4, "dev": 2, "test": 6}
    assert systems["test"] == {f"{5000 + n}" for n in range(1, 7)}
    assert not systems["train"] & systems["dev"]
    for data in sets.values():
        assert data.tables["utt2spk"] == data.systems
        assert set(data.groups.values()) == {"child", "adult"}
    ages = dict(line.split() for part in ("train", "test") for line in (generated / part / "spk2age").open())
    for data in sets.values():
        assert all(group == ("child" if int(ages[s]) <= 15 else "adult") for s, group in data.groups.items())
    dev = list(sets["dev"].groups.values())
    assert dev.count("child") == dev.count("adult")


def test_the_seed_decides_the_dev_speakers(generated: Path, tmp_path: Path) -> None:
    found = []
    for number, seed in enumerate(("1", "1", "2", "3")):
        assert prepare(generated, tmp_path / str(number), "--dev_seed", seed)[0] == 0
        sets = {name: read_data_dir(tmp_path / str(number) / name) for name in SETS}
        assert set(sets["test"].systems.values()) == {f"{5000 + n}" for n in range(1, 7)}
        found.append(set(sets["dev"].systems.values()))
    assert found[0] == found[1]
    assert found[2] != found[0] or found[3] != found[0]


def test_counts_are_the_published_ones(generated: Path, tmp_path: Path) -> None:
    status, said = prepare(generated, tmp_path / "data", partial=False)
    assert status == 2
    for values in (("train/wav.scp", 12, "2,500"), ("test/wav.scp", 6, "2,500"), ("test/spk2age", 6, 125)):
        assert says(said, *values)
    assert "--allow_partial" in said
    assert not (tmp_path / "data").exists()


def test_a_missing_recording(corpus: Path, tmp_path: Path) -> None:
    line = (corpus / "test" / "wav.scp").read_text().splitlines()[2]
    utterance, wav = line.split("\t")
    (corpus / wav).unlink()
    status, said = prepare(corpus, tmp_path / "data", partial=False)
    assert (status, says(said, "test/wav.scp:3", corpus / wav)) == (2, True)
    assert prepare(corpus, tmp_path / "data")[0] == 0
    assert utterance not in read_data_dir(tmp_path / "data" / "test").wavs


def replace_line(path: Path, number: int, line: str | None) -> str:
    """Replace a line, or remove it; return the former line."""
    lines = path.read_text().splitlines()
    former = lines[number - 1]
    lines[number - 1 : number] = [] if line is None else [line]
    write_text(path, "".join(f"{each}\n" for each in lines))
    return former


def test_lists_that_disagree(corpus: Path, tmp_path: Path) -> None:
    train, test = corpus / "train", corpus / "test"
    speaker = replace_line(train / "spk2age", 1, None).split()[0]
    utterance = replace_line(test / "utt2spk", 1, None).split()[0]
    without_scores = add_line(test / "wav.scp", "999900001\tWAVE/SPEAKER9999/999900001.WAV")
    add_line(test / "utt2spk", "999900001\t9999")
    add_line(test / "spk2age", "9999\t20")
    unlisted = add_line(train / "utt2spk", "999900002\t0002")
    in_both = add_line(test / "spk2age", "0002\t19")
    first = (train / "wav.scp").read_text().splitlines()[0]
    repeated = add_line(train / "wav.scp", first)
    refuse(
        corpus,
        tmp_path,
        ("train/utt2spk:1", speaker, "spk2age"),
        ("test/wav.scp:1", utterance, "utt2spk"),
        (f"test/wav.scp:{without_scores}", "999900001", "scores-detail.json"),
        (f"train/utt2spk:{unlisted}", "999900002", "wav.scp"),
        (f"test/spk2age:{in_both}", "0002", "train/spk2age"),
        (f"train/wav.scp:{repeated}", first.split()[0], 1),
    )


def test_ages_of_neither_children_nor_adults(corpus: Path, tmp_path: Path) -> None:
    ages = ("16", "18", "-3", "19.5", "adult")
    for number, age in enumerate(ages, start=1):
        replace_line(corpus / "train" / "spk2age", number, f"{number:04d}\t{age}")
    refuse(corpus, tmp_path, *((f"train/spk2age:{n}", f"{n:04d}", age) for n, age in enumerate(ages, start=1)))


def test_the_oldest_child_and_the_youngest_adult(corpus: Path, tmp_path: Path) -> None:
    replace_line(corpus / "test" / "spk2age", 1, "5001\t15")
    replace_line(corpus / "test" / "spk2age", 2, "5002\t19")
    assert prepare(corpus, tmp_path / "data")[0] == 0
    groups = read_data_dir(tmp_path / "data" / "test").groups
    assert (groups["5001"], groups["5002"]) == ("child", "adult")


def test_scores_that_are_not_five_on_the_scale(corpus: Path, tmp_path: Path) -> None:
    """Also those of an aspect that is not the chosen one."""
    details = details_of(corpus)
    bad = ([11, 9, 8, 8, 9], [-1, 9, 8, 8, 9], [7, 9, 8, 8], [7, 9, 8, 8, "9"], [7, 9, 8, 8, True], [None] * 5, 8)
    faults = []
    for utterance, scores in zip(details, bad, strict=False):
        details[utterance]["prosodic"] = scores
        faults.append((DETAILS, utterance, "prosodic", str(scores)))
    lacking = list(details)[len(bad)]
    del details[lacking]["accuracy"]
    (corpus / DETAILS).write_text(json.dumps(details))
    refuse(corpus, tmp_path, *faults, (DETAILS, lacking, "accuracy"))


def test_scores_of_an_utterance_in_no_list(corpus: Path, tmp_path: Path) -> None:
    details = details_of(corpus)
    details["999900001"] = next(iter(details.values()))
    (corpus / DETAILS).write_text(json.dumps(details))
    status, said = prepare(corpus, tmp_path / "data", partial=False)
    assert (status, says(said, DETAILS, "999900001")) == (2, True)
    assert prepare(corpus, tmp_path / "data")[0] == 0


@pytest.mark.parametrize("missing", [DETAILS, "train/wav.scp", "test/spk2age"])
def test_a_missing_list(corpus: Path, tmp_path: Path, missing: str) -> None:
    (corpus / missing).unlink()
    refuse(corpus, tmp_path, (corpus / missing,))


def test_scores_that_are_not_json(corpus: Path, tmp_path: Path) -> None:
    with (corpus / DETAILS).open("a") as stream:
        stream.write("\n}\n")
    line = (corpus / DETAILS).read_text().count("\n")
    refuse(corpus, tmp_path, (f"{DETAILS}:{line}",))


def test_another_aspect_is_refused(generated: Path, tmp_path: Path) -> None:
    assert prepare(generated, tmp_path / "data", "--aspect", "total")[0] == 2
    assert not (tmp_path / "data").exists()
    done = run_script(EGS / "speechocean762" / "run.sh", "--aspect", "tempo", "--datadir", tmp_path / "data")
    assert done.returncode == 2
    assert "'tempo'" in done.stderr
    assert not (tmp_path / "data").exists()


def test_aggregated_scores_are_compared_with_the_medians(corpus: Path, tmp_path: Path) -> None:
    details = details_of(corpus)
    aggregated = {u: {aspect: statistics.median(own[aspect]) for aspect in ASPECTS} for u, own in details.items()}
    (corpus / "resource" / "scores.json").write_text(json.dumps(aggregated))
    status, said = prepare(corpus, tmp_path / "data")
    assert status == 0
    assert not says(said, "scores.json")

    utterance = list(details)[3]
    aggregated[utterance]["fluency"] += 0.5
    del aggregated[list(details)[5]]
    (corpus / "resource" / "scores.json").write_text(json.dumps(aggregated))
    status, said = prepare(corpus, tmp_path / "data")
    assert status == 0
    median = statistics.median(details[utterance]["fluency"])
    assert says(said, "warning", "scores.json", "fluency", 2, utterance, median + 0.5, median)
    assert says(said, "warning", "scores.json", "prosodic", 1, list(details)[5])


def test_wav_files_may_hold_another_format(corpus: Path, tmp_path: Path) -> None:
    """A copy with compressed audio keeps the names of the release."""
    utterance, wav = (corpus / "test" / "wav.scp").read_text().splitlines()[0].split("\t")
    assert (corpus / wav).read_bytes()[:4] == b"fLaC"
    soundfile.write(corpus / wav, np.full(16000, 0.1), 16000, format="OGG", subtype="OPUS")
    assert prepare(corpus, tmp_path / "data")[0] == 0
    assert read_data_dir(tmp_path / "data" / "test").durations[utterance] == pytest.approx(1, abs=0.01)
