"""Views of audio files in which their headers tell the truth, so that libsndfile decodes all of a file.

libsndfile takes the length of a recording from the header. Programs that write to a pipe do not know it, others write
it wrong, and files may be joined end to end. `open_streams` returns one view per stream of a file:

    MP3        streams are separated; one without a right Info frame gets it (see `mpeg`).
    Ogg        chained streams (RFC 3533) are separated.
    WAV, RF64  a data size that is unknown (0, or all ones), or up to SLACK bytes too large, becomes that of the file.

A file that ends before its audio is refused. libsndfile decodes the rest of it without an error.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from distilmos.data.mpeg import ByteFile, id3_size, mp3_streams
from distilmos.errors import InputError

SLACK = 256  # bytes: some programs count the header of a WAV file as data
UNKNOWN_SIZE = 0x7FFFF000  # 32-bit data sizes from here on mean "to the end of the file"


class View:
    """A read-only binary file made from parts of another file and inserted bytes.

    Attributes:
        remark: a fault in the header of the other file that the user should know; empty if it has none.
    """

    def __init__(self, stream: ByteFile, parts: Sequence[range | bytes], remark: str = "") -> None:
        """Join `parts`: ranges of bytes of `stream`, and bytes."""
        self.remark = remark
        self._stream = stream
        self._parts = parts
        self._starts = [0, *accumulate(map(len, parts))]
        self._position = 0

    def __len__(self) -> int:
        """Return the number of bytes."""
        return self._starts[-1]

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a byte; return its position."""
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: len(self)}[whence]
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes, or all of the rest."""
        end = len(self) if size < 0 else min(len(self), self._position + size)
        found = []
        while self._position < end:
            index = bisect_right(self._starts, self._position) - 1
            part, start = self._parts[index], self._position - self._starts[index]
            wanted = part[start : start + end - self._position]
            if isinstance(wanted, bytes):
                data = wanted
            else:
                self._stream.seek(wanted.start)
                data = self._stream.read(len(wanted))
            if not data:
                break
            found.append(data)
            self._position += len(data)
        return b"".join(found)


def open_streams(file: ByteFile, path: object) -> list[View]:
    """Return the streams of an audio file, which are decoded one after the other. Unknown formats are one stream.

    Args:
        file: the whole file.
        path: named in errors.

    Raises:
        InputError: if the file ends before a stream does.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(64)
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        return [_wave(file, size, path)]
    if head[:4] == b"OggS":
        return [View(file, [part]) for part in _ogg_streams(file, size, path)]
    if head[:4] == b"caff":
        _check_caf(file, size, path)
    if head[:7] == b"NIST_1A":
        _check_sphere(file, size, path)
    if head[:3] == b"ID3":
        file.seek(id3_size(head))
        head = file.read(4)
    if head[:1] == b"\xff" and head[1:2] and head[1] & 0xE0 == 0xE0:
        return _mp3(file, size, path) or [View(file, [range(size)])]
    return [View(file, [range(size)])]


def open_archived(file: ByteFile, offset: int, path: object) -> list[View]:
    """Return the streams of audio inside an archive at a byte offset.

    kaldiio, and so ESPnet, stores formats other than WAV after "AUDIO" and their size (one byte gives the length of the
    size). A WAV file stands there by itself, followed by other data; the writer has checked its size.

    Raises:
        InputError: as `open_streams`.
    """
    size = file.seek(0, os.SEEK_END)
    if offset > size:
        raise InputError(f"{path}: no audio at byte {offset}: the archive has {size} bytes")
    file.seek(offset)
    head = file.read(14)
    if head[:5] != b"AUDIO":
        return [View(file, [range(offset, size)])]
    start = 6 + head[5] if len(head) > 5 else 6
    length = int.from_bytes(head[6:start], "little")
    if offset + start + length > size:
        raise InputError(f"{path}: cut off: {length} bytes of audio at byte {offset}, the archive has {size} bytes")
    return open_streams(View(file, [range(offset + start, offset + start + length)]), path)


def _mp3(file: ByteFile, size: int, path: object) -> list[View]:
    streams = []
    for one in mp3_streams(file, size):
        if one.end > size or (one.announced is not None and one.frames + 1 < one.announced):
            raise InputError(f"{path}: cut off: an MP3 stream of {one.announced or one.frames} frames ends early")
        if one.announced == one.frames:
            streams.append(View(file, [range(one.start, one.end)]))
        else:
            streams.append(View(file, [one.info, range(one.audio, one.end)]))
    return streams


