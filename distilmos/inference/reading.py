"""Read recordings in threads, ahead of the model."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

import numpy as np

from distilmos.inference.windows import Windows

AHEAD = 32  # recordings that are read before the model asks for them, if there are no more than 16 threads

Key = TypeVar("Key")
Pieces = Iterator[tuple[int, np.ndarray]]


def read_ahead(
    recordings: Iterable[tuple[Key, Iterable[np.ndarray]]], windows: Windows, workers: int
) -> Iterator[tuple[Key, Pieces]]:
    """Read recordings in threads and cut them into windows; at most AHEAD, or two for each thread, are held.

    Each of them may have an open file, and a process of ffmpeg.

    The threads read the first window, which is the whole of most recordings. The rest of a long one is read when the
    caller asks for it.

    Args:
        recordings: a key, which is passed through, and the 16 kHz samples of a recording in parts, float32 (N,) each.
        windows: how to cut.
        workers: number of threads.

    Yields:
        the key and the windows of each recording as `Windows.cut` yields them, in order. If a recording cannot be read,
        its windows raise the error.
    """

    def start(parts: Iterable[np.ndarray]) -> Pieces:
        rest = windows.cut(parts)
        try:
            return chain(list(islice(rest, 1)), rest)
        except Exception as error:
            return _failing(error)

    held = max(AHEAD, 2 * workers)
    futures: deque[tuple[Key, Future[Pieces]]] = deque()
    with ThreadPoolExecutor(workers) as executor:
        try:
            for key, parts in recordings:
                futures.append((key, executor.submit(start, parts)))
                if len(futures) >= held:
                    first, future = futures.popleft()
                    yield first, future.result()
            while futures:
                first, future = futures.popleft()
                yield first, future.result()
        finally:
            for _, future in futures:
                future.cancel()


def _failing(error: Exception) -> Pieces:
    """Return an iterator that raises `error` when the first window is asked for."""
    raise error
    yield  # makes this a generator
