"""Warnings of silence, channels that cancel, clipping and wrong headers, and none for other recordings."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from distilmos.data.audio import ChannelError, read_audio, stream_audio
from distilmos.data.checks import Checks

CASES = Path(__file__).resolve().parents[1] / "cases"
RATE = 22050
TIME = np.arange(2 * RATE) / RATE
TONE = np.sin(2 * np.pi * 200 * TIME)
NOISE = np.random.default_rng(0).standard_normal((TIME.size, 4))


def spoilt(share: float) -> np.ndarray:
    """Return noise with a share of samples in runs of 10 at full scale, which count 9 each."""
    samples = 0.1 * NOISE[:, 0]
    runs = round(share * samples.size / 9)
    for start in np.linspace(0, samples.size - 10, runs).astype(int):
        samples[start : start + 10] = 1.0 if start % 2 else -1.0
    return samples


RECORDINGS = {
    "zeros": (np.zeros(TIME.size), "silent"),
    "zeros in two channels": (np.zeros((TIME.size, 2)), "silent"),
    "-81 dB": (10 ** (-81 / 20) * TONE, "silent"),
    "-79 dB": (10 ** (-79 / 20) * TONE, ""),
    "one click": (np.eye(1, TIME.size, 500)[0], ""),
    "antiphase": (np.stack([0.5 * TONE, -0.5 * TONE], 1), "cancel"),
    "antiphase and noise": (np.stack([0.5 * TONE, -0.5 * TONE], 1) + 0.01 * NOISE[:, :2], "cancel"),
    "antiphase, one softer": (np.stack([0.5 * TONE, -0.3 * TONE], 1), ""),
    "one of two is silent": (np.stack([0.5 * TONE, 0 * TONE], 1), ""),
    "unrelated": (0.1 * NOISE, ""),
    "full scale": (TONE, ""),
    "0.9 % clipped": (spoilt(0.009), ""),
    "1.1 % clipped": (spoilt(0.011), "clipped"),
    "one of two is clipped": (np.stack([spoilt(0.03), 0.1 * NOISE[:, 0]], 1), "clipped"),
    "square wave": (np.sign(TONE), "clipped"),
}


def warnings_of(path: Path, block_seconds: float | None = None, channel: int | None = None) -> list[str]:
    checks = Checks()
    if block_seconds is None:
        read_audio(path, channel=channel, checks=checks)
    else:
        list(stream_audio(path, block_seconds, channel=channel, checks=checks))
    return checks.warnings()


@pytest.mark.parametrize("name", RECORDINGS)
def test_warnings_do_not_depend_on_the_parts(tmp_path: Path, name: str) -> None:
    samples, word = RECORDINGS[name]
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="PCM_16")
    found = warnings_of(tmp_path / "a.wav")
    assert [word in text for text in found] == [True] * bool(word)
    for block_seconds in (0.001, 0.3):
        assert warnings_of(tmp_path / "a.wav", block_seconds) == found


@pytest.mark.parametrize(("channel", "word"), [(1, ""), (2, "silent"), (3, "clipped")])
def test_only_the_chosen_channel_counts(tmp_path: Path, channel: int, word: str) -> None:
    samples = np.stack([0.5 * TONE, 0 * TONE, np.sign(TONE)], 1)
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    assert [word in text for text in warnings_of(tmp_path / "a.wav", channel=channel)] == [True] * bool(word)
    soundfile.write(tmp_path / "mono.wav", samples[:, channel - 1], RATE, subtype="FLOAT")
    np.testing.assert_array_equal(
        read_audio(tmp_path / "a.wav", channel=channel), read_audio(tmp_path / "mono.wav", channel=1)
    )


def test_a_channel_that_does_not_exist(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.stack([TONE] * 3, 1), RATE)
    with pytest.raises(ChannelError, match=r"a\.wav: .*\b3\b.*\b4\b"):
        read_audio(tmp_path / "a.wav", channel=4)


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "AU", "W64"])
def test_a_header_with_a_size_that_is_too_large(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    soundfile.write(path, 0.5 * TONE[:RATE], RATE, format=kind, subtype="PCM_16")
    data = path.read_bytes()
    assert warnings_of(path) == []
    path.write_bytes(data[:-8])
    (text,) = warnings_of(path)
    given, there = (int(number) for number in re.findall(r"\d+", text))
    assert given - there == 8


def test_a_header_without_a_size_is_normal() -> None:
    assert warnings_of(CASES / "data0.wav") == []
    assert len(warnings_of(CASES / "data_plus8.wav")) == 1
