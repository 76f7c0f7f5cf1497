"""Stage 0 of egs/degraded: from plain speech to a corpus with simulated ratings."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.corpora import RATE, clean_speech
from helpers.recipes import EGS, run_script, says

from distilmos.data.audio import read_audio
from distilmos.data.datadir import read_data_dir
from distilmos.data.plain import find_plain_speech
from distilmos.references.published import load_published
from distilmos.simulation.degrade import LEVEL, level_of
from distilmos.simulation.listeners import QUALITY_LOSS, true_quality
from distilmos.simulation.processing import PROCESSING

SETS = ("train", "dev", "test")
SYNTHETIC = "synthetic"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `speech`, 200 recordings in folders (so that every set has some), and `data` made from it."""
    top = tmp_path_factory.mktemp("degraded")
    root = top / "speech"
    for number in range(200):
        folder = root / f"talker{number % 4}"
        folder.mkdir(parents=True, exist_ok=True)
        samples = np.roll(clean_speech()[number % 20], 50 * number)
        soundfile.write(folder / f"r{number}.flac", samples, RATE)
    done = prepare(top / "data", root)
    assert done.returncode == 0, done.stderr
    return top


@pytest.fixture
def speech(made: Path, tmp_path: Path) -> Path:
    """A copy of the recordings, so that a test may spoil it."""
    return shutil.copytree(made / "speech", tmp_path / "speech")


def prepare(datadir: Path, speech: Path, *options: str):
    return run_script(EGS / "degraded" / "local" / "data.sh", "--datadir", datadir, "--data_dir", speech, *options)


def test_every_recording_is_degraded_once_and_rated(made):
    sets = [read_data_dir(made / "data" / name) for name in SETS]
    found = {recording.id: recording for recording in find_plain_speech(made / "speech")}
    assert sorted(found) == sorted(utterance for data in sets for utterance in data.wavs)
    assert len({group for data in sets for group in data.groups.values()}) > 12
    for data in sets:
        assert "simulated" in data.notes
        for utterance, (path, _) in data.wavs.items():
            kind, _, strength = data.systems[utterance].partition("_")
            assert data.mos[utterance] == pytest.approx(true_quality(kind, float(strength or 0) / 100, 0.0))
            original, degraded = read_audio(found[utterance].path), read_audio(path)
            assert degraded.shape == original.shape
            assert level_of(degraded) == pytest.approx(LEVEL, abs=1.0)  # peaks above full scale are clipped
            change = degraded - original * 10 ** ((level_of(degraded) - level_of(original)) / 20)
            assert (power(change, 0, 6500) < 1e-8) == (kind == "clean"), data.systems[utterance]


def test_further_copies_are_degraded_in_another_way(made, tmp_path):
    """The first copies are those of a corpus with one copy; all copies of a recording are in one set."""
    assert prepare(tmp_path / "data", made / "speech", "--copies", "3").returncode == 0
    for name in SETS:
        one, three = (read_data_dir(root / "data" / name) for root in (made, tmp_path))
        assert sorted(three.wavs) == sorted(f"{u}{copy}" for u in one.wavs for copy in ("", "-copy2", "-copy3"))
        different = 0
        for utterance, (path, _) in one.wavs.items():
            first, second = three.wavs[utterance][0], three.wavs[f"{utterance}-copy2"][0]
            assert first.read_bytes() == path.read_bytes()
            assert three.mos[utterance] == one.mos[utterance]
            different += first.read_bytes() != second.read_bytes()
        assert different >= 0.9 * len(one.wavs)  # two copies may both be undegraded


@pytest.mark.usefixtures("ffmpeg")
def test_wide_data_has_more_kinds_and_ratings_of_a_published_model(tmp_path, speech):
    """A rating is the mean of the simulated one and that of Distill-MOS, if it has both; silence does not change it."""
    pytest.importorskip("distillmos", reason="the extra references is not installed")
    (speech / "talker1").rename(speech / SYNTHETIC)
    shutil.rmtree(speech / "talker2")  # for time
    shutil.rmtree(speech / "talker3")
    done = prepare(tmp_path / "data", speech, "--wide", "true")
    assert done.returncode == 0, done.stderr
    predict = load_published("distillmos")
    kinds, padded = set(), 0
    data = [read_data_dir(tmp_path / "data" / name) for name in SETS]
    recordings = {recording.id: recording for recording in find_plain_speech(speech)}
    assert sorted(recordings) == sorted(utterance for one in data for utterance in one.wavs)
    for one in data:
        assert "Distill-MOS" in one.notes
        for utterance, (path, _) in one.wavs.items():
            kind, _, strength = one.systems[utterance].partition("_")
            kinds.add(kind)
            samples, length = read_audio(path), read_audio(recordings[utterance].path).size
            padded += samples.size > length
            if utterance.endswith(("0", "5")):  # some, for time
                before = np.flatnonzero(samples)[0] if samples.size > length else 0
                rating = predict(samples[before : before + length])
                if kind in QUALITY_LOSS and not utterance.startswith(SYNTHETIC):
                    rating = (rating + true_quality(kind, float(strength or 0) / 100, 0.0)) / 2
                # The first and last samples of a padded recording may be silent themselves.
                assert one.mos[utterance] == pytest.approx(rating, abs=0.15 if before else 0.01), utterance
    assert len(kinds & set(PROCESSING)) > 4 and kinds & {"mnru", "clean", "talker"}
    assert 20 < padded < 50
    synthetic = [one.systems[u] for one in data for u in one.wavs if u.startswith(SYNTHETIC)]
    assert 0.4 < np.mean([system == "clean" for system in synthetic]) < 0.9


