"""Signals that a scheduler sends before it ends a job, because of preemption or the time limit."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from distilmos.errors import PreemptedError

# Windows, where prediction runs, has no SIGUSR1.
STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))


class StopRequest:
    """Records a stop signal.

    Attributes:
        signal: number of the first signal; 0 before one comes.
    """

    def __init__(self) -> None:
        """Start without a signal."""
        self.signal = 0
        self._interrupts = False

    def note(self, number: int, _: FrameType | None = None) -> None:
        """Record the first signal; ignore later ones."""
        self.signal = self.signal or number
        self._interrupt()

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Let a signal end the block, or one that came before it: for reading inputs, when nothing is to be saved.

        Raises:
            PreemptedError: from any place in the block, also from a read that never returns.
        """
        self._interrupts = True
        try:
            self._interrupt()
            yield
        except Exception:
            if self.signal:  # the code of the block may have turned the interruption into an error of its own
                raise PreemptedError("stopped by a signal before the first step") from None
            raise
        finally:
            self._interrupts = False

    def _interrupt(self) -> None:
        if self._interrupts and self.signal:
            self._interrupts = False  # a second signal does not disturb the clean-up
            raise PreemptedError


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
