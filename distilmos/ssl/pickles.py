"""Read PyTorch's pickled checkpoints without executing anything from them."""

from __future__ import annotations

import argparse
import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from distilmos.errors import InputError


class _Placeholder:
    """Stands in for classes in a checkpoint that we do not need."""


# Types in fairseq's checkpoints that are not on torch's own list of safe types: the dictionary of `task_state`, and the
# command line of older versions, which holds only plain values.
_ALLOWED: list[Any] = [(_Placeholder, "fairseq.data.dictionary.Dictionary"), argparse.Namespace]

_GLOBAL = re.compile(r"unsupported (?:global: )?GLOBAL (\S+)", re.IGNORECASE)


def read_pickle(path: Path, allowed: Sequence[Any] = _ALLOWED) -> Any:
    """Read a file that `torch.save` wrote.

    Args:
        path: the file.
        allowed: classes in addition to those that torch regards as safe; they must only hold values.

    Raises:
        InputError: if the file is missing or damaged, or holds anything but weights and plain settings.
    """
    try:
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except pickle.UnpicklingError as error:
        # torch explains at length how to load the file anyway; report only the type that it refused.
        found = _GLOBAL.search(str(error))
        reason = f"it holds {found[1]}" if found else str(error).strip().splitlines()[0]
        raise InputError(f"{path}: refused: not plain weights and settings ({reason})") from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise InputError(f"{path}: not readable as a PyTorch checkpoint: {error}") from None
