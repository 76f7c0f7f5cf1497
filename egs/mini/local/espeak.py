"""Text to speech with eSpeak NG, from the pip package espeakng-loader."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

from distilmos.data.audio import SAMPLE_RATE
from distilmos.errors import FailedError, InputError

WORKER = Path(__file__).with_name("espeak_worker.py")
SILENCE = 0.01  # of the peak; quieter samples at the start and the end are a pause
PAUSE_SECONDS = 0.1


@dataclass(frozen=True)
class Voice:
    """A voice of eSpeak NG.

    Attributes:
        name: a language, and a variant after `+`, such as en-us+f3.
        words_per_minute: 80 to 450.
        pitch: 0 to 99.
    """

    name: str
    words_per_minute: int = 170
    pitch: int = 50


def synthesise(sentence: str, voice: Voice) -> np.ndarray:
    """Speak one sentence; see `synthesise_all`."""
    return synthesise_all([(sentence, voice)])[0]


def synthesise_all(requests: Sequence[tuple[str, Voice]]) -> list[np.ndarray]:
    """Speak sentences; each result depends only on its own sentence and voice.

    Args:
        requests: (sentence, voice) pairs.

    Returns:
        for each, 16 kHz float32 samples, shape (N,), full scale -1..1, with a pause of 0.1 s before and after.

    Raises:
        InputError: if the package espeakng-loader is not installed.
        FailedError: if eSpeak NG does not start, lacks a voice or cannot speak a sentence.
    """
    if importlib.util.find_spec("espeakng_loader") is None:
        raise InputError("needs the Python package espeakng_loader: pip install 'distilmos[recipes]'")
    orders = [(voice.name, voice.words_per_minute, voice.pitch, sentence) for sentence, voice in requests]
    done = subprocess.run([sys.executable, str(WORKER)], input=json.dumps(orders).encode(), capture_output=True)
    if done.returncode != 0:
        raise FailedError(done.stderr.decode(errors="replace").strip())
    rate = int.from_bytes(done.stdout[:4], "little")
    position = 4
    speech = []
    for _ in orders:
        count = int.from_bytes(done.stdout[position : position + 4], "little")
        samples = np.frombuffer(done.stdout, "<i2", count, position + 4)
        position += 4 + 2 * count
        speech.append(_without_long_pauses(_resampled(samples, rate)))
    return speech


def _resampled(samples: np.ndarray, rate: int) -> np.ndarray:
    """Convert int16 samples at `rate` to float32 at 16 kHz."""
    divisor = int(np.gcd(rate, SAMPLE_RATE))
    resampled: np.ndarray = resample_poly(samples / 32768, SAMPLE_RATE // divisor, rate // divisor)
    return resampled.astype(np.float32)


def _without_long_pauses(samples: np.ndarray) -> np.ndarray:
    """Trim the silence before the first and after the last sound to 0.1 s."""
    loud = np.flatnonzero(np.abs(samples) > SILENCE * np.abs(samples).max())
    pause = np.zeros(round(PAUSE_SECONDS * SAMPLE_RATE), np.float32)
    return np.concatenate([pause, samples[loud[0] : loud[-1] + 1], pause])
