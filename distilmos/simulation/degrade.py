"""Degrade speech with a graded strength, and measure its level and its segmental SNR.

Every entry of DEGRADATIONS is a function (samples, strength, rng) -> samples at 16 kHz:
    samples: speech at about LEVEL, float32, shape (N,). The result has the same shape and any level.
    strength: 0 (hardly audible) to 1 (severe). Ranges in the docstrings run from strength 0 to 1; those of delays, of
        the slope of `rumble` and of the decay of `feedback` are random.
    rng: source of all random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.signal import butter, fftconvolve, istft, sosfiltfilt, stft

from distilmos.data.audio import LEVEL, SAMPLE_RATE

TALKER = "talker"  # name of `add_talker`, which is not in DEGRADATIONS because it needs a second recording
PACKET = SAMPLE_RATE // 50  # samples in 20 ms
WINDOW = 512  # samples of a cell of a spectrogram, 32 ms
ACTIVE = 1e-3  # a packet is active if its energy exceeds this share of the energy of the loudest packet
SNR_RANGE = (-10.0, 35.0)  # dB, the customary limits of the segmental signal-to-noise ratio


def clean(samples: np.ndarray, _strength: float, _rng: np.random.Generator) -> np.ndarray:
    """Return the samples unchanged."""
    return samples


def noise(samples: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Add white noise at 50 to 0 dB signal-to-noise ratio."""
    return _add(samples, rng.standard_normal(samples.size), 50 - 50 * strength)


