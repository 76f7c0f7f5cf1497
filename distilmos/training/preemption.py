"""Signals by which a scheduler announces that it will end a job: preemption, or the time limit."""

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
    """A signal stopped the training, which has written a checkpoint: exit status 75 (EX_TEMPFAIL)."""


class StopRequest:
    """Whether a signal has come.

    Attributes:
        signal: the number of the first one; 0 before.
    """

    def __init__(self) -> None:
        """Start without any."""
        self.signal = 0

    def note(self, number: int, _: FrameType | None = None) -> None:
        """Take in a signal; those after the first change nothing, and interrupt nothing."""
        self.signal = self.signal or number


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Note SIGTERM and SIGUSR1 instead of ending; must be called in the main thread."""
    request = StopRequest()
    before = {number: signal.signal(number, request.note) for number in STOP_SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def outlive_stop_signals() -> Callable[[int], None]:
    """Return what each process that reads audio calls first, with its number, so as not to end before the training.

    A scheduler signals all processes of a job, and the training cannot finish its step without those that read. When
    it exits itself it ends them with SIGTERM and waits, without end: that one they must obey.
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
