"""Prediction from Python: `distilmos.load("name").predict("some.wav").mos`."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeGuard, overload

import numpy as np

from distilmos.data.audio import require_channel, require_rate, resample, to_mono
from distilmos.data.checks import Checks
from distilmos.data.copies import Copy
from distilmos.data.recordings import Recording, find_recordings
from distilmos.errors import InputError, InputWarning
from distilmos.inference.predict import PredictOptions, Score, predict, score_audio, too_short
from distilmos.inference.runtime import Runtime, load_runtime
from distilmos.model.calibration import find_calibration
from distilmos.model.directory import find_model

if TYPE_CHECKING:
    from torch import Tensor

MAX_CHANNELS = 16  # an array (N, C) with at most this many columns is one recording with C channels, not a batch
# Full scale of other types is ambiguous: numpy makes int64 of the values of int16.
INTEGERS = ("int8", "int16", "int32")

_BYTES = (bytes, bytearray, memoryview)


class Samples(Protocol):
    """Decoded audio of torchcodec: samples (C, N) and their sampling rate."""

    data: Tensor
    sample_rate: int


class Decoder(Protocol):
    """An audio decoder of torchcodec, as Hugging Face datasets give it from version 4 on."""

    def get_all_samples(self) -> Samples:
        """Decode the recording."""


if TYPE_CHECKING:
    Array = np.ndarray | Tensor
    # Audio as Hugging Face datasets give it: "array" and "sampling_rate" up to version 3, or "bytes" and "path"
    # undecoded.
    AudioDict = Mapping[str, Array | int | bytes | str | None]
    Waveform = Array | AudioDict | Decoder
    One = str | Path | BinaryIO | Waveform


class Predictor:
    """A model that scores recordings. Calls change no state, so several threads may share it.

    Attributes:
        runtime: the model.
        options: how recordings are batched and cut; see PredictOptions.
    """

    def __init__(self, runtime: Runtime, options: PredictOptions | None = None) -> None:
        """Score with a loaded model."""
        self.runtime = runtime
        self.options = options or PredictOptions()

    @property
    def model(self) -> str:
        """Name and version of the model, as in `Score.model`."""
        return self.runtime.info.label

    @overload
    def predict(self, x: str | Path) -> Score | list[Score]: ...
    @overload
    def predict(self, x: Array, sampling_rate: int) -> Score | list[Score]: ...
    @overload
    def predict(self, x: BinaryIO | AudioDict | Decoder) -> Score: ...
    @overload
    def predict(self, x: list[Any] | tuple[Any, ...], sampling_rate: int | None = None) -> list[Score]: ...

    def predict(self, x: One | Collection[One], sampling_rate: int | None = None) -> Score | list[Score]:
        """Score one recording or several.

        An InputWarning names each recording that is silent or clipped, whose channels cancel, whose header is wrong, or
        that is unlike the training data of the model (see `Score.novelty`).

        Args:
            x: one of

                - the path of an audio file, or a directory, list file or wav.scp (see `stream`);
                - a binary file object with the bytes of an audio file, such as io.BytesIO, read from its start if it is
                  seekable;
                - a waveform (N,), or a batch of waveforms (B, N): numpy or torch, mono, floating point with full scale
                  -1..1, or int8, int16 or int32 with the full scale of the type;
                - an item of a Hugging Face data set: a dictionary with "array" (N,) and "sampling_rate", or, if it is
                  not decoded, with "bytes" or "path" of an audio file; or a decoder of torchcodec, whose channels are
                  averaged unless `options.channel` chooses one;
                - a list of these except batches, of any lengths.
            sampling_rate: sampling rate in Hz of waveforms without one of their own.

        Returns:
            the score of a single recording, otherwise a list of scores.

        Raises:
            InputError: if x does not exist or has another type or shape; if a single recording cannot be used; if a
                recording does not have `options.channel`; or if a waveform is shorter than one frame (25 ms) or not
                finite. Among several files, one that cannot be used raises nothing: its score has an `error`.
        """
        if isinstance(x, str | Path):
            scores = list(self.stream(x))
            single = not Path(x).is_dir() and [score.utterance for score in scores] == [str(x)]
            return _usable(scores[0]) if single else scores
        if _is_array(x) and x.ndim == 2:
            if x.shape[1] <= MAX_CHANNELS < x.shape[0]:
                raise InputError(
                    f"shape {tuple(x.shape)} looks like (N, channels), not a batch (B, N); average the channels"
                )
            return self._score(list(x), sampling_rate)
        if _is_waveform(x) or _is_file(x):
            return _usable(self._score([x], sampling_rate)[0])
        if isinstance(x, _BYTES) or not isinstance(x, Collection):
            raise InputError(_not_audio(x))
        return self._score(x, sampling_rate)

    def stream(self, inputs: str | Path | Iterable[str | Path], column: str | None = None) -> Iterator[Score]:
        """Score any number of recordings in bounded memory; accepts the inputs of `distilmos predict`.

        Args:
            inputs: one or several of: audio file, directory, list of files (.txt, .lst, .csv, .tsv), wav.scp.
            column: the column of CSV and TSV files that holds paths, relative to the directory of the file.

        Yields:
            scores in the order of the inputs; a recording that cannot be used has an `error`.

        Raises:
            InputError: if an input does not exist.
        """
        several = [inputs] if isinstance(inputs, str | Path) else inputs
        return self.score(find_recordings(map(str, several), column))

    def score(self, recordings: Iterable[Recording]) -> Iterator[Score]:
        """Score recordings as `stream` does, but read every path as audio, whatever its suffix."""
        return predict(self.runtime, recordings, self.options)

    def _score(self, items: Iterable[object], sampling_rate: int | None) -> list[Score]:
        """Score paths, open files and waveforms in their order; utterance ids of the latter two are their numbers."""
        sources = [source for number, item in enumerate(items) for source in self._sources(item, number, sampling_rate)]
        recordings = iter(list(self.score(source for source in sources if isinstance(source, Recording))))
        audio = ((source[0], [source[1]]) for source in sources if not isinstance(source, Recording))
        waveforms = iter(list(score_audio(self.runtime, audio, self.options)))
        return [next(recordings if isinstance(source, Recording) else waveforms) for source in sources]

    def _sources(
        self, item: object, number: int, sampling_rate: int | None
    ) -> Iterable[Recording | tuple[str, np.ndarray]]:
        """Convert one item to recordings, or to its id and samples at 16 kHz."""
        if isinstance(item, str | Path):
            return find_recordings([str(item)])
        if _is_file(item):
            return [Recording(str(number), Path(str(number)), copy=_copy(item, number))]
        if isinstance(item, Mapping) and item.get("array") is None and (recording := _undecoded(item, number)):
            return [recording]
        if not _is_waveform(item):
            raise InputError(f"item {number}: {_not_audio(item)}")
        array, rate = _array_and_rate(item, number, sampling_rate, self.options.channel)
        return [(str(number), _waveform(array, number, rate, self.runtime.info.min_samples))]


def _is_tensor(x: object) -> TypeGuard[Tensor]:
    """Return whether `x` is a tensor of torch, without importing torch: without it, nobody has one."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def _is_array(x: object) -> TypeGuard[Array]:
    return isinstance(x, np.ndarray) or _is_tensor(x)


