"""Formats that libsndfile does not read, decoded by an ffmpeg on PATH, which is optional.

The first bytes of a file choose ffmpeg's demuxer. ffmpeg never guesses it: its playlists (HLS, concat) would open other
files and URLs. Only the protocol `file` is allowed, so that nothing in a file makes ffmpeg open a network connection.

ffmpeg decodes most files that are cut off up to their end without an error. Each format has a function that follows the
sizes in the file to the position where it has to end.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distilmos.data.mpeg import ByteFile, id3_size
from distilmos.errors import InputError

SUFFIXES = (".3gp", ".aac", ".m4a", ".m4b", ".mka", ".mkv", ".mov", ".mp4", ".webm", ".wma", ".wmv")
_AU_HEADER = 24  # bytes of an AU header without its annotation
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_ASF_DATA_HEADER = 50  # bytes of a data object without its packets, as a live stream gives its size
# Boxes that start a QuickTime file without `ftyp`, which later versions of the format brought.
_OLD_QUICKTIME = (b"moov", b"mdat", b"wide", b"free", b"skip")
_JOINED = "joined from several files, of which ffmpeg decodes only the first"
_NO_AUDIO = "matches no streams"  # in ffmpeg's message if a file has no stream that -map asks for
_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675  # elements of Matroska whose size may be unknown


@dataclass(frozen=True)
class Format:
    """A container format.

    Attributes:
        name: its name for errors.
        demuxer: ffmpeg's name of it.
        end: returns the position where a file has to end at the earliest, from the file and its size in bytes. Raises
            ValueError with the reason if it cannot tell.
    """

    name: str
    demuxer: str
    end: Callable[[ByteFile, int], int]


def available() -> bool:
    """Return whether an ffmpeg is on PATH."""
    return shutil.which("ffmpeg") is not None


def find_format(file: ByteFile) -> Format | None:
    """Return the format of a file by its first bytes; None if it is none of those that ffmpeg is used for."""
    file.seek(0)
    head = file.read(64)
    if head[4:8] == b"ftyp" or head[4:8] in _OLD_QUICKTIME:
        return Format("MP4 or QuickTime", "mov", _mp4_end)
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return Format("Matroska or WebM", "matroska", _matroska_end)
    if head[:16] == _ASF:
        return Format("Windows Media", "asf", _asf_end)
    file.seek(id3_size(head))
    if _adts_size(file.read(7)):
        return Format("AAC", "aac", _adts_end)
    return None


class Decoder:
    """The first audio track of a file, decoded once by ffmpeg, with its own sampling rate and channels."""

    remark = ""
    known_frames = None  # a header gives the duration of all tracks, with video, and not exactly

    def __init__(self, path: Path, file: ByteFile, form: Format) -> None:
        """Check that the file is whole, and start ffmpeg.

        Raises:
            InputError: if ffmpeg is missing, the file is cut off, or ffmpeg finds no audio in it.
        """
        if not available():
            raise InputError(f"{path}: the format is {form.name}; install ffmpeg to read it")
        size = file.seek(0, os.SEEK_END)
        try:
            end = form.end(file, size)
        except ValueError as error:
            raise InputError(f"{path}: {error}; convert it to another format") from None
        if end > size:
            raise InputError(f"{path}: cut off: the {form.name} file has {size} bytes of at least {end}")
        self._path = path
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115  # a pipe that nobody empties could block ffmpeg
        source = ["-protocol_whitelist", "file", "-f", form.demuxer, "-threads", "1", "-i", f"file:{path}"]
        strict = ["-nostdin", "-loglevel", "error", "-xerror", "-err_detect", "explode"]
        # AU is the simplest format with a header for any rate and number of channels.
        target = ["-map", "0:a:0", "-map_metadata", "-1", "-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
        self._process = subprocess.Popen(
            ["ffmpeg", *strict, *source, *target],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._messages,
        )
        try:
            head = [int.from_bytes(self._read(4), "big") for _ in range(6)]
            self.samplerate, self.channels = head[4:]
            if not self.channels:
                self._finish()
                raise InputError(f"{path}: ffmpeg decodes no audio from it")
            self._read(head[1] - _AU_HEADER)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Decoder:
        """Return the decoder itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the decoder."""
        self.close()

    def close(self) -> None:
        """End ffmpeg, also before it has decoded all."""
        self._process.kill()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process.wait()
        self._messages.close()

    def skip(self, frames: int) -> int:
        """Skip nothing: seeking is not exact in all formats. Return 0."""
        return 0

    def blocks_of(self, frames: int) -> Iterator[np.ndarray]:
        """Read to the end in blocks of `frames` samples, float32 (N, C).

        Raises:
            InputError: if ffmpeg finds a fault in the file.
        """
        while data := self._read(4 * self.channels * frames):
            whole = len(data) // (4 * self.channels) * self.channels  # less than `data` only if ffmpeg was killed
            yield np.frombuffer(data, ">f4", whole).astype(np.float32).reshape(-1, self.channels)
        self._finish()

    def _read(self, size: int) -> bytes:
        """Read `size` bytes, or the rest."""
        assert self._process.stdout is not None
        return self._process.stdout.read(size)

    def _finish(self) -> None:
        """Wait for the end of ffmpeg; raise InputError if it failed or reported an error.

        ffmpeg skips damaged parts of some formats without failing. An error is, by its AV_LOG_ERROR, what "cannot
        losslessly be recovered".
        """
        status = self._process.wait()
        self._messages.seek(0)
        lines = self._messages.read().decode("utf-8", "replace").strip().splitlines()
        if any(_NO_AUDIO in line for line in lines):
            raise InputError(f"{self._path}: has no audio track")
        if status or lines:
            raise InputError(f"{self._path}: ffmpeg cannot decode it: {lines[0] if lines else f'status {status}'}")


def _mp4_end(file: ByteFile, size: int) -> int:
    """Follow the boxes of an MP4 or QuickTime file (ISO/IEC 14496-12, 4.2)."""
    position = descriptions = 0
    while position + 8 <= size:
        file.seek(position)
        head = file.read(16)
        descriptions += head[4:8] == b"moov"
        if descriptions > 1 or (head[4:8] == b"ftyp" and position):
            raise ValueError(_JOINED)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:  # 0: the box ends with the file
            return size
        position += length
    return position


def _matroska_end(file: ByteFile, size: int) -> int:
    """Follow the elements of a Matroska file (RFC 8794); those of unknown size are entered."""
    position = 0
    while position < size:
        file.seek(position)
        head = file.read(12)
        name_width = _vint_width(head)
        width = _vint_width(head[name_width:])
        start = name_width + width
        if name_width > 4 or (len(head) > name_width and width > 8):
            return size  # no element: ffmpeg says what is wrong
        if len(head) < start or len(head) == name_width:
            return size + 1  # the file ends within an element's header
        length = int.from_bytes(head[name_width:start], "big") & ((1 << 7 * width) - 1)
        if length == (1 << 7 * width) - 1 and int.from_bytes(head[:name_width], "big") in (_SEGMENT, _CLUSTER):
            length = 0
        position += start + length
    return position


def _vint_width(data: bytes) -> int:
    """Return the bytes of the number at the start of `data`, as its first byte gives it: 9 for none (RFC 8794, 4)."""
    return 9 - data[0].bit_length() if data else 0


def _asf_end(file: ByteFile, size: int) -> int:
    """Follow the objects of a Windows Media file: 16 bytes of identifier, 8 of size."""
    position = 0
    while position + 24 <= size:
        file.seek(position)
        head = file.read(24)
        if head[:16] == _ASF and position:
            raise ValueError(_JOINED)
        length = int.from_bytes(head[16:], "little")
        if length <= _ASF_DATA_HEADER and head[:16] == _ASF_DATA:
            raise ValueError("a Windows Media file of a live stream does not say where it ends")
        position += max(24, length)
    return position


def _adts_end(file: ByteFile, size: int) -> int:
    """Follow the frames of an AAC file in ADTS (ISO/IEC 13818-7, 6.2)."""
    file.seek(0)
    position = id3_size(file.read(10))
    while position < size:
        file.seek(position)
        length = _adts_size(file.read(7))
        if not length:
            break
        position += length
    return position


def _adts_size(head: bytes) -> int:
    """Return the bytes of the frame that starts with `head`; 0 if none does."""
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0:
        return 0
    return (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
