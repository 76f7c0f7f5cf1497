from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from distilmos.data import audio
from distilmos.data.archive import open_archive, read_scp
from distilmos.data.audio import audio_seconds, read_audio
from distilmos.errors import InputError


def tone(rate: int, seconds: float = 0.5, frequency: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate)


@pytest.mark.parametrize(
    ("rate", "subtype", "suffix"),
    [(8000, "PCM_16", ".wav"), (44100, "FLOAT", ".wav"), (48000, "PCM_24", ".flac"), (16000, "PCM_16", ".raw.wav")],
)
def test_any_rate_becomes_16_khz(tmp_path: Path, rate: int, subtype: str, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, tone(rate), rate, subtype=subtype)
    samples = read_audio(path)
    assert samples.dtype == np.float32
    assert samples.shape == (8000,)
    np.testing.assert_allclose(samples[200:-200], tone(16000)[200:-200], atol=2e-3)
    assert audio_seconds(path) == pytest.approx(0.5)


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 768000])
def test_both_ways_of_resampling_agree(monkeypatch: pytest.MonkeyPatch, rate: int) -> None:
    samples = np.random.default_rng(0).standard_normal(rate // 3 + 7).astype(np.float32)
    monkeypatch.setattr(audio, "MAX_TABLE", 1000)
    found = audio.resample(samples, rate)
    exact = torchaudio.functional.resample(torch.from_numpy(samples).double(), rate, 16000).numpy()
    np.testing.assert_allclose(found, exact, atol=2e-6)
    # The table is less exact, in single precision as that of torchaudio.
    monkeypatch.undo()
    tabulated = audio.resample(samples, rate)
    np.testing.assert_allclose(found, tabulated, atol=2e-4)
    theirs = torchaudio.functional.resample(torch.from_numpy(samples), rate, 16000).numpy()
    np.testing.assert_allclose(tabulated, theirs, atol=2e-6)


def test_samples_at_16_khz_stay_as_they_are() -> None:
    samples = np.random.default_rng(0).standard_normal(100).astype(np.float32)
    np.testing.assert_array_equal(audio.resample(samples, 16000), samples)


@pytest.mark.parametrize("rate", [1001, 44099, 767999])
def test_awkward_rates_take_little_memory(tmp_path: Path, rate: int) -> None:
    """A table of the filter's values would have up to 10^10 entries."""
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(rate, 1.5, 100.0), rate, subtype="FLOAT")
    tracemalloc.start()
    samples = read_audio(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6
    assert samples.size == -(-int(rate * 1.5) * 16000 // rate)
    np.testing.assert_allclose(samples[300:-300], tone(16000, 1.5, 100.0)[300 : samples.size - 300], atol=2e-3)
    np.testing.assert_allclose(np.concatenate(list(audio.stream_audio(path, 0.3))), samples, atol=1e-6)


def test_a_short_recording_does_not_hold_memory_for_a_long_one(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(16000), 16000)
    tracemalloc.start()
    parts = audio.stream_audio(tmp_path / "a.wav", 30)
    samples = next(parts)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    parts.close()
    assert samples.nbytes == 4 * 8000
    assert held < 5 * samples.nbytes  # a block of 30 s is 60 times the recording


@pytest.mark.parametrize("rate", [1, 999, 768001, 2**31 - 1])
def test_rates_that_no_recording_has(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(2000), rate)
    for read in (read_audio, audio_seconds):
        with pytest.raises(InputError, match=rf"a\.wav: .*\b{rate}\b.*\b1000\b.*\b768000\b"):
            read(tmp_path / "a.wav")


def test_channels_are_averaged(tmp_path: Path) -> None:
    left = tone(16000)
    soundfile.write(tmp_path / "a.wav", np.stack([left, np.zeros_like(left)], axis=1), 16000, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav"), left / 2, atol=1e-6)


def test_silence_is_audio(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
    assert not read_audio(tmp_path / "a.wav").any()


def make_bad(path: Path, kind: str) -> None:
    soundfile.write(path, tone(16000), 16000)
    whole = path.read_bytes()
    if kind == "empty file":
        path.write_bytes(b"")
    elif kind == "cut off":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "cut in the header":
        path.write_bytes(whole[:20])
    elif kind == "text":
        path.write_text("this is not audio\n" * 50)
    elif kind == "no samples":
        soundfile.write(path, np.zeros(0), 16000)
    elif kind == "no samples 8k":
        soundfile.write(path, np.zeros(0), 8000)
    elif kind == "short":
        soundfile.write(path, np.zeros(399), 16000)
    elif kind == "nan":
        soundfile.write(path, np.full(16000, np.nan), 16000, subtype="FLOAT")
    elif kind == "infinite":
        soundfile.write(path, np.full(16000, np.inf), 16000, subtype="FLOAT")
    elif kind == "missing":
        path.unlink()
    elif kind == "directory":
        path.unlink()
        path.mkdir()
    elif kind == "pipe":
        path.unlink()
        os.mkfifo(path)


BAD = (
    *("empty file", "cut off", "cut in the header", "text", "no samples", "no samples 8k", "short", "nan", "infinite"),
    *("missing", "directory", "pipe"),
)


@pytest.mark.parametrize("kind", BAD)
def test_bad_recordings_are_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "bad.wav"
    make_bad(path, "none")
    assert read_audio(path).size == 8000  # so that only the fault can be the reason
    make_bad(path, kind)
    with pytest.raises(InputError) as caught:
        read_audio(path)
    file, _, reason = str(caught.value).partition(": ")
    assert file == str(path)
    if kind == "short":
        assert "24.9" in reason


@pytest.mark.parametrize(("rate", "frames"), [(16000, 400), (44100, 1101), (8000, 200), (48000, 1198)])
def test_the_header_tells_what_is_too_short(tmp_path: Path, rate: int, frames: int) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(frames), rate)
    assert read_audio(tmp_path / "a.wav").size == 400
    assert audio_seconds(tmp_path / "a.wav") == frames / rate
    soundfile.write(tmp_path / "a.wav", np.zeros(frames - 5), rate)
    for read in (read_audio, audio_seconds):
        with pytest.raises(InputError, match=r"a\.wav: .*\b2[0-4]\.\d\b.*\b25\b"):
            read(tmp_path / "a.wav")


def test_a_wav_with_a_chunk_after_the_audio_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with soundfile.SoundFile(path, "w", 16000, 1) as sound:
        sound.write(tone(16000))
        sound.comment = "some text"
    assert read_audio(path).size == 8000


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000])
def test_a_wav_that_came_through_a_pipe_is_whole(tmp_path: Path, size: int) -> None:
    """Its header was written before its length was known."""
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(16000), 16000)
    expected, whole = read_audio(path), path.read_bytes()
    path.write_bytes(whole[:40] + size.to_bytes(4, "little") + whole[44:])
    assert np.array_equal(read_audio(path), expected)
    assert audio_seconds(path) == 0.5


