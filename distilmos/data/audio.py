"""Reading audio: any format of libsndfile, any rate and channel count, to 16 kHz mono float32."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from distilmos.errors import InputError

SAMPLE_RATE = 16000
# The receptive field of the convolutional front end of HuBERT, wav2vec 2.0 and WavLM: less gives no frame at all.
MIN_SAMPLES = 400


@contextmanager
def _open(path: Path, offset: int | None) -> Iterator[soundfile.SoundFile]:
    """Open an audio file, or audio inside an archive at a byte offset.

    Raises:
        InputError: for whatever is wrong with the file, while opening or reading.
    """
    try:
        with path.open("rb") as stream:
            stream.seek(offset or 0)
            with soundfile.SoundFile(_FromHere(stream)) as sound:
                # libsndfile reads a file cut off in the middle without an error: only its log has the mismatch.
                # (Inside an archive the recording is followed by other data, and the writer has checked it.)
                if offset is None and "data : " in sound.extra_info and "(should be" in sound.extra_info:
                    raise InputError(f"{path}: cut off: the header announces more audio than the file holds")
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
    """A view of a binary file whose start is the position at which it was made (libsndfile seeks absolutely)."""

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
    """Return the duration that the header of an audio file (or of audio in an archive) gives, in seconds.

    Raises:
        InputError: if the file is missing, empty, cut off, not audio, or shorter than one encoder frame (25 ms).
    """
    with _open(Path(path), offset) as sound:
        if sound.frames == 0:
            raise InputError(f"{path}: holds no samples")
        # As many samples as resampling gives.
        _require_frame(path, -(-sound.frames * SAMPLE_RATE // sound.samplerate))
        return float(sound.frames / sound.samplerate)


def read_audio(path: str | Path, offset: int | None = None) -> np.ndarray:
    """Read a recording as 16 kHz mono.

    Channels are averaged; other rates are resampled by torchaudio's windowed sinc interpolation.

    Args:
        path: an audio file, or an archive.
        offset: byte offset of the recording in the archive.

    Returns:
        float32 samples, shape (N,), full scale is -1..1.

    Raises:
        InputError: if the file is missing, empty, not audio, cut off, holds values that are not finite, or is shorter
            than one encoder frame (25 ms).
    """
    path = Path(path)
    with _open(path, offset) as sound:
        samples = sound.read(dtype="float32", always_2d=True)
        rate = sound.samplerate
        if len(samples) < sound.frames:
            raise InputError(f"{path}: cut off: {len(samples)} of {sound.frames} samples can be read")
    if not samples.size:
        raise InputError(f"{path}: holds no samples")
    if not np.isfinite(samples).all():
        raise InputError(f"{path}: holds samples that are not finite numbers")
    mono = np.ascontiguousarray(samples.mean(axis=1, dtype=np.float32) if samples.shape[1] > 1 else samples[:, 0])
    if rate != SAMPLE_RATE:
        mono = _resample(mono, rate)
    _require_frame(path, mono.size)
    return mono


def _require_frame(path: str | Path, samples: int) -> None:
    if samples < MIN_SAMPLES:
        raise InputError(f"{path}: {samples / SAMPLE_RATE * 1000:.1f} ms is shorter than one frame (25 ms)")


def _resample(samples: np.ndarray, rate: int) -> np.ndarray:
    # Imported here: most corpora are stored at 16 kHz, and light commands then do not wait for torch.
    import torch
    import torchaudio.functional

    resampled: np.ndarray = torchaudio.functional.resample(torch.from_numpy(samples), rate, SAMPLE_RATE).numpy()
    return resampled
