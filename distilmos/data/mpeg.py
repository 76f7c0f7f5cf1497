"""Count the frames of MP3 files (ISO/IEC 11172-3 and 13818-3), and separate files that were joined.

libmpg123, libsndfile's MP3 decoder, learns the number of frames from an Info frame (also called Xing or VBRI frame) at
the start. Without one it estimates the number from the first frame, so libsndfile reads files with a variable bit rate
in part. Of joined files it reads the first one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

# kbit/s by the index in a frame header (from 1), for MPEG 1 or not, and layer.
_BIT_RATES = {
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_HERTZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # by version bits
# What the frames of a stream have in common: version, layer, sampling rate (ISO/IEC 11172-3, 2.4.1.3).
_COMMON = 0x7FF << 21 | 3 << 19 | 3 << 17 | 3 << 10
_HEAD = 64  # bytes that hold the header, the side information and the tag of an Info frame
_BLOCK = 1 << 16


class ByteFile(Protocol):
    """A seekable binary file, or a view of one."""

    def seek(self, offset: int, whence: int = ..., /) -> int:
        """Move to a byte; return its position."""

    def read(self, size: int = ..., /) -> bytes:
        """Read up to `size` bytes."""


@dataclass(frozen=True)
class _Header:
    """The first 32 bits of a frame.

    Attributes:
        word: the bits.
        size: bytes of the frame.
        layer: 1 to 3.
        tag: byte at which the tag of an Info frame is, after the side information.
    """

    word: int
    size: int
    layer: int
    tag: int


@dataclass
class MP3Stream:
    """Frames that belong together.

    Attributes:
        start: byte at which they start, with the Info frame if they have one.
        audio: byte at which the first frame after the Info frame starts.
        end: byte at which they end, which the file may not reach.
        frames: their number, without the Info frame.
        announced: the number that the Info frame gives; None without Info frame or number.
        info: an Info frame that gives the right number.
    """

    start: int
    audio: int
    end: int
    frames: int
    announced: int | None
    first: _Header

    @property
    def info(self) -> bytes:
        """An Info frame with the number of frames, to be read before them."""
        # Index 9 of every row of _BIT_RATES holds the tag; no padding, no checksum.
        word = self.first.word & ~(0xF << 12 | 1 << 9) | 9 << 12 | 1 << 16
        header = _parse(word.to_bytes(4, "big"))
        assert header is not None
        tag = b"Info" + (1).to_bytes(4, "big") + self.frames.to_bytes(4, "big")
        return (word.to_bytes(4, "big").ljust(header.tag, b"\0") + tag).ljust(header.size, b"\0")


def _parse(data: bytes) -> _Header | None:
    """Parse the header of a frame. Return None for anything else, and for free bit rates, which give no size."""
    word = int.from_bytes(data[:4], "big")
    version, layer = word >> 19 & 3, 4 - (word >> 17 & 3)
    bit_rate, rate = word >> 12 & 15, word >> 10 & 3
    if len(data) < 4 or word >> 21 != 0x7FF or version == 1 or layer == 4 or bit_rate in (0, 15) or rate == 3:
        return None
    mpeg1, mono = version == 3, word >> 6 & 3 == 3
    bits, hertz, padding = 1000 * _BIT_RATES[mpeg1, layer][bit_rate - 1], _HERTZ[version][rate], word >> 9 & 1
    if layer == 1:
        size = (12 * bits // hertz + padding) * 4
    else:
        size = (144 if layer == 2 or mpeg1 else 72) * bits // hertz + padding
    side = {(True, False): 32, (True, True): 17, (False, False): 17, (False, True): 9}[mpeg1, mono]
    return _Header(word, size, layer, 4 + side)


def mp3_streams(stream: ByteFile, size: int) -> list[MP3Stream]:
    """Return the streams of an MP3 file of `size` bytes, each from one Info frame to the next; none without frames."""
    found: list[MP3Stream] = []
    for position, head, header in _frames(stream, size):
        is_info, announced = _info(head, header)
        if is_info or not found:
            audio = position + header.size if is_info else position
            found.append(MP3Stream(position, audio, audio, 0, announced, header))
        current = found[-1]
        current.frames += not is_info
        current.end = position + header.size
    return [one for one in found if one.frames]


def _info(head: bytes, header: _Header) -> tuple[bool, int | None]:
    """Return whether a frame is an Info frame, and the number of frames that it gives."""
    if header.layer == 3 and head[header.tag : header.tag + 4] in (b"Xing", b"Info"):
        flags = int.from_bytes(head[header.tag + 4 : header.tag + 8], "big")
        return True, int.from_bytes(head[header.tag + 8 : header.tag + 12], "big") if flags & 1 else None
    if header.layer == 3 and head[36:40] == b"VBRI":
        return True, int.from_bytes(head[50:54], "big")
    return False, None


def _frames(stream: ByteFile, size: int) -> Iterator[tuple[int, bytes, _Header]]:
    """Yield position, first bytes and header of each frame. Tags and damaged parts between frames are skipped."""
    position, common = 0, None
    while position < size:
        stream.seek(position)
        head = stream.read(_HEAD)
        header = _parse(head)
        if header is not None and common in (None, header.word & _COMMON):
            common = header.word & _COMMON
            yield position, head, header
            position += header.size
        elif tag := id3_size(head):
            # Joined files may differ.
            position, common = position + tag, None
        else:
            position, common = _next_frame(stream, position + 1, size), None


def id3_size(data: bytes) -> int:
    """Return the bytes of the ID3v2 tag at the start of `data`; 0 if there is none."""
    if data[:3] != b"ID3" or len(data) < 10:
        return 0
    size = 0
    for byte in data[6:10]:
        size = size << 7 | byte & 0x7F
    return 10 + size + (10 if data[5] & 0x10 else 0)  # a footer repeats the header


def _next_frame(stream: ByteFile, position: int, size: int) -> int:
    """Return the position of the next two frames in a row, or of the next ID3v2 tag; `size` if there is none."""
    while position < size:
        stream.seek(position)
        data = stream.read(_BLOCK)
        for at in range(len(data)):
            if data[at] == 0xFF and (header := _parse(data[at : at + 4])):
                stream.seek(position + at + header.size)
                following = _parse(stream.read(4))
                if following is not None and following.word & _COMMON == header.word & _COMMON:
                    return position + at
            elif data[at : at + 3] == b"ID3":
                return position + at
        position += max(1, len(data) - 3)
    return size