def test_raw_suffix_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(bytes(64000))
    with pytest.raises(InputError, match=r"a\.raw: "):
        read_audio(tmp_path / "a.raw")


def test_a_sample_dump_is_refused_because_a_cut_one_would_be_silence(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.sds", np.zeros(16000), 16000, subtype="PCM_24", format="SDS")
    with pytest.raises(InputError, match=rf"^{tmp_path}/a\.sds: "):
        read_audio(tmp_path / "a.sds")


@pytest.mark.parametrize("offset", [10**6, 2**64])
def test_an_offset_after_the_end_of_an_archive(tmp_path: Path, offset: int) -> None:
    (tmp_path / "a.ark").write_bytes(b"AUDIO")
    with pytest.raises(InputError, match=rf"^{tmp_path}/a\.ark: .*{offset}"):
        read_audio(tmp_path / "a.ark", offset)


def test_audio_inside_an_archive(tmp_path: Path) -> None:
    values = {f"u{n}": (tone(16000, 0.1 * (n + 1)) * 32768).astype(np.int16) for n in range(3)}
    with open_archive(tmp_path / "wav") as archive:
        for utterance, value in values.items():
            archive.write(utterance, (16000, value))
    for utterance, location in read_scp(tmp_path / "wav.scp").items():
        np.testing.assert_array_equal(read_audio(*location) * 32768, values[utterance])
        assert audio_seconds(*location) == pytest.approx(values[utterance].size / 16000)
