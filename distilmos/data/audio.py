"""Audio input: any format of libsndfile, any rate and number of channels, converted to 16 kHz mono float32."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from distilmos.errors import InputError

SAMPLE_RATE = 16000
RATES = (1000, 768000)  # accepted sampling rates: lower ones hold no speech, and no recorder writes higher ones
# Receptive field of the convolutional front end of HuBERT, wav2vec 2.0 and WavLM; fewer samples give no frame.
MIN_SAMPLES = 400
# From this number of bytes on, the size in a WAV header means "until the end"; programs that write to a pipe set it.
UNKNOWN_SIZE = 0x7FFFF000
_WRONG_SIZE = re.compile(r"^data : (\d+) \(should be", re.MULTILINE)  # in libsndfile's log
MAX_TABLE = 1 << 20  # largest number of filter values to hold in memory


@contextmanager
def _open(path: Path, offset: int | None) -> Iterator[soundfile.SoundFile]:
    """Open an audio file, or audio inside an archive at a byte offset.

    Raises:
        InputError: for every error of opening or reading the file.
    """
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for its other end
            raise InputError(f"{path}: {'a directory' if path.is_dir() else 'a pipe or device'}, not a regular file")
        with path.open("rb") as stream:
            stream.seek(offset or 0)
            with soundfile.SoundFile(_FromHere(stream)) as sound:
                require_rate(sound.samplerate, str(path))
                # libsndfile reads a file that is cut off without an error; only its log shows the mismatch.
                # (Inside an archive, other data follow the recording, and the writer has checked it.)
                size = _WRONG_SIZE.search(sound.extra_info) if offset is None else None
                if size and int(size[1]) < UNKNOWN_SIZE:
                    raise InputError(f"{path}: cut off: the header gives more audio than the file holds")
                yield sound
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (soundfile.LibsndfileError, OSError) as error:
        if path.is_file() and path.stat().st_size == 0:
            raise InputError(f"{path}: empty file") from None
        where = "" if offset is None else f" at byte {offset}"
        reason = getattr(error, "error_string", str(error))
        raise InputError(f"{path}: not readable as audio{where}: {reason}") from None


class _FromHere:
    """View of a binary file that starts at its current position, because libsndfile seeks from the start."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._start = stream.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        position = offset + self._start if whence == os.SEEK_SET else offset
        return self._stream.seek(position, whence) - self._start

    def tell(self) -> int:
        return self._stream.tell() - self._start

    def read(self, size: int = -1) -> bytes:
        return self._stream.read(size)


