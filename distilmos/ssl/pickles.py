"""Read PyTorch's pickled checkpoints without executing anything from them."""

from __future__ import annotations

import argparse
import mmap
import pickle
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from distilmos.errors import InputError


class _Placeholder:
    """Stands in for objects in a checkpoint that we do not need."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _NumpyType:
    """Stands in for numpy.dtype."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code = code
        self.byte_order: Any = "="

    def __setstate__(self, state: Any) -> None:
        self.byte_order = state[1]


def _scalar(kind: _NumpyType, data: Any = None) -> Any:
    """Stand in for numpy's function that restores a scalar from its bytes: only of truth values and real numbers."""
    if isinstance(data, bytes) and re.fullmatch("b1|[iu][1248]|f[248]", kind.code):
        return np.frombuffer(data, np.dtype(kind.code).newbyteorder(kind.byte_order), 1)[0].item()
    return _Placeholder()


# Numbers of numpy become those of Python. The functions of numpy that a pickle names are not called, because they also
# restore objects of any type. Their module is numpy.core up to numpy 1, and numpy._core from 2 on.
_NUMPY: list[Any] = [
    (_NumpyType, "numpy.dtype"),
    (_Placeholder, "numpy.ndarray"),
    *(
        (stand_in, f"numpy.{module}.multiarray.{name}")
        for module in ("core", "_core")
        for name, stand_in in (("scalar", _scalar), ("_reconstruct", _Placeholder))
    ),
]
# Types in fairseq's checkpoints that are not on torch's own list of safe types: the dictionary of `task_state`, and the
# command line of older versions, which holds only plain values.
_ALLOWED: list[Any] = [(_Placeholder, "fairseq.data.dictionary.Dictionary"), argparse.Namespace]

MAGIC = (b"PK", b"\x80")  # torch.save writes a zip file; older versions write a bare pickle
_GLOBAL = re.compile(r"unsupported (?:global: )?GLOBAL (\S+)", re.IGNORECASE)


def read_pickle(path: Path, allowed: Sequence[Any] = _ALLOWED) -> Any:
    """Read a file that `torch.save` wrote.

    Args:
        path: the file.
        allowed: classes in addition to those that torch regards as safe; they must only hold values. Numbers of numpy
            are always allowed.

    Raises:
        InputError: if the file is missing or damaged, or holds anything but weights and plain settings.
    """
    try:
        with path.open("rb") as stream, torch.serialization.safe_globals([*_NUMPY, *allowed]):
            head = stream.read(2)
            if not head.startswith(MAGIC):  # torch would open any tar file, and make a directory for its content
                raise InputError(f"{path}: not a PyTorch checkpoint: neither a zip archive nor a pickle")
            # A map reads no further than its end: a damaged length in a bare pickle asks for no memory.
            source: Any = path if head == b"PK" else mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            content = torch.load(source, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except pickle.UnpicklingError as error:
        # torch explains at length how to load the file anyway; report only the type that it refused.
        found = _GLOBAL.search(str(error))
        reason = f"it holds {found[1]}" if found else str(error).strip().splitlines()[0]
        raise InputError(f"{path}: refused: not plain weights and settings ({reason})") from None
    except (
        *(RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError, TypeError),
        *(AssertionError, struct.error),
        MemoryError,  # a damaged length
        SafetensorError,  # torch.load passes files named .safetensors on
    ) as error:
        reason = str(error) or type(error).__name__
        raise InputError(f"{path}: not readable as a PyTorch checkpoint: {reason}") from None
    _require_stored(content, path)
    return content


def _require_stored(content: Any, path: Path) -> None:
    """Refuse tensors that the file does not hold value by value.

    A few bytes can stand for a tensor of any size, if it repeats one value or is sparse; a copy of it would need that
    memory. No trained network is saved so.

    Raises:
        InputError: names the key of the first one.
    """
    waiting, seen = [("", content)], set()
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, torch.Tensor):
            plain = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
            if not plain or value.numel() * value.element_size() > value.untyped_storage().nbytes():
                raise InputError(f"{path}: {name}: the file does not hold all values of this tensor")
            continue
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, argparse.Namespace):
            value = vars(value)
        if isinstance(value, dict):
            waiting += [(f"{name}.{key}".lstrip("."), item) for key, item in value.items()]
        elif isinstance(value, (list, tuple)):
            waiting += [(f"{name}.{place}".lstrip("."), item) for place, item in enumerate(value)]
