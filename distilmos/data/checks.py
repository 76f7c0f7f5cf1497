"""Signs that a recording is not as its user wants it: silence, channels that cancel, clipping, a wrong header."""

from __future__ import annotations

import numpy as np

SILENCE = 1e-4  # -80 dB of full scale
FULL_SCALE = 32767 / 32768  # largest positive sample of 16-bit audio
CLIPPED_SHARE = 0.01
CANCELLED = 0.01  # -20 dB; unrelated channels lose 10 log10(C) dB, which is less for every C below 100


class Checks:
    """Checks of a recording, part by part at its own sampling rate. How it is cut into parts changes nothing."""

    def __init__(self) -> None:
        """Start with no samples."""
        self._peak = 0.0
        self._values = self._clipped = 0
        self._last_high: np.ndarray | None = None  # which channels of the last sample are at full scale, (1, C)
        self._energy = self._mono_energy = 0.0
        self._notes: list[str] = []

    def note(self, warning: str) -> None:
        """Add a warning that is not about the samples, such as one about the header; an empty one is none."""
        if warning:
            self._notes.append(warning)

    def add(self, samples: np.ndarray, mono: np.ndarray) -> bool:
        """Add a part; return whether all its samples are finite.

        Args:
            samples: the channels to score, float32 (N, C), N > 0.
            mono: their mean, float32 (N,).
        """
        peak = max(float(samples.max()), -float(samples.min()))
        if not np.isfinite(peak):  # NaN passes through max and min
            return False
        self._peak = max(self._peak, peak)
        self._values += samples.size
        self._count_clipped(samples, peak)
        if samples.shape[1] > 1:
            with np.errstate(over="ignore"):
                self._energy += _energy(samples) / samples.shape[1]
                self._mono_energy += _energy(mono)
        return True

    def _count_clipped(self, samples: np.ndarray, peak: float) -> None:
        if peak < FULL_SCALE:
            self._last_high = None
            return
        high = np.abs(samples) >= FULL_SCALE
        self._clipped += int(np.count_nonzero(high[1:] & high[:-1]))
        if self._last_high is not None:
            self._clipped += int(np.count_nonzero(high[:1] & self._last_high))
        self._last_high = high[-1:]

    def warnings(self, remedy: str = "") -> list[str]:
        """Return what is wrong, one text each without the name of the recording.

        Args:
            remedy: how the user can choose one channel of those that cancel.

        The warnings are:

        - Silence: no sample exceeds SILENCE.
        - Channels that cancel: the energy of their mean is below CANCELLED of the mean of their energies.
        - Clipping: more than CLIPPED_SHARE of the samples of all channels are clipped. A sample counts if it and the
          sample before it in its channel are at or beyond full scale. A single peak at full scale is normal.
        - The texts given to `note`.
        """
        found = []
        if self._peak < SILENCE:
            found.append("silent (no sample exceeds -80 dB of full scale)")
        elif self._mono_energy < CANCELLED * self._energy:
            found.append(f"the channels cancel (their mean is more than 20 dB below them){remedy and ', '}{remedy}")
        if self._clipped > CLIPPED_SHARE * self._values:
            found.append(f"clipped ({self._clipped / self._values:.1%} of the samples are in runs at full scale)")
        return found + self._notes


def _energy(samples: np.ndarray) -> float:
    flat = samples.ravel()
    return float(np.dot(flat, flat))
