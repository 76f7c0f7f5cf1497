"""Codecs, vocoders and noise suppression of simulated corpora."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.corpora import clean_speech
from scipy.signal import stft

from distilmos.errors import FailedError, InputError
from distilmos.simulation.degrade import at_level
from distilmos.simulation.processing import CODECS, PROCESSING, Codec, check_codecs


@pytest.fixture(params=PROCESSING)
def kind(request):
    """Each kind of processing; codecs need ffmpeg."""
    if request.param in CODECS:
        request.getfixturevalue("ffmpeg")
    return request.param


@pytest.fixture
def speech():
    return at_level(clean_speech()[0])


def test_more_processing_changes_the_spectrogram_more(kind, speech):
    changes = []
    for strength in (0.0, 1.0):
        heard = PROCESSING[kind](speech, strength, np.random.default_rng(3))
        assert heard.shape == speech.shape and heard.dtype == np.float32 and np.isfinite(heard).all()
        np.testing.assert_array_equal(heard, PROCESSING[kind](speech, strength, np.random.default_rng(3)))
        changes.append(distance(speech, heard))
    assert changes[0] < 0.9 * changes[1], changes


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Return the smallest mean difference in dB between the spectrograms of (N,) signals, over delays up to 100 ms."""
    return min(float(np.abs(levels(one) - levels(np.roll(other, -delay))).mean()) for delay in range(0, 1600, 80))


def levels(samples: np.ndarray) -> np.ndarray:
    power = np.square(np.abs(stft(samples, nperseg=512)[2]))
    return 10 * np.log10(power + 1e-4 * power.max())


@pytest.mark.parametrize("samples", [400, 511, 700])
def test_very_short_recordings_keep_their_length(kind, samples, speech):
    heard = PROCESSING[kind](speech[4000 : 4000 + samples], 1.0, np.random.default_rng(1))
    assert heard.shape == (samples,) and np.isfinite(heard).all() and heard.any()


@pytest.mark.usefixtures("ffmpeg")
def test_without_ffmpeg_or_its_encoder_the_error_names_it(monkeypatch):
    check_codecs()
    monkeypatch.setitem(CODECS, "opus", Codec("libnowhere", 16000, ((),), "ogg", "ogg"))
    with pytest.raises(FailedError, match="libnowhere"):
        check_codecs()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="ffmpeg"):
        check_codecs()
