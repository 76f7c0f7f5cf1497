"""Simulate listeners and their ratings; no human has rated this speech."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CLEAN_QUALITY = 4.6
# Type of degradation -> (loss of quality at full strength, exponent of the strength). With an exponent below 1, even a
# weak degradation annoys.
QUALITY_LOSS = {
    "clean": (0.0, 1.0),
    "noise": (3.3, 1.0),
    "rumble": (2.8, 1.3),
    "mnru": (3.3, 1.0),
    "talker": (3.1, 1.0),
    "babble": (3.3, 1.1),
    "clip": (3.2, 0.8),
    "band": (2.6, 1.4),
    "loss": (3.4, 1.0),
    "stutter": (3.2, 1.0),
    "skip": (3.2, 1.0),
    "quantise": (3.3, 1.2),
    "echo": (2.8, 1.0),
    "feedback": (3.4, 0.8),
    "reverb": (2.8, 0.9),
    "warble": (3.0, 0.8),
    "tremolo": (2.3, 1.0),
    "holes": (3.3, 0.8),
}
QUALITY_PER_DB = 0.03  # change of quality per dB of segmental SNR relative to the system
MAX_DEVIATION = 0.4  # largest such change
BIAS = 0.35  # standard deviation of the bias over listeners
INCONSISTENCY = 0.55  # standard deviation of the noise in the ratings of one listener


@dataclass(frozen=True)
class Listener:
    """A simulated listener; `bias` is added to the quality of every utterance."""

    id: str
    bias: float


def make_listeners(count: int, rng: np.random.Generator) -> list[Listener]:
    """Return `count` listeners with random biases of mean zero."""
    biases = rng.normal(0, BIAS, count)
    return [Listener(f"simulated{n:02d}", float(bias)) for n, bias in enumerate(biases - biases.mean(), start=1)]


def true_quality(kind: str, strength: float, snr_deviation: float) -> float:
    """Return the quality that listeners without bias and noise perceive.

    Args:
        kind: type of degradation, a key of QUALITY_LOSS.
        strength: strength of the degradation, 0 to 1.
        snr_deviation: segmental SNR of this utterance relative to the other utterances of its system, in dB.

    Returns:
        quality, about 1 to 5; falls with `strength` and rises slightly with `snr_deviation`.
    """
    most, exponent = QUALITY_LOSS[kind]
    deviation = float(np.clip(QUALITY_PER_DB * snr_deviation, -MAX_DEVIATION, MAX_DEVIATION))
    loss: float = most * strength**exponent
    return CLEAN_QUALITY - loss + deviation


def simulate_ratings(
    quality: float, listeners: list[Listener], count: int, rng: np.random.Generator
) -> tuple[tuple[str, float], ...]:
    """Let `count` randomly drawn listeners rate one utterance.

    Returns:
        (listener id, score) pairs; scores are whole numbers from 1 to 5.
    """
    chosen = sorted(rng.choice(len(listeners), count, replace=False))
    heard = [quality + listeners[n].bias + rng.normal(0, INCONSISTENCY) for n in chosen]
    return tuple((listeners[n].id, float(np.clip(np.rint(h), 1, 5))) for n, h in zip(chosen, heard, strict=True))
