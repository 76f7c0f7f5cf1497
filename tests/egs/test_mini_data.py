"""Stage 0 of egs/mini: the corpus, and the modules that make it."""

import shutil
import sys
from collections import defaultdict
from pathlib import Path

import espeakng_loader
import numpy as np
import pytest
import soundfile
from helpers.recipes import EGS, run_script

from distilmos.data.datadir import read_data_dir, validate_data_dir
from distilmos.data.tables import read_table
from distilmos.errors import FailedError
from distilmos.simulation.degrade import LEVEL

RECIPE = EGS / "mini"
sys.path.append(str(RECIPE / "local"))

from espeak import Voice, synthesise, synthesise_all  # noqa: E402

SETS = ("train", "dev", "test", "test_ood")
OLD_BRIDGE = "The old bridge was closed for repairs."
GARDEN = "She keeps a small garden."


def make(datadir, *options):
    return run_script(RECIPE / "local" / "data.sh", "--datadir", datadir, *options)


def contents(datadir):
    """Every file below `datadir`, without the path of `datadir` in its content."""
    place = str(datadir).encode()
    return {
        str(path.relative_to(datadir)): path.read_bytes().replace(place, b"")
        for path in datadir.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The small corpus."""
    datadir = tmp_path_factory.mktemp("mini") / "data"
    done = make(datadir, "--size", "small")
    assert done.returncode == 0, done.stderr
    assert "simulated" in done.stdout
    return datadir


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """The corpus of the recipe."""
    datadir = tmp_path_factory.mktemp("mini") / "data"
    done = make(datadir)
    assert done.returncode == 0, done.stderr
    return datadir


@pytest.fixture(params=["small", pytest.param("full", marks=pytest.mark.slow)])
def corpus(request):
    """The corpus in each size: set -> data directory."""
    datadir = request.getfixturevalue(request.param)
    return {name: read_data_dir(datadir / name) for name in SETS}


def kinds(data):
    return set(data.groups.values())


def test_the_sets_are_valid_data_directories(small):
    for name in SETS:
        assert validate_data_dir(small / name) == []
        assert {path.name for path in (small / name).iterdir()} >= {"text", "utt2spk", "ratings", "sys2group", "notes"}
    assert sorted(path.name for path in small.iterdir()) == sorted([*SETS, "wav"])


def test_no_sentence_and_no_utterance_is_in_two_sets(corpus):
    for of_set in (
        [set(read_table(data.path / "text").values()) for data in corpus.values()],
        [set(data.utterances) for data in corpus.values()],
    ):
        assert len(set.union(*of_set)) == sum(map(len, of_set))


def test_test_has_unseen_systems_and_test_ood_unseen_types(corpus):
    systems = {name: set(data.systems.values()) for name, data in corpus.items()}
    assert systems["dev"] == systems["train"]
    assert systems["test"] & systems["train"]
    assert len(systems["test"] - systems["train"]) >= 7
    assert kinds(corpus["test"]) <= kinds(corpus["train"])
    assert kinds(corpus["train"]) == {"clean", "noise", "babble", "clip", "band", "loss", "quantise", "echo"}
    assert len(kinds(corpus["test_ood"])) == 4
    assert not kinds(corpus["test_ood"]) & kinds(corpus["train"])


def test_every_system_has_several_voices_and_every_set_every_voice(corpus):
    for data in corpus.values():
        voices = read_table(data.path / "utt2spk")
        of_system = defaultdict(set)
        for utterance, system in data.systems.items():
            of_system[system].add(voices[utterance])
        assert np.mean([len(heard) for heard in of_system.values()]) > 1.5
        assert len(set(voices.values())) == 12


def test_ratings_are_whole_and_marked_as_simulated(corpus):
    for data in corpus.values():
        assert "simulated" in data.notes
        assert list(data.ratings) == data.utterances
        for ratings in data.ratings.values():
            assert len({listener for listener, _ in ratings}) == len(ratings) == 8
            assert {score for _, score in ratings} <= {1, 2, 3, 4, 5}
            assert all(listener.startswith("simulated") for listener, _ in ratings)
    listeners = {listener for data in corpus.values() for ratings in data.ratings.values() for listener, _ in ratings}
    assert len(listeners) == 24


def test_the_mean_score_of_a_type_falls_with_its_strength(corpus):
    for sets in (("train", "dev", "test"), ("test_ood",)):
        scores = defaultdict(list)
        for data in (corpus[name] for name in sets):
            for utterance, system in data.systems.items():
                scores[system].append(data.mos[utterance])
        of_kind = defaultdict(dict)
        for system, values in scores.items():
            kind, _, strength = system.partition("_")
            of_kind[kind][int(strength or 0)] = np.mean(values)
        clean = of_kind.pop("clean", {0: 5.0})[0]
        for kind, means in of_kind.items():
            by_strength = [clean, *(means[strength] for strength in sorted(means))]
            assert all(np.diff(by_strength) < 0), (kind, means)
            assert by_strength[1] - by_strength[-1] > 1.5


def test_the_audio_is_16_khz_16_bit_speech_at_one_level(corpus):
    for data in corpus.values():
        assert len(data.utterances) >= 16
        for path, _ in data.wavs.values():
            info = soundfile.info(path)
            assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
            assert 1 < info.duration < 4
            samples = soundfile.read(path)[0]
            assert 10 * np.log10(np.mean(samples**2)) == pytest.approx(LEVEL, abs=0.1)
            assert np.abs(samples).max() < 0.9


@pytest.mark.slow
def test_the_same_bytes_every_time_also_in_a_directory_with_an_older_corpus(small, full, tmp_path):
    expected = contents(small)
    again = tmp_path / "elsewhere"
    shutil.copytree(full, again)
    done = make(again, "--size", "small")
    assert done.returncode == 0, done.stderr
    assert contents(again) == expected
    assert sorted(path.name for path in again.iterdir()) == sorted([*SETS, "wav"])


def test_unknown_size_is_refused(tmp_path):
    done = make(tmp_path / "data", "--size", "huge")
    assert done.returncode == 2
    assert "huge" in done.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("voice", [Voice("en-us"), Voice("en+f2", 150, 70)])
def test_speech_does_not_depend_on_earlier_sentences(voice):
    first, other, again = synthesise_all([(OLD_BRIDGE, voice), (GARDEN, Voice("en+m3")), (OLD_BRIDGE, voice)])
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(other, synthesise(GARDEN, Voice("en+m3")))


def test_voice_rate_and_pitch_have_an_effect():
    voices = [Voice("en-us"), Voice("en-us+f3"), Voice("en-us", words_per_minute=120), Voice("en-us", pitch=80)]
    plain, variant, slow, high = synthesise_all([(GARDEN, voice) for voice in voices])
    assert plain.dtype == np.float32
    assert slow.size > 1.2 * plain.size
    for other in (variant, high):
        assert other.size != plain.size or not np.allclose(other, plain)


@pytest.mark.parametrize(("sentence", "voice"), [(GARDEN, "nobody"), ("", "en-us")])
def test_a_sentence_that_espeak_cannot_speak_is_an_error(sentence, voice):
    with pytest.raises(FailedError, match=f"'{voice}'"):
        synthesise_all([(OLD_BRIDGE, Voice("en-us")), (sentence, Voice(voice))])


def test_espeak_speaks_from_a_long_path(tmp_path, monkeypatch):
    """By itself eSpeak NG accepts about 160 characters; virtual environments can be deeper."""
    expected = synthesise(GARDEN, Voice("en-us"))
    deep = tmp_path / ("x" * 100) / ("y" * 100)
    shutil.copytree(Path(espeakng_loader.__file__).parent, deep / "espeakng_loader")
    monkeypatch.setenv("PYTHONPATH", str(deep))
    np.testing.assert_array_equal(synthesise(GARDEN, Voice("en-us")), expected)
