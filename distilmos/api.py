"""Prediction from Python: `distilmos.load("name").predict("some.wav").mos`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import overload

import numpy as np
import torch
from torch import Tensor

from distilmos.data.audio import require_rate, resample
from distilmos.data.recordings import Recording, find_recordings
from distilmos.errors import InputError
from distilmos.inference.predict import PredictOptions, Score, predict, score_audio, too_short
from distilmos.model.networks import MOSNetwork
from distilmos.model.package import find_model, load_model_dir
from distilmos.ssl.forward import choose_device

MAX_CHANNELS = 16  # an array (N, C) with at most this many columns is one recording with C channels, not a batch

Array = np.ndarray | Tensor
# Not Sequence: a str is a sequence of str.
Paths = list[str] | list[Path] | list[str | Path]
Arrays = list[np.ndarray] | list[Tensor]


class Predictor:
    """A model that scores recordings. Calls change no state, so several threads may share it.

    Attributes:
        model: the network, in evaluation mode.
        device: device of the network.
        options: how recordings are batched and cut; see PredictOptions.
    """

    def __init__(self, model: MOSNetwork, device: torch.device, options: PredictOptions | None = None) -> None:
        """Move `model` to `device`, in evaluation mode."""
        self.model = model.to(device).eval()
        self.device = device
        self.options = options or PredictOptions()

    @overload
    def predict(self, x: str | Path) -> Score | list[Score]: ...
    @overload
    def predict(self, x: Paths) -> list[Score]: ...
    @overload
    def predict(self, x: Array, sampling_rate: int) -> Score | list[Score]: ...
    @overload
    def predict(self, x: Arrays, sampling_rate: int) -> list[Score]: ...

    def predict(self, x: str | Path | Array | Paths | Arrays, sampling_rate: int | None = None) -> Score | list[Score]:
        """Score one recording or several.

        Args:
            x: the path of an audio file; a directory, list file or wav.scp (see `stream`); a waveform (N,); a batch of
                waveforms (B, N); or a list of paths or of waveforms (N,) of any lengths. Waveforms are mono: floating
                point with full scale -1..1, or signed integers with the full scale of their type.
            sampling_rate: sampling rate of waveforms in Hz.

        Returns:
            the score of a single audio file or waveform, otherwise a list of scores.

        Raises:
            InputError: if x does not exist or has another type or shape; if a single recording cannot be used; or if a
                waveform is shorter than one frame (25 ms) or not finite. Among several files, one that cannot be used
                raises nothing: its score has an `error`.
        """
        if isinstance(x, str | Path):
            scores = list(self.stream(x))
            single = Path(x).is_file() and [score.utterance for score in scores] == [str(x)]
            return _usable(scores[0]) if single else scores
        if isinstance(x, np.ndarray | Tensor):
            if x.ndim == 2:
                if x.shape[1] <= MAX_CHANNELS < x.shape[0]:
                    raise InputError(
                        f"shape {tuple(x.shape)} looks like (N, channels), not a batch (B, N); average the channels"
                    )
                return self._score_arrays(list(x), sampling_rate)
            return _usable(self._score_arrays([x], sampling_rate)[0])
        if not isinstance(x, Collection):
            raise InputError(f"{type(x).__name__} is not a path, a waveform, or a list of them")
        paths = [item for item in x if isinstance(item, str | Path)]
        arrays = [item for item in x if isinstance(item, np.ndarray | Tensor)]
        if len(paths) == len(x):
            return list(self.stream(paths))
        if len(arrays) == len(x):
            return self._score_arrays(arrays, sampling_rate)
        raise InputError("a list must hold only paths or only waveforms")

    def stream(self, inputs: str | Path | Iterable[str | Path]) -> Iterator[Score]:
        """Score any number of recordings in bounded memory; accepts the inputs of `distilmos predict`.

        Args:
            inputs: one or several of: audio file, directory, list of files (.txt, .lst), wav.scp.

        Yields:
            scores in the order of the inputs; a recording that cannot be used has an `error`.

        Raises:
            InputError: if an input does not exist.
        """
        several = [inputs] if isinstance(inputs, str | Path) else inputs
        return self.score(find_recordings(map(str, several)))

    def score(self, recordings: Iterable[Recording]) -> Iterator[Score]:
        """Score recordings as `stream` does, but read every path as audio, whatever its suffix."""
        return predict(self.model, recordings, self.device, self.options)

    def _score_arrays(self, arrays: Sequence[Array], sampling_rate: int | None) -> list[Score]:
        rate = _whole_rate(sampling_rate)
        shortest = self.model.encoder_config.min_samples
        waveforms = [_waveform(array, number, rate, shortest) for number, array in enumerate(arrays)]
        named = ((str(number), [waveform]) for number, waveform in enumerate(waveforms))
        return list(score_audio(self.model, named, self.device, self.options))


def _whole_rate(rate: int | None) -> int:
    """Convert a sampling rate of any numeric type with a whole value, such as 16000.0 or np.int64(16000)."""
    if rate is None:
        raise InputError("sampling_rate is missing: waveforms need one")
    try:
        whole = int(rate)
    except (TypeError, ValueError, OverflowError):
        whole = 0
    if whole != rate:
        raise InputError(f"sampling_rate {rate!r} is not a whole number of Hz")
    require_rate(whole, "sampling_rate")
    return whole


def _usable(score: Score) -> Score:
    """Return the score of a single recording; raise InputError if it has an error."""
    if score.error:
        raise InputError(score.error)
    return score


def _waveform(array: Array, number: int, rate: int, shortest: int) -> np.ndarray:
    """Convert a waveform (N,) to float32 at 16 kHz; refuse one with fewer than `shortest` samples."""
    samples = array.detach().cpu().numpy() if isinstance(array, Tensor) else array
    if samples.ndim != 1:
        raise InputError(
            f"waveform {number}: shape {samples.shape}; expected (N,) for a recording or (B, N) for a batch"
        )
    if np.issubdtype(samples.dtype, np.signedinteger):
        samples = samples / -float(np.iinfo(samples.dtype).min)
    elif not np.issubdtype(samples.dtype, np.floating):
        raise InputError(f"waveform {number}: type {samples.dtype} is neither floating point nor signed integer")
    with np.errstate(over="ignore"):  # a value too large for float32 becomes infinite and is refused below
        samples = np.ascontiguousarray(samples, np.float32)
    if not np.isfinite(samples).all():
        raise InputError(f"waveform {number}: some samples are not finite in single precision")
    resampled = resample(samples, rate)
    if resampled.size < shortest:
        raise InputError(f"waveform {number}: {too_short(resampled.size, shortest)}")
    return resampled


def load_predictor(name: str | Path, device: str = "auto", **options: float | int | str | None) -> Predictor:
    """Load a model for prediction; `distilmos.load` is this.

    Args:
        name: name of an embedded model, a model directory, or a hub id (OWNER/NAME).
        device: "auto", "cpu", "cuda", ...
        options: fields of PredictOptions.

    Raises:
        InputError: if the model, device or option does not exist.
        FailedError: if the model cannot be fetched.
    """
    try:
        chosen = replace(PredictOptions(), **options)  # type: ignore[arg-type]  # checked by dataclasses
    except TypeError as error:
        raise InputError(f"unknown option: {error}") from None
    return Predictor(load_model_dir(find_model(name)), choose_device(device), chosen)