def cut_off(path: object, wanted: int, found: int) -> InputError:
    """Return the error of a file that ends before its audio; sizes are in bytes."""
    return InputError(f"{path}: cut off: {wrong_size(wanted, found)}")


def wrong_size(wanted: int, found: int) -> str:
    """Return the text on a header that gives another size of the audio than the file has, in bytes."""
    return f"the header gives {wanted} bytes of audio, the file has {found}"


def _ogg_streams(file: ByteFile, size: int, path: object) -> list[range]:
    """Return the byte ranges of chained streams: each starts with pages that begin a logical stream."""
    starts: list[int] = []
    beginning = False  # whether the last page began a logical stream; multiplexed streams begin together
    ends = False
    position = 0
    while position < size:
        file.seek(position)
        head = file.read(27 + 255)
        if head[:4] != b"OggS" or len(head) < 27:
            break
        begins = bool(head[5] & 2)
        if begins and not beginning:
            starts.append(position)
        beginning, ends = begins, bool(head[5] & 4)
        position += 27 + head[26] + sum(head[27 : 27 + head[26]])
    if position > size or not ends:
        raise InputError(f"{path}: cut off: the last page of the Ogg stream is missing")
    if not starts:
        raise InputError(f"{path}: damaged: no page starts an Ogg stream")
    return [range(a, b) for a, b in zip(starts, [*starts[1:], size], strict=True)]


def _wave(file: ByteFile, size: int, path: object) -> View:
    """Return a WAV or RF64 file with the right data size."""
    position, long_size = 12, None
    while position + 8 <= size:
        file.seek(position)
        name, length = file.read(4), int.from_bytes(file.read(4), "little")
        if name == b"ds64":
            long_size = position + 16
        if name == b"data":
            break
        position += 8 + length + length % 2
    else:
        return View(file, [range(size)])  # libsndfile says what is missing
    rest = size - position - 8
    if long_size is not None:
        field, width = long_size, 8
        file.seek(field)
        length = int.from_bytes(file.read(8), "little")
        unknown = length in (0, 0xFFFFFFFF, (1 << 64) - 1)
    else:
        field, width = position + 4, 4
        unknown = length >= UNKNOWN_SIZE or (length == 0 and not _chunks(file, position + 8, size))
    if (length <= rest and not unknown) or rest >= 1 << (8 * width):
        return View(file, [range(size)])
    if not unknown and length > rest + SLACK:
        raise cut_off(path, length, rest)
    remark = "" if unknown else wrong_size(length, rest)
    return View(file, [range(field), rest.to_bytes(width, "little"), range(field + width, size)], remark)


def _check_caf(file: ByteFile, size: int, path: object) -> None:
    """Refuse a Core Audio file whose data chunk is longer than the file; a size of -1 means up to the end."""
    position = 8
    while position + 12 <= size:
        file.seek(position)
        name, length = file.read(4), int.from_bytes(file.read(8), "big", signed=True)
        position += 12
        if name == b"data":
            if length > size - position + SLACK:
                raise cut_off(path, length, size - position)
            return
        position += max(0, length)


def _check_sphere(file: ByteFile, size: int, path: object) -> None:
    """Refuse an uncompressed NIST SPHERE file with fewer bytes than its header of text lines gives."""
    file.seek(0)
    lines = [line.split() for line in file.read(1024).split(b"\n")]
    fields = {line[0]: line[2] for line in lines if len(line) == 3}
    try:
        header = int(lines[1][0])
        counts = [int(fields[name]) for name in (b"sample_count", b"sample_n_bytes", b"channel_count")]
    except (KeyError, IndexError, ValueError):
        return  # libsndfile says what is wrong
    wanted = counts[0] * counts[1] * counts[2]
    if fields.get(b"sample_coding", b"pcm") in (b"pcm", b"ulaw", b"alaw") and wanted > size - header:
        raise cut_off(path, wanted, size - header)


def _chunks(file: ByteFile, position: int, size: int) -> bool:
    """Return whether all that follows is a sequence of chunks, and so no audio of unknown size."""
    while position + 8 <= size:
        file.seek(position)
        head = file.read(8)
        if not head[:4].isascii() or not head[:4].decode().isprintable():
            return False
        length = int.from_bytes(head[4:], "little")
        position += 8 + length + length % 2
    return position - size in (0, 1)