def audio_seconds(path: str | Path, offset: int | None = None) -> float:
    """Return the duration in seconds from the header of an audio file, or of audio in an archive.

    Raises:
        InputError: if the file is missing, empty, cut off, not audio, has a sampling rate outside RATES, or is shorter
            than one encoder frame (25 ms).
    """
    with _open(Path(path), offset) as sound:
        if sound.frames == 0:
            raise InputError(f"{path}: holds no samples")
        # The number of samples after resampling.
        _require_frame(path, -(-sound.frames * SAMPLE_RATE // sound.samplerate))
        return float(sound.frames / sound.samplerate)


def read_audio(path: str | Path, offset: int | None = None) -> np.ndarray:
    """Read a recording as 16 kHz mono.

    Channels are averaged. Other rates are resampled by torchaudio's windowed sinc interpolation (see `resample`).

    Args:
        path: an audio file, or an archive.
        offset: byte offset of the recording in the archive.

    Returns:
        float32 samples, shape (N,), full scale -1..1.

    Raises:
        InputError: if the file is missing, empty, not audio, cut off, has a sampling rate outside RATES, holds values
            that are not finite, or is shorter than one encoder frame (25 ms).
    """
    return np.concatenate(list(stream_audio(path, math.inf, offset)))


def stream_audio(path: str | Path, block_seconds: float, offset: int | None = None) -> Iterator[np.ndarray]:
    """Read a recording as 16 kHz mono, part by part; the joined parts equal the result of `read_audio`.

    Args:
        path: an audio file, or an archive.
        block_seconds: approximate duration to hold in memory.
        offset: byte offset of the recording in the archive.

    Yields:
        float32 samples, shape (N,), full scale -1..1.

    Raises:
        InputError: as `read_audio`, but only when reading reaches the fault.
    """
    path = Path(path)
    with _open(path, offset) as sound:
        resampler = _Resampler(sound.samplerate)
        size = max(1, round(min(block_seconds * sound.samplerate, sound.frames)))
        read = given = 0
        while read < sound.frames or read == 0:
            samples = sound.read(size, dtype="float32", always_2d=True)
            if not samples.size:
                break
            read += len(samples)
            if not np.isfinite(samples).all():
                raise InputError(f"{path}: holds samples that are not finite numbers")
            part = resampler.add(to_mono(samples), last=read == sound.frames)
            given += part.size
            if read == sound.frames:
                _require_frame(path, given)
            if part.size:
                yield part
        if read == 0:
            raise InputError(f"{path}: holds no samples")
        if read < sound.frames:
            raise InputError(f"{path}: cut off: {read} of {sound.frames} samples can be read")


def to_mono(samples: np.ndarray) -> np.ndarray:
    """Average the channels of (N, C) samples to (N,), float32."""
    mono = samples.mean(axis=1, dtype=np.float32) if samples.shape[1] > 1 else samples[:, 0]
    return np.ascontiguousarray(mono, dtype=np.float32)


def require_rate(rate: int, where: str) -> None:
    """Raise InputError, with `where` at the start of its message, if a sampling rate is outside RATES."""
    low, high = RATES
    if not low <= rate <= high:
        raise InputError(f"{where}: the sampling rate is {rate} Hz; it must be {low} to {high} Hz")


def resample(samples: np.ndarray, rate: int) -> np.ndarray:
    """Resample float32 samples (N,) to 16 kHz, shape (ceil(N * 16000 / rate),); zeros are assumed on both sides.

    The filter is the default of torchaudio.functional.resample: a sinc whose cutoff is 0.99 of the lower Nyquist
    frequency, in a Hann window of 6 zero crossings on each side. torchaudio tabulates the filter with
    (16000 / g) * (rate / g) entries, where g is the greatest common divisor: 70,560 at 44.1 kHz, but 6 GB at 44,099 Hz.
    If that exceeds MAX_TABLE, the same values are computed for one block of output samples at a time. This is done in
    double precision; torchaudio computes phases in single precision, so that samples differ by up to 1e-4.
    """
    common = math.gcd(rate, SAMPLE_RATE)
    if (SAMPLE_RATE // common) * (rate // common) <= MAX_TABLE:
        # Imported here: most corpora are at 16 kHz, and light commands then start without torch.
        import torch
        import torchaudio.functional

        result: np.ndarray = torchaudio.functional.resample(torch.from_numpy(samples), rate, SAMPLE_RATE).numpy()
        return result
    crossings = 0.99 * min(rate, SAMPLE_RATE) / rate  # zero crossings of the sinc per input sample
    width = math.ceil(6 / crossings)
    taps = np.arange(-width, width + 2)
    context = np.lib.stride_tricks.sliding_window_view(np.pad(samples, (width, width + 1)), taps.size)
    result = np.empty(-(-samples.size * SAMPLE_RATE // rate), np.float32)
    block = MAX_TABLE // taps.size
    for start in range(0, result.size, block):
        numbers = np.arange(start, min(start + block, result.size))
        whole, part = np.divmod(numbers * rate, SAMPLE_RATE)  # position of the output sample in input samples
        times = np.clip((taps - part[:, None] / SAMPLE_RATE) * crossings, -6, 6)
        weights = crossings * np.sinc(times) * np.cos(times * np.pi / 12) ** 2
        result[start : start + block] = np.einsum("nt,nt->n", context[whole], weights)
    return result


def _require_frame(path: str | Path, samples: int) -> None:
    if samples < MIN_SAMPLES:
        raise InputError(f"{path}: {samples / SAMPLE_RATE * 1000:.1f} ms is shorter than one frame (25 ms)")


class _Resampler:
    """Resamples to 16 kHz part by part; the joined parts equal `resample` of the whole recording."""

    # In samples at the lower rate. More than half the width of the filter, which has 2 x 6 zero crossings.
    MARGIN = 16

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._step = rate // math.gcd(
            rate, SAMPLE_RATE
        )  # input samples between two that coincide with an output sample
        margin = self.MARGIN * max(1.0, rate / SAMPLE_RATE)
        self._margin = math.ceil(margin / self._step) * self._step
        self._held = np.zeros(0, np.float32)
        self._before = 0  # held samples that are already resampled and serve as context

    def add(self, samples: np.ndarray, *, last: bool) -> np.ndarray:
        """Add samples (N,); return the output that later samples cannot change, or all the rest after the last ones."""
        if self._rate == SAMPLE_RATE:
            return samples
        held = np.concatenate([self._held, samples])
        ready = held.size if last else (held.size - self._margin) // self._step * self._step
        if ready <= self._before:
            self._held = held
            return samples[:0]
        result = resample(held, self._rate)
        start, end = (-(-n * SAMPLE_RATE // self._rate) for n in (self._before, ready))
        keep = max(0, ready - self._margin)
        self._held, self._before = held[keep:].copy(), ready - keep
        return result[start:end]