def _is_waveform(x: object) -> bool:
    return _is_array(x) or isinstance(x, Mapping) or hasattr(x, "get_all_samples")


def _not_audio(x: object) -> str:
    """Return the message for a value that is not audio."""
    advice = "; give the bytes of an audio file as io.BytesIO" if isinstance(x, _BYTES) else ""
    return f"{type(x).__name__} is not a path, an open file or a waveform{advice}"


def _undecoded(item: Mapping[str, Any], number: int) -> Recording | None:
    """Return the recording of a dictionary with the bytes or else the path of an audio file; None if it has neither.

    Raises:
        InputError: if they are of another type.
    """
    content, path = item.get("bytes"), item.get("path")
    if content is not None:
        if not isinstance(content, _BYTES):
            raise InputError(f"waveform {number}: its bytes are {type(content).__name__}")
        return Recording(str(number), Path(str(number)), copy=_copy(io.BytesIO(content), number))
    if path is None:
        return None
    if not isinstance(path, str | Path):
        raise InputError(f"waveform {number}: its path is {type(path).__name__}")
    return Recording(str(path), Path(path))


def _is_file(x: object) -> bool:
    return callable(getattr(x, "read", None))


def _copy(file: Any, number: int) -> Copy:
    """Copy an open file, from its start if it is seekable. The caller may close the file, or give it twice."""
    try:
        if getattr(file, "seekable", lambda: False)():
            file.seek(0)
        copy = Copy(lambda: nullcontext(file))
        copy.path  # noqa: B018  # reads the file
    except TypeError:
        raise InputError(f"file {number}: gives no bytes; open it in binary mode") from None
    except (OSError, ValueError) as error:  # such as a closed file
        raise InputError(f"file {number}: cannot be read: {error}") from None
    return copy


