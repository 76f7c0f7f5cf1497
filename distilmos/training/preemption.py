"""Signals that a scheduler sends before it ends a job, because of preemption or the time limit."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class PreemptedError(Exception):
    """A signal stopped the run after it wrote a checkpoint: exit status 75 (EX_TEMPFAIL)."""


class StopRequest:
    """Records a stop signal.

    Attributes:
        signal: number of the first signal; 0 before one comes.
    """

    def __init__(self) -> None:
        """Start without a signal."""
        self.signal = 0

    def note(self, number: int, _: FrameType | None = None) -> None:
        """Record the first signal; ignore later ones."""
        self.signal = self.signal or number


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Record SIGTERM and SIGUSR1 instead of ending the process; call this in the main thread."""
    request = StopRequest()
    before = {number: signal.signal(number, request.note) for number in STOP_SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def outlive_stop_signals() -> Callable[[int], None]:
    """Return a function that each audio-reading process calls first, with its number, to ignore stop signals.

    A scheduler signals all processes of a job, but the training process still needs the reading ones to finish its
    step. When it exits, it ends them with SIGTERM and waits for them; they must obey that signal.
    """
    exiting = multiprocessing.RawValue("b", 0)
    atexit.register(partial(setattr, exiting, "value", 1))
    return partial(_outlive, exiting)


def _outlive(exiting: Any, _: int) -> None:
    def terminate(number: int, frame: FrameType | None) -> None:
        if exiting.value:
            os._exit(0)

    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
