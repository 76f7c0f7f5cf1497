"""Writes CTranslate2's model.bin (version 6)."""

from __future__ import annotations

import struct

import numpy as np

TYPES = {"float32": 0, "int8": 1, "float16": 4}


def model_bin(arrays: dict[str, np.ndarray], *, version: int = 6, spec: str = "WhisperSpec") -> bytes:
    """Return the file of the variables `arrays`."""

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    parts = [struct.pack("<I", version), text(spec), struct.pack("<II", 3, len(arrays))]
    for name, array in arrays.items():
        shape = b"".join(struct.pack("<I", size) for size in array.shape)
        content = array.tobytes()
        parts += [text(name), struct.pack("<B", array.ndim), shape]
        parts += [struct.pack("<BI", TYPES[array.dtype.name], len(content)), content]
    return b"".join([*parts, struct.pack("<I", 0)])
