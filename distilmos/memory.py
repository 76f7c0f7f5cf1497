"""What a command does with the memory that it has freed."""

from __future__ import annotations

import ctypes

# The numbers of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_NEVER = -1


def keep_freed_memory() -> None:
    """Keep freed memory in this process: for commands that compute batch after batch on a CPU.

    glibc gives large buffers back to the system and asks for fresh, zeroed pages for the next batch, which takes up to
    half of the time of a forward pass of a small network. Other C libraries have no such setting: nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, _NEVER)
