"""Audio input: formats of libsndfile and ffmpeg, any rate and number of channels, converted to 16 kHz mono float32."""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from distilmos.data import ffmpeg
from distilmos.data.checks import Checks
from distilmos.data.containers import SLACK, UNKNOWN_SIZE, View, cut_off, open_archived, open_streams, wrong_size
from distilmos.errors import InputError
from distilmos.files import is_file

SAMPLE_RATE = 16000
LEVEL = -26.0  # dB relative to full scale (root mean square), the nominal level of ITU-T P.56 test material
RATES = (1000, 768000)  # accepted sampling rates: lower ones hold no speech, and no recorder writes higher ones
# Receptive field of the convolutional front end of HuBERT, wav2vec 2.0 and WavLM; fewer samples give no frame.
MIN_SAMPLES = 400
BLOCK_SAMPLES = 1 << 20  # most samples of all channels to read at a time
_UNKNOWN_FRAMES = (1 << 63) - 1  # libsndfile's SF_COUNT_MAX
# The size of the audio in AIFF, AU and W64 in libsndfile's log, if it is not that of the file.
_WRONG_SIZE = re.compile(r"^\s*(?:SSND|Data Size|riff)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)
MAX_TABLE = 1 << 20  # largest number of filter values to hold in memory
Span = tuple[float, float]  # start and end in seconds
WHOLE: Span = (0.0, math.inf)
# Seconds by which a span may end after its recording, because times are rounded; as Kaldi's extract-segments.
MAX_OVERSHOOT = 0.5
# Encodings in which libsndfile seeks to the exact sample; FLAC has the subtypes of PCM.
_SEEKABLE = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW")


class ChannelError(InputError):
    """A channel that a recording does not have: the user's choice is wrong, not the recording."""


class _Sound(soundfile.SoundFile):
    """Audio that is decoded from its start to its end, once.

    soundfile seeks after every read of a seekable file. Seeking in MP3 loses the bits that a frame borrows from earlier
    ones, so the samples around it are wrong, and in FLAC of unknown length it fails.

    Attributes:
        remark: a fault in the header that the user should know; empty if it has none.
    """

    def __init__(self, view: View, path: Path) -> None:
        """Open a stream of the file `path`.

        Raises:
            InputError: if the header gives a larger size of the audio than the file has, or the format is one of which
                libsndfile does not tell.
        """
        super().__init__(view)
        if self.format == "SDS":  # the rest of a cut file would be silence
            raise InputError(f"{path}: MIDI Sample Dump is not supported")
        self._path = path
        self.remark = view.remark
        self._skipped = 0
        wrong = _WRONG_SIZE.search(self.extra_info)
        if wrong and int(wrong[2]) < int(wrong[1]) < UNKNOWN_SIZE:
            if int(wrong[2]) + SLACK < int(wrong[1]):
                raise cut_off(path, int(wrong[1]), int(wrong[2]))
            self.remark = wrong_size(int(wrong[1]), int(wrong[2]))

    def seekable(self) -> bool:
        """Make soundfile not seek."""
        return False

    @property
    def known_frames(self) -> int | None:
        """Samples per channel by the header; None if it does not say."""
        return None if self.frames == _UNKNOWN_FRAMES else self.frames

    def skip(self, frames: int) -> int:
        """Skip up to `frames` samples at the start, if the encoding has exact positions; return how many."""
        if frames <= 0 or self.known_frames is None or not self.subtype.startswith(_SEEKABLE):
            return 0
        self._skipped = min(frames, self.known_frames)
        self.seek(self._skipped)
        return self._skipped

    def blocks_of(self, frames: int) -> Iterator[np.ndarray]:
        """Read to the end in blocks of `frames` samples, float32 (N, C).

        Raises:
            InputError: if there are fewer samples than the header gives.
        """
        read = self._skipped
        while (samples := self.read(frames, dtype="float32", always_2d=True)).size:
            read += len(samples)
            # A short result would keep the memory of a whole block.
            yield samples if len(samples) == frames else samples.copy()
        if self.known_frames is not None and read < self.known_frames:
            raise InputError(f"{self._path}: cut off: {read} of {self.known_frames} samples can be read")


def _require_file(path: Path) -> None:
    """Check that `path` is a regular file: opening a pipe would wait for its other end.

    Raises:
        InputError: if it is something else, or a name that no file can have.
        OSError: if it does not exist, or cannot be examined.
    """
    try:
        mode = path.stat().st_mode
    except ValueError:
        raise InputError(f"{str(path)!r}: a file name cannot hold NUL") from None
    if not stat.S_ISREG(mode):
        raise InputError(f"{path}: {'a directory' if stat.S_ISDIR(mode) else 'a pipe or device'}, not a regular file")


@contextmanager
def _open(path: Path, offset: int | None) -> Iterator[Iterator[_Sound | ffmpeg.Decoder]]:
    """Open an audio file, or audio inside an archive at a byte offset; give its streams one after the other.

    Raises:
        InputError: for every error of opening or reading the file.
    """
    try:
        _require_file(path)
        with path.open("rb") as file, closing(_streams(path, file, offset)) as sounds:
            yield sounds
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (soundfile.LibsndfileError, OSError) as error:
        if is_file(path) and path.stat().st_size == 0:
            raise InputError(f"{path}: empty file") from None
        where = "" if offset is None else f" at byte {offset}"
        reason = getattr(error, "error_string", str(error))
        raise InputError(f"{path}: not readable as audio{where}: {reason}") from None


def _streams(path: Path, file: BinaryIO, offset: int | None) -> Generator[_Sound | ffmpeg.Decoder, None, None]:
    """Yield the streams of an open file; each is closed when the next one is asked for.

    Raises:
        InputError: if one has a sampling rate outside RATES.
    """
    if offset is None and (form := ffmpeg.find_format(file)):
        sounds: Iterator[_Sound | ffmpeg.Decoder] = iter([ffmpeg.Decoder(path, file, form)])
    else:
        views = open_streams(file, path) if offset is None else open_archived(file, offset, path)
        sounds = (_Sound(view, path) for view in views)
    for sound in sounds:
        with sound:
            require_rate(sound.samplerate, str(path))
            yield sound


def audio_seconds(path: str | Path, offset: int | None = None) -> float:
    """Return the duration in seconds of an audio file, or of audio in an archive: from its header if that gives it.

    Raises:
        InputError: if the file is missing, empty, cut off, not audio, has a sampling rate outside RATES, or is shorter
            than one encoder frame (25 ms).
    """
    path = Path(path)
    seconds = 0.0
    samples = 0  # after resampling
    with _open(path, offset) as sounds:
        for sound in sounds:
            frames = sound.known_frames
            if frames is None:
                frames = sum(map(len, sound.blocks_of(BLOCK_SAMPLES // sound.channels)))
            seconds += frames / sound.samplerate
            samples += -(-frames * SAMPLE_RATE // sound.samplerate)
    if seconds == 0:
        raise InputError(f"{path}: holds no samples")
    _require_frame(path, samples)
    return seconds


def read_audio(
    path: str | Path,
    offset: int | None = None,
    span: Span = WHOLE,
    *,
    channel: int | None = None,
    checks: Checks | None = None,
) -> np.ndarray:
    """Read a recording as 16 kHz mono.

    Other rates are resampled by windowed sinc interpolation (see `resample`).

    Args:
        path: an audio file, or an archive.
        offset: byte offset of the recording in the archive.
        span: the part to read; an end up to MAX_OVERSHOOT after the recording's means the end of the recording.
        channel: the channel to read, counted from 1; None for the mean of all.
        checks: checks what is read, at its own sampling rate.

    Returns:
        float32 samples, shape (N,), full scale -1..1.

    Raises:
        ChannelError: if the recording does not have the channel.
        InputError: if the file is missing, empty, not audio, cut off, has a sampling rate outside RATES, holds values
            that are not finite, or ends before the span; or if the result is shorter than one encoder frame (25 ms).
    """
    return np.concatenate(list(stream_audio(path, math.inf, offset, span, channel=channel, checks=checks)))


def stream_audio(
    path: str | Path,
    block_seconds: float,
    offset: int | None = None,
    span: Span = WHOLE,
    *,
    channel: int | None = None,
    checks: Checks | None = None,
) -> Iterator[np.ndarray]:
    """Read a recording as 16 kHz mono, part by part; the joined parts equal the result of `read_audio`.

    Args:
        path: an audio file, or an archive.
        block_seconds: approximate duration to hold in memory.
        offset: byte offset of the recording in the archive.
        span: the part to read, as for `read_audio`. It is resampled alone, as if it were cut to a file of its own.
        channel: the channel to read, counted from 1; None for the mean of all.
        checks: checks what is read, at its own sampling rate; complete when all parts are read.

    Yields:
        float32 samples, shape (N,), full scale -1..1.

    Raises:
        ChannelError, InputError: as `read_audio`, but only when reading reaches the fault.
    """
    path = Path(path)
    checks = checks or Checks()
    resampler: _Resampler | None = None
    given = 0
    held = np.zeros(0, np.float32)  # the last block is resampled to its end, and only the next one tells which is last
    with _open(path, offset) as sounds:
        for rate, samples in _mono_blocks(sounds, block_seconds, path, span, channel, checks):
            resampler = resampler or _Resampler(rate)
            part = resampler.add(held, last=False)
            held = samples
            given += part.size
            if part.size:
                yield part
        if resampler is None:
            raise InputError(f"{path}: holds no samples")
        part = resampler.add(held, last=True)
        _require_frame(path, given + part.size)
        yield part


def _mono_blocks(
    sounds: Iterable[_Sound | ffmpeg.Decoder],
    block_seconds: float,
    path: Path,
    span: Span,
    channel: int | None,
    checks: Checks,
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the sampling rate and blocks of mono samples (N,) of a span, of all streams one after the other."""
    first: tuple[int, int] | None = None
    position = 0  # samples per channel before the next block
    for sound in sounds:
        checks.note(sound.remark)
        shape = sound.samplerate, sound.channels
        first = first or shape
        if shape != first:
            raise InputError(f"{path}: joined from streams that differ in sampling rate or channels")
        if channel is not None:
            require_channel(channel, sound.channels, str(path))
        start, end = (seconds * sound.samplerate for seconds in span)
        start, end = round(start), end if end == math.inf else round(end)
        position += sound.skip(start - position)
        # A header that gives too many samples must not decide how much memory is asked for.
        limit = BLOCK_SAMPLES // sound.channels
        for block in sound.blocks_of(max(1, round(min(block_seconds * sound.samplerate, limit, end - start)))):
            samples = block[max(0, start - position) : max(0, min(end - position, len(block)))]
            position += len(block)
            if samples.size:
                chosen = samples if channel is None else samples[:, channel - 1 : channel]
                with np.errstate(invalid="ignore", over="ignore"):  # infinite samples are refused below
                    mono = to_mono(chosen)
                if not checks.add(chosen, mono):
                    raise InputError(f"{path}: holds samples that are not finite numbers")
                yield sound.samplerate, mono
            if position >= end:
                return
    if span != WHOLE and first is not None:
        seconds = position / first[0]
        if span[0] >= seconds or MAX_OVERSHOOT < span[1] - seconds < math.inf:
            raise InputError(f"{path}: {seconds:.2f} s long; does not hold {span[0]:g} to {span[1]:g} s")


def to_mono(samples: np.ndarray) -> np.ndarray:
    """Average the channels of (N, C) samples to (N,), float32."""
    mono = samples.mean(axis=1, dtype=np.float32) if samples.shape[1] > 1 else samples[:, 0]
    return np.ascontiguousarray(mono, dtype=np.float32)


def require_channel(channel: int, channels: int, where: str) -> None:
    """Raise ChannelError, with `where` at the start of its message, if there is no such channel, counted from 1."""
    if channel > channels:
        raise ChannelError(f"{where}: has {channels} channel{'s' * (channels > 1)}; channel {channel} does not exist")


def require_rate(rate: int, where: str) -> None:
    """Raise InputError, with `where` at the start of its message, if a sampling rate is outside RATES."""
    low, high = RATES
    if not low <= rate <= high:
        raise InputError(f"{where}: the sampling rate is {rate} Hz; it must be {low} to {high} Hz")


def resample(samples: np.ndarray, rate: int) -> np.ndarray:
    """Resample float32 samples (N,) to 16 kHz, shape (ceil(N * 16000 / rate),); zeros are assumed on both sides.

    The filter is the default of torchaudio.functional.resample: a sinc whose cutoff is 0.99 of the lower Nyquist
    frequency, in a Hann window of 6 zero crossings on each side. As there, it is tabulated for each of the 16000 / g
    phases of an output sample, where g is the greatest common divisor of the rates: 76,000 values at 44.1 kHz, but 1e9
    at 44,099 Hz. If that exceeds MAX_TABLE, the same values are computed for one block of output samples at a time.
    """
    if rate == SAMPLE_RATE:
        return samples
    common = math.gcd(rate, SAMPLE_RATE)
    step, phases = rate // common, SAMPLE_RATE // common
    if step * phases <= MAX_TABLE:
        return _resample_by_table(samples, step, phases)
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


def _resample_by_table(samples: np.ndarray, step: int, phases: int) -> np.ndarray:
    """Resample with a table of the filter: each `step` input samples give `phases` output samples."""
    table, width = _filter_table(step, phases)
    size = -(-samples.size * phases // step)
    rows = -(-size // phases)
    padded = np.pad(samples, (width, max(0, (rows - 1) * step + table.shape[0] - width - samples.size)))
    context = np.lib.stride_tricks.sliding_window_view(padded, table.shape[0])[::step][:rows]
    result = np.empty((rows, phases), np.float32)
    block = -(-MAX_TABLE // table.shape[0])
    for start in range(0, rows, block):
        np.matmul(context[start : start + block], table, out=result[start : start + block])
    return result.reshape(-1)[:size]


@lru_cache(maxsize=8)
def _filter_table(step: int, phases: int) -> tuple[np.ndarray, int]:
    """Return the filter of each phase, float32 (taps, phases), and the number of taps before an output sample.

    Computed in single precision, as in torchaudio, which moves samples by up to 1e-4: so scores stay those of earlier
    versions.
    """
    crossings = 0.99 * min(step, phases)
    width = math.ceil(6 * step / crossings)
    taps, numbers = np.arange(-width, width + step, dtype=np.float32), np.arange(phases, dtype=np.float32)
    times = (taps[:, None] / np.float32(step) - numbers / np.float32(phases)) * np.float32(crossings)
    times = np.clip(times, -6, 6)
    table: np.ndarray = np.float32(crossings / step) * np.sinc(times) * np.cos(times * np.float32(np.pi / 12)) ** 2
    return table, width


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
