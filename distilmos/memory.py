"""How a command that computes batch after batch on a CPU gets its memory.

By default each batch asks the system for fresh pages of 4 KiB, which are zeroed and entered one by one: up to a third
of the time of a small network.
"""

from __future__ import annotations

import ctypes
import os

# The numbers of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_NEVER = -1


def use_huge_pages() -> None:
    """Let torch ask for pages of 2 MiB, as far as Linux gives them; to be called before the first tensor is made.

    For forward passes over batches of many sizes: memory goes back to the system and does not grow with their number.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def keep_freed_memory() -> None:
    """Keep freed memory in this process instead of giving it back to the system.

    For training, where it is a tenth faster than huge pages, and most batches are of the same size: those of many sizes
    leave gaps that are never filled. Other C libraries than glibc have no such setting: nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, _NEVER)
