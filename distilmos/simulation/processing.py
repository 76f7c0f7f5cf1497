"""Degrade speech as codecs, vocoders and noise suppression do.

Every entry of PROCESSING is a function (samples, strength, rng) -> samples, like those of DEGRADATIONS, but nobody has
guessed a curve of its ratings. The codecs need an ffmpeg on PATH with their encoders, as Debian's has.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.ndimage import uniform_filter1d

from distilmos.data import ffmpeg
from distilmos.data.audio import SAMPLE_RATE
from distilmos.errors import FailedError, InputError
from distilmos.simulation.degrade import from_spectrogram, noise, spectrogram

OVERLAP = 384  # samples that neighbouring windows of a spectrogram share
_SAME = ("-bitexact", "-threads", "1")  # for both sides of ffmpeg: the same output each time


@dataclass(frozen=True)
class Codec:
    """A codec of ffmpeg.

    Attributes:
        encoder: ffmpeg's name of the encoder.
        rate: sampling rate in Hz.
        settings: options of the encoder, from the highest quality to the lowest.
        written, read: ffmpeg's names of the format that carries it.
    """

    encoder: str
    rate: int
    settings: tuple[tuple[str, ...], ...]
    written: str
    read: str


def _bitrates(*kilobits: float) -> tuple[tuple[str, ...], ...]:
    return tuple(("-b:a", f"{value}k") for value in kilobits)


CODECS = {
    "opus": Codec("libopus", 16000, _bitrates(32, 24, 16, 12, 9, 7.5, 6), "ogg", "ogg"),
    "speex": Codec("libspeex", 8000, _bitrates(24.6, 18.2, 15, 11, 8, 5.95, 3.95, 2.15), "ogg", "ogg"),
    "mp3": Codec("libmp3lame", 16000, _bitrates(64, 48, 32, 24, 16, 8), "mp3", "mp3"),
    "aac": Codec("aac", 16000, _bitrates(64, 48, 32, 24, 16, 12, 8), "adts", "aac"),
    "g726": Codec("g726", 8000, _bitrates(40, 32, 24, 16), "wav", "wav"),
    "codec2": Codec(
        "libcodec2", 8000, tuple(("-mode", mode) for mode in ("3200", "2400", "1600", "1200")), "codec2", "codec2"
    ),
}


def code(kind: str, samples: np.ndarray, strength: float, _rng: np.random.Generator) -> np.ndarray:
    """Encode and decode with the codec CODECS[kind], from its highest bit rate to its lowest.

    The decoded speech may be later by some milliseconds, as the codec delays it.

    Raises:
        InputError: if there is no ffmpeg.
        FailedError: if ffmpeg fails, for example because it lacks the encoder.
    """
    codec = CODECS[kind]
    setting = codec.settings[round(strength * (len(codec.settings) - 1))]
    raw = ["-f", "f32le", "-ac", "1", "-ar", str(SAMPLE_RATE)]
    encoder = ["-ar", str(codec.rate), "-c:a", codec.encoder, *setting, "-f", codec.written]
    coded = _ffmpeg(raw, samples.astype("<f4").tobytes(), encoder)
    heard = np.frombuffer(_ffmpeg(["-f", codec.read], coded, raw), "<f4")
    whole: np.ndarray = np.pad(heard, (0, max(0, samples.size - heard.size)))[: samples.size].astype(np.float32)
    return whole


def _ffmpeg(source: Sequence[str], data: bytes, target: Sequence[str]) -> bytes:
    """Convert `data` from one format to another."""
    if not ffmpeg.available():
        raise InputError("codecs need ffmpeg; install it")
    command = ["ffmpeg", "-loglevel", "error", *_SAME, *source, "-i", "pipe:0", *_SAME, *target, "pipe:1"]
    done = subprocess.run(command, input=data, capture_output=True)
    if done.returncode:
        raise FailedError(f"ffmpeg {' '.join(target)}: {done.stderr.decode('utf-8', 'replace').strip()}")
    return done.stdout


def suppress(samples: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Add white noise at 30 to 0 dB SNR, and subtract 1 to 3 times its mean power from each cell of the spectrogram.

    The rest of the noise sounds like short tones ("musical noise"), as after simple noise suppression.
    """
    noisy = noise(samples, 0.4 + 0.6 * strength, rng)
    cells = spectrogram(noisy, OVERLAP)
    subtracted = (1 + 2 * strength) * np.mean(np.square(np.abs(spectrogram(noisy - samples, OVERLAP))))
    power = np.square(np.abs(cells))
    return from_spectrogram(
        cells * np.sqrt(np.maximum(1 - subtracted / np.maximum(power, 1e-20), 0)), OVERLAP, samples.size
    )


def vocode(samples: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth the spectrogram and disturb its phases, as vocoders do.

    0 to 50 % of a cell's amplitude are replaced by the mean of the 9 cells around it (31 Hz each), so harmonics are
    washed out, and its phase changes by up to 0 to 110 degrees.
    """
    cells = spectrogram(samples, OVERLAP)
    magnitude = np.abs(cells)
    share = 0.5 * strength
    magnitude = (1 - share) * magnitude + share * np.sqrt(uniform_filter1d(np.square(magnitude), 9, axis=0))
    phase = np.angle(cells) + 0.6 * np.pi * strength * rng.uniform(-1, 1, cells.shape)
    return from_spectrogram(magnitude * np.exp(1j * phase), OVERLAP, samples.size)


def check_codecs() -> None:
    """Encode a short signal with each codec, to find out before slow work whether ffmpeg has all of them.

    Raises:
        InputError, FailedError: as `code`.
    """
    rng = np.random.default_rng(0)
    for kind in CODECS:
        code(kind, rng.standard_normal(SAMPLE_RATE // 10).astype(np.float32) / 10, 0.0, rng)


PROCESSING: dict[str, Callable[[np.ndarray, float, np.random.Generator], np.ndarray]] = {
    "suppress": suppress,
    "vocode": vocode,
    **{kind: partial(code, kind) for kind in CODECS},
}
