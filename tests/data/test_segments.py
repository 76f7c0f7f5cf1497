"""Kaldi directories as they are: wav.scp alone, `segments`, and pipes in wav.scp."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from distilmos.cli import main
from distilmos.data.archive import read_scp
from distilmos.data.audio import read_audio
from distilmos.data.datadir import read_data_dir
from distilmos.data.recordings import find_recordings
from distilmos.data.tables import read_floats
from distilmos.errors import InputError

CASES = Path(__file__).resolve().parents[1] / "cases"
STEP = 1 / 32768


@pytest.fixture
def segmented(tmp_path: Path) -> Path:
    """A directory of two recordings of 2 s, with segments that are not in the order of time."""
    data = tmp_path / "data"
    data.mkdir()
    generator = np.random.default_rng(0)
    for name in ("r1", "r2"):
        soundfile.write(tmp_path / f"{name}.wav", generator.uniform(-0.5, 0.5, 32000), 16000)
    (data / "wav.scp").write_text(f"r1 {tmp_path}/r1.wav\nr2 {tmp_path}/r2.wav\n")
    (data / "segments").write_text("a r2 0.5 1.25\nb r1 1.5 -1\nc r1 0 0.5\n")
    return data


def dump(data: Path, out: Path, *options: str) -> int:
    return main(["dump-audio", str(data), str(out), *options]) or main(["merge-archives", str(out), "--jobs", "1"])


def expected(directory: Path) -> dict[str, np.ndarray]:
    first, second = (read_audio(directory / f"{name}.wav") for name in ("r1", "r2"))
    return {"a": second[8000:20000], "b": first[24000:], "c": first[:8000]}


@pytest.mark.parametrize(("case", "utterances"), [("kaldi_dir", ["u1"]), ("segments_dir", ["u1", "u2"])])
def test_directories_of_other_tools(case: str, utterances: list[str], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(CASES / case)
    found = list(find_recordings(["."]))
    assert [recording.utterance for recording in found] == utterances
    assert dump(Path(), tmp_path / "raw") == 0
    dumped = read_scp(tmp_path / "raw/wav.scp")
    assert list(dumped) == utterances
    assert not (tmp_path / "raw/segments").exists()
    for recording in found:
        samples = np.concatenate(list(recording.stream(0.3)))
        np.testing.assert_allclose(read_audio(*dumped[recording.utterance]), samples, atol=STEP)
        assert read_floats(tmp_path / "raw/utt2dur")[recording.utterance] == samples.size / 16000


def test_segments_are_the_samples_of_their_spans(segmented: Path, tmp_path: Path) -> None:
    found = {r.utterance: np.concatenate(list(r.stream(0.2))) for r in find_recordings([str(segmented)])}
    wanted = expected(tmp_path)
    assert list(found) == list(wanted)
    assert dump(segmented, tmp_path / "raw") == 0
    dumped = read_scp(tmp_path / "raw/wav.scp")
    for utterance, samples in wanted.items():
        np.testing.assert_array_equal(found[utterance], samples)
        np.testing.assert_allclose(read_audio(*dumped[utterance]), samples, atol=STEP)


BAD_SEGMENTS = {
    "b r1 1 1": "1 to 1",
    "b r1 1 0.5": "1 to 0.5",
    "b r1 -0.1 1": "-0.1 to 1",
    "b r1 0 -2": "0 to -2",
    "b r1 0 end": "'end'",
    "b r1 0": "'r1 0'",
    "b r1 0 1 A": "'r1 0 1 A'",
    "b r3 0 1": "r3",
    "a r1 0 1": "line 1",
}


@pytest.mark.parametrize(("line", "named"), BAD_SEGMENTS.items())
def test_bad_segments_are_named_and_nothing_is_written(segmented: Path, tmp_path: Path, line, named, capsys) -> None:
    (segmented / "segments").write_text(f"a r1 0 1\n{line}\n")
    with pytest.raises(InputError) as caught:
        find_recordings([str(segmented)])
    assert main(["dump-audio", str(segmented), str(tmp_path / "raw")]) == 2
    for text in (str(caught.value), capsys.readouterr().err):
        (fault,) = [fault for fault in text.splitlines() if f"{segmented}/segments:2: " in fault]
        assert named in fault
    assert not (tmp_path / "raw").exists()


@pytest.mark.parametrize("times", ["1 2.6", "2 -1", "9 10"])
def test_segments_beyond_their_recording(segmented: Path, tmp_path: Path, times: str, capsys) -> None:
    (segmented / "segments").write_text(f"a r1 0 1\nb r1 {times}\nc r1 1.5 2.4\n")
    a, b, c = find_recordings([str(segmented)])
    assert sum(map(len, a.stream(1.0))) == 16000
    assert sum(map(len, c.stream(1.0))) == 8000  # moved to the end of the recording
    with pytest.raises(InputError, match=rf"^{segmented}/segments:2: b: {tmp_path}/r1\.wav: 2\.00 s"):
        list(b.stream(1.0))
    assert main(["dump-audio", str(segmented), str(tmp_path / "raw")]) == 2
    assert f"{segmented}/segments:2: b: {tmp_path}/r1.wav: 2.00 s" in capsys.readouterr().err
    assert not any(path.is_file() for path in (tmp_path / "raw").rglob("*"))


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg"])
def test_a_span_is_cut_before_it_is_resampled(tmp_path: Path, suffix: str) -> None:
    generator = np.random.default_rng(1)
    soundfile.write(tmp_path / f"x.{suffix}", generator.uniform(-0.5, 0.5, (88200, 2)), 44100)
    decoded, _ = soundfile.read(tmp_path / f"x.{suffix}", dtype="float32")
    soundfile.write(tmp_path / "cut.wav", decoded[13230:52920], 44100, subtype="FLOAT")
    span = read_audio(tmp_path / f"x.{suffix}", span=(0.3, 1.2))
    np.testing.assert_allclose(span, read_audio(tmp_path / "cut.wav"), rtol=0, atol=1e-6)


def test_commands_that_cannot_cut_refuse_segments(segmented: Path, tmp_path: Path, capsys) -> None:
    for name, value in {"utt2sys": "s", "utt2dur": "0.5"}.items():
        (segmented / name).write_text(f"a {value}\nb {value}\nc {value}\n")
    assert main(["validate-data", "--unrated", str(segmented)]) == 0
    with pytest.raises(InputError, match=f"{segmented}/segments: "):
        _ = read_data_dir(segmented, rated=False).wavs
    capsys.readouterr()
    assert main(["fix-data", str(segmented)]) == 2
    assert f"{segmented}/segments: " in capsys.readouterr().err
    other = shutil.copytree(segmented, tmp_path / "other")
    for path in other.iterdir():
        path.write_text(path.read_text().replace("a ", "d ").replace("b ", "e ").replace("c ", "f "))
    assert main(["combine-data", str(tmp_path / "joined"), str(segmented), str(other)]) == 0
    assert len(read_data_dir(tmp_path / "joined", rated=False).segments) == 6
    whole = tmp_path / "whole"
    whole.mkdir()
    for name, value in {"wav.scp": f"{tmp_path}/r1.wav", "utt2sys": "s", "utt2dur": "2"}.items():
        (whole / name).write_text(f"w1 {value}\nw2 {value}\n")
    capsys.readouterr()
    assert main(["combine-data", str(tmp_path / "mixed"), str(segmented), str(whole)]) == 2
    _, *faults = capsys.readouterr().err.splitlines()
    assert len(faults) == 1 and f"{segmented}/segments: " in faults[0]
    assert not (tmp_path / "mixed").exists()
    (other / "wav.scp").write_text((other / "wav.scp").read_text().replace("r1.wav", "r2.wav"))
    assert main(["combine-data", str(tmp_path / "wrong"), str(segmented), str(other)]) == 2
    assert f"{other}/wav.scp: r1 " in capsys.readouterr().err


def test_pipes_run_only_if_asked(segmented: Path, tmp_path: Path, capsys) -> None:
    ran = tmp_path / "ran"
    (segmented / "wav.scp").write_text(
        f"r1 echo r1 >>'{ran}'; cat '{tmp_path}/r1.wav' |\nr2 cat '{tmp_path}/r2.wav' | cat - |\n"
    )
    assert main(["dump-audio", str(segmented), str(tmp_path / "raw")]) == 2
    error = capsys.readouterr().err
    assert all(f"{segmented}/wav.scp:{line}: r{line}: " in error for line in (1, 2))
    assert error.count("--execute-pipes") == 2
    with pytest.raises(InputError, match=r"wav\.scp:1: r1: .*--execute-pipes"):
        find_recordings([str(segmented)])
    assert main(["validate-data", "--unrated", "--pipes", str(segmented)]) == 2  # no utt2sys
    assert "wav.scp" not in capsys.readouterr().err.replace(f"{segmented}/segments", "")
    assert not ran.exists()
    assert dump(segmented, tmp_path / "raw", "--execute-pipes") == 0
    assert ran.read_text() == "r1\n"  # once for both of its segments
    dumped = read_scp(tmp_path / "raw/wav.scp")
    for utterance, samples in expected(tmp_path).items():
        np.testing.assert_allclose(read_audio(*dumped[utterance]), samples, atol=STEP)


FAILING = {
    "cat {0}; exit 3 |": "exit status 3",
    "cat {0}.none | cat {0} |": "exit status 1",
    "true |": "'true'",
    "head -c 9000 {0} |": "cut off",
    "echo text |": "echo text",
    "no-such-command-x |": "exit status 127",
}


@pytest.mark.parametrize(("pipe", "named"), FAILING.items())
def test_a_failing_pipe_is_named_and_nothing_is_written(tmp_path: Path, pipe: str, named: str, capsys) -> None:
    (tmp_path / "data").mkdir()
    soundfile.write(tmp_path / "x.wav", np.full(16000, 0.1), 16000)
    audio = tmp_path / "x.wav"
    (tmp_path / "data/wav.scp").write_text(f"a {audio}\nb {pipe.format(audio)}\n")
    assert main(["dump-audio", str(tmp_path / "data"), str(tmp_path / "raw"), "--execute-pipes"]) == 2
    (fault,) = [line for line in capsys.readouterr().err.splitlines() if f"{tmp_path}/data/wav.scp:2: b: " in line]
    assert named in fault
    assert not any(path.is_file() for path in (tmp_path / "raw").rglob("*"))
