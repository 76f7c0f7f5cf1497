"""Stage 1: `distilmos dump-audio` and `merge-archives`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from distilmos.data.audio import read_audio
from distilmos.data.datadir import Utterance, write_data_dir
from distilmos.data.dump import dump_audio, merge_shards
from distilmos.data.tables import read_floats
from distilmos.errors import InputError

kaldiio = pytest.importorskip("kaldiio")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    generator = np.random.default_rng(1)
    for n, rate in enumerate((16000, 8000, 44100, 16000, 16000)):
        scale = (0.5, 0.5, 0.5, 1.5, 0.0)[n]
        samples = scale * generator.uniform(-1, 1, rate // 4)
        soundfile.write(tmp_path / f"{n}.wav", samples, rate, subtype="FLOAT")
    utterances = [Utterance(f"u{n}", tmp_path / f"{n}.wav", "s", mos=3.0) for n in range(5)]
    write_data_dir(tmp_path / "data", utterances)
    return tmp_path / "data"


def test_jobs_together_write_all_audio(data: Path, tmp_path: Path) -> None:
    summaries = [dump_audio(data, tmp_path / "raw", job, 3) for job in (1, 2, 3)]
    assert sum(summary.utterances for summary in summaries) == 5
    warnings = [warning.rpartition(": ")[0] for summary in summaries for warning in summary.warnings]
    assert warnings == [f"{data / 'wav.scp'}:4: u3", f"{data / 'wav.scp'}:5: u4"]
    assert merge_shards(tmp_path / "raw", 3) == {"utt2dur": 5, "wav": 5}
    names = ["utt2dur", "utt2mos", "utt2sys", "wav.ark", "wav.scp"]
    assert sorted(path.name for path in (tmp_path / "raw").iterdir()) == names
    for name, (rate, samples) in kaldiio.load_scp(str(tmp_path / "raw/wav.scp")).items():
        original = np.clip(read_audio(tmp_path / f"{name[1]}.wav"), -1, 1)
        assert rate == 16000
        np.testing.assert_allclose(samples / 32768, original, atol=1 / 32768)
        assert read_floats(tmp_path / "raw/utt2dur")[name] == samples.size / 16000


def test_the_number_of_jobs_does_not_change_the_audio(data: Path, tmp_path: Path) -> None:
    archives = []
    for jobs in (1, 7):
        for job in range(1, jobs + 1):
            dump_audio(data, tmp_path / f"raw{jobs}", job, jobs)
        merge_shards(tmp_path / f"raw{jobs}", jobs)
        archives.append((tmp_path / f"raw{jobs}/wav.ark").read_bytes())
    assert archives[0] == archives[1]


def test_bad_recordings_are_named_together_and_nothing_is_written(data: Path, tmp_path: Path) -> None:
    (tmp_path / "1.wav").write_bytes(b"")
    (tmp_path / "2.wav").write_text("text")
    with pytest.raises(InputError) as caught:
        dump_audio(data, tmp_path / "raw", 1, 1)
    assert f"{data}/wav.scp:2: u1: {tmp_path}/1.wav: " in str(caught.value)
    assert f"{data}/wav.scp:3: u2: {tmp_path}/2.wav: " in str(caught.value)
    assert not any(path.is_file() for path in (tmp_path / "raw").rglob("*"))


def test_merging_needs_every_job(data: Path, tmp_path: Path) -> None:
    dump_audio(data, tmp_path / "raw", 1, 2)
    with pytest.raises(InputError, match=r"\.2"):
        merge_shards(tmp_path / "raw", 2)
    with pytest.raises(InputError, match=str(tmp_path / "other" / "shards")):
        merge_shards(tmp_path / "other", 2)


def test_merging_ignores_what_a_killed_job_left(data: Path, tmp_path: Path) -> None:
    dump_audio(data, tmp_path / "raw", 1, 1)
    (tmp_path / "raw/shards/.wav.1.ark.99.tmp").touch()
    assert merge_shards(tmp_path / "raw", 1) == {"utt2dur": 5, "wav": 5}
    assert not (tmp_path / "raw/shards").exists()


def test_merging_fewer_jobs_than_wrote_loses_nothing(data: Path, tmp_path: Path) -> None:
    for job in (1, 2, 3, 4):
        dump_audio(data, tmp_path / "raw", job, 4)
    with pytest.raises(InputError) as caught:
        merge_shards(tmp_path / "raw", 1)
    for job in (2, 3, 4):
        assert f"shards/utt2dur.{job}: " in str(caught.value)
        assert f"shards/wav.{job}.ark: " in str(caught.value)
    assert merge_shards(tmp_path / "raw", 4) == {"utt2dur": 5, "wav": 5}


def test_merging_needs_every_shard_of_every_name(data: Path, tmp_path: Path) -> None:
    for job in (1, 2):
        dump_audio(data, tmp_path / "raw", job, 2)
    (tmp_path / "raw/shards/wav.1.scp").rename(tmp_path / "kept")
    with pytest.raises(InputError, match=r"wav\.1: "):
        merge_shards(tmp_path / "raw", 2)
    (tmp_path / "kept").rename(tmp_path / "raw/shards/wav.1.scp")
    assert merge_shards(tmp_path / "raw", 2) == {"utt2dur": 5, "wav": 5}


def test_an_utterance_in_two_shards_of_a_table_is_refused(data: Path, tmp_path: Path) -> None:
    for job in (1, 2):
        dump_audio(data, tmp_path / "raw", job, 2)
    second = tmp_path / "raw/shards/utt2dur.2"
    second.write_text("u0 1\n" + second.read_text())
    with pytest.raises(InputError, match=r"utt2dur\.2: u0 "):
        merge_shards(tmp_path / "raw", 2)
    assert second.exists()