def speak(text: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, EGS / "degraded" / "local" / "voices.py", "--text", text, "--out", out]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.usefixtures("voices")
def test_synthetic_voices_speak_every_sentence_once(tmp_path):
    text, out = tmp_path / "text", tmp_path / "out"
    text.write_text("".join(f"u{n} THE BUS IS LATE\n" for n in range(40)))
    assert speak(text, out).returncode == 0
    made = sorted((out / SYNTHETIC).glob("*/*.wav"))
    assert sorted(path.stem for path in made) == sorted(f"u{n}" for n in range(40))
    assert len({path.parent for path in made}) > 7
    assert all(soundfile.info(path).duration > 0.5 for path in made)
    done = speak(text, out)
    assert done.returncode == 2 and says(done.stderr, out / SYNTHETIC)


@pytest.mark.usefixtures("voices")
def test_a_sentence_whose_id_is_no_file_name_is_refused(tmp_path):
    (tmp_path / "text").write_text("a/b THE BUS IS LATE\n")
    done = speak(tmp_path / "text", tmp_path / "out")
    assert done.returncode == 2 and says(done.stderr, tmp_path / "text", "a/b")
    assert not (tmp_path / "out").exists()


def test_a_third_of_the_recordings_has_a_limit_below_8_khz(made):
    sets = [read_data_dir(made / "data" / name) for name in SETS]
    paths = [
        path for data in sets for name, (path, _) in data.wavs.items() if data.groups[data.systems[name]] != "band"
    ]
    highest = np.array([power(read_audio(path), 7900, 8000) for path in paths])
    assert 0.2 < np.mean(highest < 1e-11) < 0.45
    assert np.mean((highest > 1e-11) & (highest < 1e-8)) < 0.02  # only the rounding of samples is left


def power(samples: np.ndarray, low: float, high: float) -> float:
    """Return the power of (N,) samples between two frequencies in Hz; a full-scale square wave has power 1."""
    frequencies = np.fft.rfftfreq(samples.size, 1 / RATE)
    spectrum = np.abs(np.fft.rfft(samples)[(frequencies >= low) & (frequencies < high)]) / samples.size
    return float(2 * np.square(spectrum).sum())


def test_the_degradation_of_a_recording_does_not_depend_on_the_others(made, tmp_path, speech):
    shutil.rmtree(speech / "talker3")
    assert prepare(tmp_path / "b", speech, "--degrade_jobs", "1").returncode == 0
    kept = sorted((tmp_path / "b" / "wav").iterdir())
    assert len(kept) == 150
    same = [path.read_bytes() == (made / "data" / "wav" / path.name).read_bytes() for path in kept]
    talkers = (tmp_path / "b" / "train" / "sys2group").read_text().count(" talker\n")
    assert same.count(False) <= max(1, talkers)  # if the other talker was among the removed recordings


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (lambda root: shutil.copy(root / "talker1" / "r1.flac", root / "talker1-r1.flac"), "talker1-r1"),
        (lambda root: (root / "talker1" / "r1.flac").rename(root / "talker1" / "r 1.flac"), "'talker1-r 1'"),
        (lambda root: soundfile.write(root / "quiet.wav", np.zeros(8000), RATE), "quiet.wav"),
        (lambda root: (root / "broken.wav").write_bytes(b"RIFF"), "broken.wav"),
    ],
    ids=["twice", "space", "silent", "broken"],
)
def test_faults_are_named_and_leave_an_older_corpus_unchanged(made, tmp_path, speech, spoil, name):
    data = shutil.copytree(made / "data", tmp_path / "data")
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    spoil(speech)
    done = prepare(data, speech)
    assert done.returncode == 2
    assert says(done.stderr, name)
    assert {path: path.read_bytes() for path in data.rglob("*") if path.is_file()} == before


def test_the_recordings_themselves_are_never_replaced(tmp_path, speech):
    inside = tmp_path / "data" / "wav"
    inside.parent.mkdir()
    speech.rename(inside)
    for directory in (inside, inside / "talker1", tmp_path):
        done = prepare(tmp_path / "data", directory)
        assert done.returncode == 2 and says(done.stderr, directory, inside)
    assert len(list(inside.rglob("*.flac"))) == 200


def test_only_a_directory_of_audio_with_utf_8_names_is_accepted(tmp_path, speech):
    file = next(speech.rglob("*.flac"))
    done = prepare(tmp_path / "data", file)
    assert done.returncode == 2 and says(done.stderr, file)
    file.rename(os.fsdecode(os.fsencode(speech) + b"/\xff.flac"))
    done = prepare(tmp_path / "data", speech)
    assert done.returncode == 2 and "udcff.flac" in done.stderr
