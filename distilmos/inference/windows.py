"""Long recordings in overlapping windows.

A recording no longer than a window is scored as a whole. A longer one is scored in windows that start two thirds of a
window apart; the last window ends with the recording. The first half of an overlap takes its frame scores from the
earlier window, the second half from the later one, so every frame is scored where it is furthest from an edge. As for a
short recording, the score is the mean over all frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from distilmos.data.audio import SAMPLE_RATE
from distilmos.errors import InputError
from distilmos.model.directory import ModelInfo

OVERLAP = 3  # consecutive windows share 1 / OVERLAP of their length


@dataclass(frozen=True)
class Windows:
    """How to cut recordings.

    Attributes:
        hop: samples from one frame score to the next; windows start at multiples of it, so that their frames are frames
            of the whole recording.
        length: samples of a window.
    """

    hop: int
    length: int

    @classmethod
    def for_model(cls, info: ModelInfo, seconds: float) -> Windows:
        """Return windows of `seconds` for a model, or of its shortest usable length if that is longer.

        Raises:
            InputError: if its encoder cannot read as much at a time.
        """
        length = max(round(seconds * SAMPLE_RATE), 2 * OVERLAP * info.hop)
        longest = info.max_samples
        if longest is None:
            return cls(info.hop, length)
        if length > longest:
            raise InputError(
                f"windows of {seconds:g} s: the model's encoder reads at most {longest / SAMPLE_RATE:.2f} s"
            )
        # The last window is up to a hop longer than the others.
        return cls(info.hop, min(length, longest - info.hop + 1))

    def cut(self, parts: Iterable[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
        """Cut a recording into windows; hold at most a few windows and one part of it.

        Args:
            parts: consecutive parts of its samples, (N,) each.

        Yields:
            the index of a window's first frame, and the window's samples.
        """
        step = (self.length - self.length // OVERLAP) // self.hop * self.hop
        held = np.zeros(0, np.float32)
        first, start = 0, 0  # offsets of the held samples and of the next window
        for part in parts:
            held = np.concatenate([held, part])
            # A window is not the last one if at least a hop follows it.
            while first + held.size >= start + self.length + self.hop:
                yield start // self.hop, held[start - first : start - first + self.length]
                start += step
                # The last window may start up to a step and a hop before this one.
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
    """Join the frame scores of windows; see the module's docstring.

    Args:
        windows: index of the first frame and frame scores (T, ...) of each window, in order.

    Returns:
        frame scores of the whole recording, float (T, ...).
    """
    ends = [first + len(scores) for first, scores in windows]
    cuts = [0, *((first + end) // 2 for (first, _), end in zip(windows[1:], ends, strict=False)), ends[-1]]
    return np.concatenate([scores[cuts[i] - first : cuts[i + 1] - first] for i, (first, scores) in enumerate(windows)])
