"""Frame scores of a recording as a table, and as a plot over its spectrogram: they show where it sounds bad."""

from __future__ import annotations

import hashlib
import os
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from distilmos.data.audio import SAMPLE_RATE
from distilmos.data.recordings import Recording
from distilmos.data.tables import as_text
from distilmos.files import NAME_BYTES, atomic_path, write_text
from distilmos.inference.predict import Score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FFT, HOP = 512, 160  # 32 ms windows every 10 ms
MAX_COLUMNS = 2000  # columns of a plot; a longer spectrogram keeps the loudest of several columns
BLOCK_SECONDS = 60.0
FLOOR = -80.0  # dB relative to the loudest bin


def output_name(utterance: str, suffix: str) -> Path:
    """Return an utterance id with `suffix` as a relative path without `..`; an absolute path loses its root."""
    parts = [part if part != ".." else "_" for part in Path(utterance).parts if part not in ("/", ".")] or ["_"]
    return Path(*map(_fitting, parts[:-1]), _fitting(parts[-1], suffix))


def _fitting(name: str, suffix: str = "") -> str:
    """Append `suffix` to a file name; replace the end of a name that is too long for the system by a hash."""
    raw = os.fsencode(name)
    if len(raw) + len(suffix) <= NAME_BYTES:
        return name + suffix
    end = f"-{hashlib.sha256(raw).hexdigest()[:16]}{suffix}"
    return raw[: NAME_BYTES - len(end)].decode("utf-8", "ignore") + end


def write_frames(directory: str | Path, score: Score) -> Path:
    """Write `start_seconds<TAB>mos` for each frame to `directory/<utterance>.tsv`; return its path.

    `mos` is the first target if the model has several, as in Score.
    """
    path = Path(directory) / output_name(score.utterance, ".tsv")
    starts = np.arange(score.frame_mos.size) * score.frame_seconds
    lines = [f"{start:.3f}\t{mos:.4f}\n" for start, mos in zip(starts, score.frame_mos, strict=True)]
    write_text(path, "start_seconds\tmos\n" + "".join(lines))
    return path


def write_plot(directory: str | Path, score: Score) -> Path:
    """Save the plot of `plot_frames` as `directory/<utterance>.png`; return its path."""
    path = Path(directory) / output_name(score.utterance, ".png")
    figure = plot_frames(score)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
    return path


def spectrogram(recording: Recording, seconds: float) -> np.ndarray:
    """Return the level of a recording of this length in dB, (FFT / 2 + 1, columns), between FLOOR and 0.

    Raises:
        InputError: if the recording cannot be read.
    """
    window = np.hanning(FFT).astype(np.float32)
    group = max(1, -(-round(seconds * SAMPLE_RATE) // (HOP * MAX_COLUMNS)))  # frames of a column
    held = np.zeros(0, np.float32)
    columns = []
    for part in chain(recording.stream(BLOCK_SECONDS), [None]):
        held = held if part is None else np.concatenate([held, part])
        count = max(0, (held.size - FFT) // HOP + 1)
        if part is not None:
            count -= count % group  # only the last column may have fewer
        if count:
            frames = np.lib.stride_tricks.sliding_window_view(held, FFT)[::HOP][:count]
            levels = np.abs(np.fft.rfft(frames * window)).astype(np.float32) ** 2
            columns.append(np.maximum.reduceat(levels, range(0, count, group)).T)
            held = held[count * HOP :]
    power = np.concatenate(columns, axis=1) if columns else np.zeros((FFT // 2 + 1, 1), np.float32)
    decibel: np.ndarray = 10 * np.log10(power / max(float(power.max()), 1e-20) + 10 ** (FLOOR / 10))
    return decibel


def plot_frames(score: Score) -> Figure:
    """Plot the frame scores of a recording with their mean, and below them its spectrogram.

    Args:
        score: of a recording, without an error.

    Raises:
        ValueError: if `score` has no recording because it is of a waveform.
        InputError: if the recording cannot be read.
    """
    from matplotlib.figure import Figure  # imported here: computing scores needs no matplotlib

    if score.recording is None:
        raise ValueError(f"{score.utterance}: the score of a waveform has no recording to plot")
    level = spectrogram(score.recording, score.seconds)
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.4))
    times = (np.arange(score.frame_mos.size) + 0.5) * score.frame_seconds
    upper.plot(times, score.frame_mos, color="#1f5fa8", linewidth=1)
    upper.axhline(score.mos, color="#444444", linestyle="--", linewidth=1)
    scale = score.scale
    low = min(scale.lowest, float(score.frame_mos.min()))
    high = max(scale.highest, float(score.frame_mos.max()))
    margin = 0.025 * scale.width
    upper.set(ylabel=f"frame {scale.name}", ylim=(low - margin, high + margin))
    upper.set_title(f"{_short(score.utterance)}: {scale.name} {score.mos:.2f}", loc="left")
    upper.grid(alpha=0.3)
    extent = (0.0, score.seconds, 0.0, SAMPLE_RATE / 2000)
    image = lower.imshow(level, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=FLOOR, vmax=0)
    lower.set(xlabel="seconds", ylabel="kHz")
    figure.colorbar(image, ax=lower, label="dB", pad=0.01)
    return figure


def _short(name: str, limit: int = 70) -> str:
    # Matplotlib reads text from an unescaped dollar sign on as a formula.
    name = as_text(name)
    return (name if len(name) <= limit else f"...{name[-limit:]}").replace("$", r"\$")