def rumble(samples: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Add car noise, with a power that falls by 6 to 12 dB per octave above 50 Hz, at 45 to -15 dB SNR."""
    frequencies = np.fft.rfftfreq(samples.size, 1 / SAMPLE_RATE)
    spectrum = np.fft.rfft(rng.standard_normal(samples.size)) / np.maximum(frequencies, 50) ** rng.uniform(1, 2)
    return _add(samples, np.fft.irfft(spectrum, samples.size), 45 - 60 * strength)


def mnru(samples: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Add noise in proportion to each sample at 45 to 10 dB, like the reference unit of ITU-T P.810."""
    ratio = 10 ** (-(45 - 35 * strength) / 20)
    return _single(samples * (1 + ratio * rng.standard_normal(samples.size)))


def babble(samples: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Add babble at 45 to -3 dB SNR: six copies of the reversed speech, each rotated to a random start."""
    starts = rng.integers(samples.size, size=6)
    return _add(samples, np.sum([np.roll(samples[::-1], start) for start in starts], axis=0), 45 - 48 * strength)


def clip(samples: np.ndarray, strength: float, _rng: np.random.Generator) -> np.ndarray:
    """Clip at 12 to -8 dB relative to the root mean square."""
    limit = _rms(samples) * 10 ** ((12 - 20 * strength) / 20)
    return _single(np.clip(samples, -limit, limit))


def band(samples: np.ndarray, strength: float, _rng: np.random.Generator) -> np.ndarray:
    """Keep a frequency band that narrows from 50..7000 Hz to 400..900 Hz."""
    edges = [50 * 8**strength, 7000 * (900 / 7000) ** strength]
    filtered = sosfiltfilt(butter(4, edges, "bandpass", fs=SAMPLE_RATE, output="sos"), samples)
    return _single(filtered)


def loss(samples: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Silence 0.3 to 45 % of the active 20 ms packets, singly or in bursts."""
    return np.where(_lost_samples(samples, strength, rng), np.float32(0), samples)


def stutter(samples: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Replace 0.3 to 45 % of the active 20 ms packets, singly or in bursts, by the packet before."""
    heard = samples.copy()
    for start in _lost(samples, strength, rng):
        gap = heard[start : start + PACKET]
        gap[:] = heard[start - PACKET : start - PACKET + gap.size]
    return heard


def skip(samples: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Remove 0.3 to 45 % of the active 20 ms packets, and fill the end with the start of the result."""
    return np.resize(samples[~_lost_samples(samples, strength, rng)], samples.size)


def quantise(samples: np.ndarray, strength: float, _rng: np.random.Generator) -> np.ndarray:
    """Quantise uniformly (mid-rise) to 10 to 2 bits; the number of bits may be fractional."""
    step = 2 * np.abs(samples).max() / 2 ** (10 - 8 * strength)
    return _single((np.floor(samples / step) + 0.5) * step)


def echo(samples: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Add repeated echoes every 80 to 240 ms, each at 0.01 to 0.8 of the amplitude of the one before."""
    delay = round(rng.uniform(0.08, 0.24) * SAMPLE_RATE)
    heard = samples.copy()
    for start in range(delay, samples.size, delay):
        later = heard[start : start + delay]
        later += np.float32(0.01 * 80**strength) * heard[start - delay : start - delay + later.size]
    return heard


def feedback(samples: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Add echoes every 30 to 200 ms: the first at 0.01 to 0.5 of the amplitude, each next at 0.6 to 0.9 of the last."""
    delay = round(rng.uniform(0.03, 0.2) * SAMPLE_RATE)
    tail = np.zeros_like(samples)
    kept = np.float32(rng.uniform(0.6, 0.9))
    for start in range(delay, samples.size, delay):
        later = tail[start : start + delay]
        before = slice(start - delay, start - delay + later.size)
        later += samples[before] + kept * tail[before]
    return samples + np.float32(0.01 * 50**strength) * tail


def reverb(samples: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Add reverberation from exponentially decaying noise, T60 0.2 to 1.5 s, at -12 to 8 dB relative to the speech."""
    seconds = 0.2 + 1.3 * strength
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tail = fftconvolve(samples, rng.standard_normal(time.size) * 10 ** (-3 * time / seconds))[: samples.size]
    return _add(samples, tail, 12 - 20 * strength)


def warble(samples: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Vary the speed by 0.5 to 15 % five times per second."""
    time = np.arange(samples.size) / SAMPLE_RATE
    angular = 2 * np.pi * 5
    swing = (0.005 + 0.145 * strength) / angular * np.sin(angular * time + rng.uniform(0, 2 * np.pi))
    moved = np.clip(time + swing, 0, time[-1])
    return _single(CubicSpline(time, samples)(moved))


def tremolo(samples: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Vary the amplitude by 10 to 100 % twelve times per second."""
    time = np.arange(samples.size) / SAMPLE_RATE
    dip = 0.5 + 0.5 * np.sin(2 * np.pi * 12 * time + rng.uniform(0, 2 * np.pi))
    return _single(samples * (1 - (0.1 + 0.9 * strength) * dip))


def holes(samples: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Remove 5 to 85 % of the cells (32 ms by 31 Hz) of the spectrogram, like a transform codec at a low bit rate."""
    cells = spectrogram(samples, WINDOW // 2)
    cells[rng.random(cells.shape) < 0.05 + 0.8 * strength] = 0
    return from_spectrogram(cells, WINDOW // 2, samples.size)


def add_talker(samples: np.ndarray, other: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Add another talker at 40 to -5 dB: the recording `other` (M,), rotated to a random start and repeated.

    The level is that of the whole recording, so a pause in it is not amplified.
    """
    heard = np.resize(np.roll(other, rng.integers(other.size)), samples.size)
    gain = _rms(samples) / _rms(other) * 10 ** (-(40 - 45 * strength) / 20)
    return _single(samples + gain * heard)


def system_name(kind: str, strength: float) -> str:
    """Return the system name of a degradation at one strength, such as noise_040; `clean` has no strength."""
    return kind if kind == "clean" else f"{kind}_{round(100 * strength):03d}"


DEGRADATIONS: dict[str, Callable[[np.ndarray, float, np.random.Generator], np.ndarray]] = {
    function.__name__: function
    for function in (
        clean,
        noise,
        rumble,
        mnru,
        babble,
        clip,
        band,
        loss,
        stutter,
        skip,
        quantise,
        echo,
        feedback,
        reverb,
        warble,
        tremolo,
        holes,
    )
}


def at_level(samples: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """Scale to a level in dB relative to full scale (root mean square); silence stays unchanged."""
    if not samples.any():
        return samples
    return _single(samples * (10 ** (level / 20) / _rms(samples)))


def spectrogram(samples: np.ndarray, overlap: int) -> np.ndarray:
    """Return the spectrogram of (N,) samples in cells of 32 ms by 31 Hz, complex (257, T).

    Neighbouring windows share `overlap` samples.
    """
    whole = np.pad(samples, (0, max(0, WINDOW - samples.size)))  # at least one window
    cells: np.ndarray = stft(whole, SAMPLE_RATE, nperseg=WINDOW, noverlap=overlap)[2]
    return cells


def from_spectrogram(cells: np.ndarray, overlap: int, size: int) -> np.ndarray:
    """Return the first `size` samples of a spectrogram, float32 (size,)."""
    return _single(istft(cells, SAMPLE_RATE, nperseg=WINDOW, noverlap=overlap)[1][:size])


def level_of(samples: np.ndarray) -> float:
    """Return the level in dB relative to full scale (root mean square); `samples` must not be silent."""
    return 20 * math.log10(_rms(samples))


def segmental_snr(reference: np.ndarray, degraded: np.ndarray) -> float:
    """Return the mean signal-to-noise ratio of the active 20 ms segments, each limited to SNR_RANGE, in dB.

    Args:
        reference: the speech before degradation, shape (N,).
        degraded: the speech after degradation, shape (N,).
    """
    count = reference.size // PACKET
    signal, error = (
        np.mean(np.square(x[: count * PACKET], dtype=np.float64).reshape(count, PACKET), axis=1)
        for x in (reference, degraded - reference)
    )
    speech = signal > ACTIVE * signal.max()
    ratio = 10 * np.log10(signal[speech] / np.maximum(error[speech], 1e-20))
    return float(np.clip(ratio, *SNR_RANGE).mean())


def _add(samples: np.ndarray, disturbance: np.ndarray, snr: float) -> np.ndarray:
    """Add `disturbance`, of the same shape, at a level `snr` dB below that of `samples`."""
    gain = _rms(samples) / _rms(disturbance) * 10 ** (-snr / 20)
    return _single(samples + gain * disturbance)


def _single(samples: np.ndarray) -> np.ndarray:
    """Convert to float32."""
    result: np.ndarray = samples.astype(np.float32)
    return result


def _rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def _lost_samples(samples: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Return whether each sample is in a lost packet, bool (N,)."""
    lost = np.zeros(samples.size, bool)
    for start in _lost(samples, strength, rng):
        lost[start : start + PACKET] = True
    return lost


def _lost(samples: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Return the first sample of each lost packet: 0.3 to 45 % of the active packets, at least one.

    Packets are lost singly or in bursts of up to four, at any strength. Pauses are never lost, because nobody hears it.
    The start of the first packet is random, so that a model cannot learn where packet edges lie in its 10 ms frames.
    The first packet is never lost, because there may be nothing before it to repeat.
    """
    first = int(rng.integers(min(PACKET, samples.size)))
    packets = -(-(samples.size - first) // PACKET)
    padded = np.pad(samples[first:], (0, first + packets * PACKET - samples.size)).reshape(packets, PACKET)
    energy = np.mean(np.square(padded, dtype=np.float64), axis=1)
    active = np.flatnonzero(energy > ACTIVE * energy.max())
    active = active[active > 0]
    gone = np.zeros(active.size, bool)
    longest = rng.integers(1, 5)
    while gone.size and gone.sum() < max(1, round(0.003 * 150**strength * gone.size)):
        start = rng.integers(gone.size)
        gone[start : start + rng.integers(1, longest + 1)] = True
    return first + PACKET * active[gone]
