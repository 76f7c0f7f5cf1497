"""Long recordings in overlapping windows.

A recording that is no longer than a window is scored as a whole. A longer one is scored in windows, each beginning two
thirds of a window after the one before; the last one ends where the recording ends. Where two windows overlap, the
first half of the overlap has the frame scores of the earlier one and the second half those of the later one, so that
every frame comes from where it is furthest from an edge. The score of the recording is the mean of all its frames, as
for a short one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from distilmos.data.audio import SAMPLE_RATE
from distilmos.model.networks import MOSNetwork

OVERLAP = 3  # one part in so many of a window is shared with the next one: a third


@dataclass(frozen=True)
class Windows:
    """How recordings are cut.

    Attributes:
        hop: samples from one score of a frame to the next; windows begin at multiples of it, so that their frames are
            those of the whole recording.
        length: samples of a window.
    """

    hop: int
    length: int

    @classmethod
    def for_model(cls, model: MOSNetwork, seconds: float) -> Windows:
        """Return windows of `seconds` for a network."""
        return cls(model.hop, max(round(seconds * SAMPLE_RATE), 2 * OVERLAP * model.hop))

    def cut(self, parts: Iterable[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
        """Cut a recording that comes in parts, holding no more than a window and a part.

        Args:
            parts: its samples, (N,) each.

        Yields:
            the first frame of a window, and its samples.
        """
        step = (self.length - self.length // OVERLAP) // self.hop * self.hop
        held = np.zeros(0, np.float32)
        first, start = 0, 0  # samples before those held, and before the next window
        for part in parts:
            held = np.concatenate([held, part])
            # A window that is not the last has more than a hop behind it.
            while first + held.size >= start + self.length + self.hop:
                yield start // self.hop, held[start - first : start - first + self.length]
                start += step
                # The last window may begin at most a step and a hop before this one.
                drop = max(0, start - step - self.hop - first)
                held, first = held[drop:], first + drop
        end = first + held.size
        last = max(0, (end - self.length) // self.hop * self.hop)
        while start < last:
            yield start // self.hop, held[start - first : start - first + self.length]
            start += step
        if end:
            yield last // self.hop, held[last - first :]


def join_frames(windows: list[tuple[int, np.ndarray]]) -> np.ndarray:
    """Return the frame scores of a recording.

    Args:
        windows: number of the first frame, and frame scores (T,), of its windows in their order.

    Returns:
        float (T,) of the whole recording.
    """
    ends = [first + scores.size for first, scores in windows]
    cuts = [0, *((first + end) // 2 for (first, _), end in zip(windows[1:], ends, strict=False)), ends[-1]]
    return np.concatenate([scores[cuts[i] - first : cuts[i + 1] - first] for i, (first, scores) in enumerate(windows)])