def _array_and_rate(item: Any, number: int, sampling_rate: int | None, channel: int | None) -> tuple[Array, int]:
    """Return the array (N,) of a waveform and its own sampling rate, or `sampling_rate` if it has none."""
    if channel is not None and (_is_array(item) or isinstance(item, Mapping)):
        require_channel(channel, 1, f"waveform {number}")
    if isinstance(item, Mapping):
        if missing := [key for key in ("array", "sampling_rate") if item.get(key) is None]:
            keys = ", ".join(map(str, item))
            raise InputError(f"waveform {number}: no {' and no '.join(missing)} in a dictionary of {keys or 'nothing'}")
        array, rate = item["array"], item["sampling_rate"]
        if not _is_array(array):
            raise InputError(f"waveform {number}: its array is a {type(array).__name__}, not of numpy or torch")
        return array, _whole_rate(rate)
    if _is_array(item):
        return item, _whole_rate(sampling_rate)
    try:
        samples = item.get_all_samples()
    except (RuntimeError, ValueError) as error:
        raise InputError(f"waveform {number}: cannot be decoded: {error}") from None
    decoded = samples.data.cpu().float().numpy().T
    if channel is not None:
        require_channel(channel, decoded.shape[1], f"waveform {number}")
        decoded = decoded[:, channel - 1 : channel]
    return to_mono(decoded), _whole_rate(samples.sample_rate)


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
    samples = array if isinstance(array, np.ndarray) else _as_numpy(array, number)
    if samples.ndim != 1:
        raise InputError(
            f"waveform {number}: shape {samples.shape}; expected (N,) for a recording or (B, N) for a batch"
        )
    if samples.dtype.newbyteorder("=") in INTEGERS:
        samples = samples / -float(np.iinfo(samples.dtype).min)
    elif not np.issubdtype(samples.dtype, np.floating):
        known = ", ".join(INTEGERS)
        raise InputError(f"waveform {number}: type {samples.dtype} is neither floating point nor one of {known}")
    with np.errstate(over="ignore"):  # a value too large for float32 becomes infinite and is refused below
        samples = np.ascontiguousarray(samples, np.float32)
    if not np.isfinite(samples).all():
        raise InputError(f"waveform {number}: some samples are not finite in single precision")
    resampled = resample(samples, rate)
    if resampled.size < shortest:
        raise InputError(f"waveform {number}: {too_short(resampled.size, shortest)}")
    checks = Checks()
    checks.add(samples[:, None], samples)
    if found := checks.warnings():
        warnings.warn(f"waveform {number}: {'; '.join(found)}", InputWarning, stacklevel=2)
    return resampled


def _as_numpy(tensor: Tensor, number: int) -> np.ndarray:
    """Convert a tensor of any device; numpy has no bfloat16, so smaller floating point types become float32."""
    try:
        small = tensor.is_floating_point() and tensor.element_size() < 8
        samples: np.ndarray = (tensor.float() if small else tensor).detach().cpu().numpy()
    except (RuntimeError, TypeError) as error:  # such as a sparse tensor, or one without data
        raise InputError(f"waveform {number}: {tensor.dtype} tensor on {tensor.device}: {error}") from None
    return samples


def load_predictor(
    name: str | Path,
    device: str = "auto",
    runtime: str = "auto",
    calibrated: str | None = None,
    **options: float | int | str | tuple[float, float] | None,
) -> Predictor:
    """Load a model for prediction; `distilmos.load` is this.

    Args:
        name: name of an embedded model, a model directory, or a hub id (OWNER/NAME).
        device: "auto", "cpu", "cuda", ...
        runtime: "auto", "onnx" or "torch"; see `load_runtime`.
        calibrated: name of a calibration of the model (`distilmos calibrate`): scores are on the scale of its listening
            test; None for the scores of the model.
        options: other fields of PredictOptions.

    Raises:
        InputError: if the model, device, runtime, calibration or option does not exist.
        FailedError: if the model cannot be fetched.
    """
    known = [option.name for option in fields(PredictOptions)]
    if unknown := [option for option in options if option not in known]:
        raise InputError(f"unknown option {', '.join(unknown)}; options are {', '.join(known)}")
    chosen = replace(PredictOptions(), **options)  # type: ignore[arg-type]  # checked by dataclasses
    loaded = load_runtime(name, runtime, device)
    if calibrated is not None:
        chosen = replace(chosen, calibration=find_calibration(find_model(name), calibrated, loaded.info))
    return Predictor(loaded, chosen)
