"""Predict MOS. A score depends on the recording alone, not on the other recordings of a batch."""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from statistics import fmean

import numpy as np

from distilmos.data.audio import SAMPLE_RATE, ChannelError
from distilmos.data.checks import Checks
from distilmos.data.recordings import Recording
from distilmos.data.schema import MOS_SCALE, Scale
from distilmos.errors import InputError, InputWarning
from distilmos.inference.reading import read_ahead
from distilmos.inference.runtime import Runtime, ScoreWindows, WindowScores
from distilmos.inference.windows import Windows, join_frames
from distilmos.model.calibration import Calibration
from distilmos.model.directory import ModelInfo

POOL_RECORDINGS = 512  # that wait to be scored; fewer if they are long, see `Runtime.pool_seconds`


@dataclass(frozen=True)
class PredictOptions:
    """How to predict. `batch_seconds` and `workers` change a score by no more than rounding.

    Attributes:
        batch_seconds: padded seconds in the forward passes that run at a time; memory grows with it.
        window_seconds: longer recordings are scored in overlapping windows of this length (see `windows`).
        workers: threads that read and resample audio.
        corpus: predict on the scale of this training corpus; None for the mean scale of all.
        channel: score this channel of every recording, counted from 1; None for the mean of all channels.
        scale: lowest and highest score of the scale to which scores are mapped linearly; None for that of the model.
        calibration: map scores to the scale of a listening test (see `model.calibration`); excludes `corpus` and
            `scale`.
    """

    batch_seconds: float = 30.0
    window_seconds: float = 30.0
    workers: int = 2
    corpus: str | None = None
    channel: int | None = None
    scale: tuple[float, float] | None = None
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InputError: names the first value that is out of range.
        """
        if not isinstance(self.calibration, Calibration | None):
            raise InputError(f"calibration {self.calibration!r} is not a Calibration; name it with `calibrated`")
        if self.calibration and (self.corpus is not None or self.scale is not None):
            other = "corpus" if self.corpus is not None else "scale"
            raise InputError(f"{other}: calibrated scores are on the scale of the listening test; leave this out")
        for name in ("batch_seconds", "window_seconds"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} {value!r} is not a finite number above 0")
        for name, whole in (("workers", self.workers), ("channel", 1 if self.channel is None else self.channel)):
            if not isinstance(whole, int) or whole < 1:
                raise InputError(f"{name} {whole!r} is not a whole number of at least 1")
        if not isinstance(self.corpus, str | None):
            raise InputError(f"corpus {self.corpus!r} is not a name")
        if self.scale is not None:
            try:
                lowest, highest = map(float, self.scale)
                replace(MOS_SCALE, lowest=lowest, highest=highest)
            except (TypeError, ValueError) as error:
                raise InputError(f"scale {self.scale!r}: {error}") from None


@dataclass(frozen=True, eq=False)
class Score:
    """The predicted scores of a recording or waveform, or the reason why it cannot be used.

    Attributes:
        utterance: its id.
        seconds: its length; 0 if it cannot be used.
        mos: its score, of the first target if the model has several; NaN if it cannot be used.
        frame_mos: score `mos` of each frame, float32 (T,); empty if it cannot be used.
        frame_seconds: time from one frame to the next; frame t starts at t * frame_seconds.
        error: why it cannot be used; empty if it can.
        recording: the scored recording; None for a waveform.
        scale: the scale of `mos`.
        scores: name of each target (MOS unless the model says otherwise) -> its score; empty if it cannot be used.
        model: name and version of the model; see `ModelInfo.label`.
        calibrated: name of the calibration of the scores; empty without one.
        novelty: how unlike the training data of the model the recording is. 99 % of its training data have 1 or less;
            far above, the score means little. NaN if the model cannot tell, or the recording cannot be used.
    """

    utterance: str
    seconds: float
    mos: float
    frame_mos: np.ndarray = field(repr=False)
    frame_seconds: float
    error: str = ""
    recording: Recording | None = field(default=None, repr=False)
    scale: Scale = MOS_SCALE
    scores: Mapping[str, float] = field(default_factory=dict)
    model: str = ""
    calibrated: str = ""
    novelty: float = math.nan

    @property
    def doubt(self) -> str:
        """Why the score may mean little; empty if the model has no reason to doubt it."""
        if not self.novelty > 1:
            return ""
        return f"unlike the training data of {self.model} (novelty {self.novelty:.1f}; up to 1 is usual)"


@dataclass
class _Pending:
    """A recording whose windows are not all scored yet; `complete` once all of them are read."""

    utterance: str
    recording: Recording | None = None
    windows: dict[int, WindowScores | None] = field(default_factory=dict)  # first frame -> scores
    samples: int = 0
    complete: bool = False
    error: str = ""
    checks: Checks = field(default_factory=Checks)

    @property
    def ready(self) -> bool:
        return self.complete and all(scores is not None for scores in self.windows.values())


@dataclass(frozen=True)
class _Piece:
    """A window that waits for its batch; `first` is its first frame."""

    owner: _Pending
    first: int
    samples: np.ndarray


class _Pool:
    """Windows that wait for the network, until there are `seconds` of them."""

    def __init__(self, score_windows: ScoreWindows, seconds: float) -> None:
        self._score_windows = score_windows
        self._enough = seconds * SAMPLE_RATE
        self._pieces: list[_Piece] = []
        self._samples = 0

    def add(self, piece: _Piece) -> None:
        """Add a window; score all if there are enough."""
        self._pieces.append(piece)
        self._samples += piece.samples.size
        if self._samples >= self._enough:
            self.score()

    def score(self) -> None:
        """Score all windows."""
        for piece, scores in zip(self._pieces, self._score_windows([p.samples for p in self._pieces]), strict=True):
            piece.owner.windows[piece.first] = scores
        self._pieces, self._samples = [], 0


def predict(
    runtime: Runtime, recordings: Iterable[Recording], options: PredictOptions | None = None
) -> Iterator[Score]:
    """Score recordings in bounded memory, in their order.

    An InputWarning names each recording that is scored but is probably not as its user wants it (see `Checks`).

    Args:
        runtime: the model.
        recordings: the recordings to score.
        options: how to predict; None for the defaults.

    Yields:
        one score per recording. It has an error if the recording is missing, unreadable or shorter than a frame, or if
        the model gives no finite score.

    Raises:
        InputError: if the model does not know `options.corpus`.
        ChannelError: if a recording does not have `options.channel`.
    """
    options = options or PredictOptions()

    def pending() -> Iterator[tuple[_Pending, Iterable[np.ndarray]]]:
        for found in recordings:
            recording = replace(found, channel=options.channel)
            owner = _Pending(recording.utterance, recording)
            yield owner, recording.stream(options.window_seconds, owner.checks)

    return _score(runtime, pending(), options)


def score_audio(
    runtime: Runtime, recordings: Iterable[tuple[str, Iterable[np.ndarray]]], options: PredictOptions
) -> Iterator[Score]:
    """Score recordings as `predict` does, given as an id and parts of 16 kHz samples, float32 (N,) each."""
    pending = ((_Pending(utterance), parts) for utterance, parts in recordings)
    return _score(runtime, pending, options)


def _score(
    runtime: Runtime, recordings: Iterable[tuple[_Pending, Iterable[np.ndarray]]], options: PredictOptions
) -> Iterator[Score]:
    output = _Output(runtime.info, options)
    windows = Windows.for_model(runtime.info, options.window_seconds)
    shortest = runtime.info.min_samples
    waiting: deque[_Pending] = deque()
    with runtime.lanes(options.batch_seconds) as score_windows:
        pool = _Pool(score_windows, runtime.pool_seconds(options.batch_seconds))
        for owner, pieces in read_ahead(recordings, windows, options.workers):
            waiting.append(owner)
            for first, samples in _until_error(owner, pieces):
                if samples.size < shortest:
                    owner.error = f"{owner.utterance}: {too_short(samples.size, shortest)}"
                    continue
                owner.windows[first] = None
                owner.samples = first * windows.hop + samples.size
                pool.add(_Piece(owner, first, samples))
            owner.complete = True
            if len(waiting) >= POOL_RECORDINGS:
                pool.score()
            while waiting and waiting[0].ready:
                yield output.score(waiting.popleft())
        pool.score()
    for owner in waiting:
        yield output.score(owner)


def _until_error(owner: _Pending, pieces: Iterator[tuple[int, np.ndarray]]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the windows of a recording up to an error, which is kept in `owner`. A wrong channel ends the run."""
    try:
        yield from pieces
    except ChannelError:
        raise
    except InputError as error:
        owner.error = str(error)
    except Exception as error:  # such as a library's bug or a lack of memory; the other recordings are still scored
        owner.error = f"{owner.utterance}: cannot be read: {str(error) or type(error).__name__}"


def too_short(samples: int, shortest: int) -> str:
    """Return the message for a recording of fewer 16 kHz samples than the `shortest` that give a frame."""
    found, needed = (count / SAMPLE_RATE * 1000 for count in (samples, shortest))
    return f"{found:.1f} ms is shorter than one frame of the model ({needed:.1f} ms)"


def scales_of(info: ModelInfo, options: PredictOptions) -> tuple[Scale, ...]:
    """Return the scale of the scores of each target."""
    if options.calibration is not None:
        return options.calibration.scales(info.scales)
    if options.scale is None:
        return info.scales
    low, high = map(float, options.scale)
    return tuple(replace(scale, lowest=low, highest=high) for scale in info.scales)


class _Output:
    """Turns the frame scores of a network, which are as if on the scale 1..5, into scores on the scale of the user."""

    def __init__(self, info: ModelInfo, options: PredictOptions) -> None:
        self._offset = _offset(info, options.corpus)
        self._step = info.hop / SAMPLE_RATE
        self._scales = scales_of(info, options)
        self._model_scales = info.scales
        self._calibration = options.calibration
        self._model = info.label

    def score(self, owner: _Pending) -> Score:
        """Return the score of a recording whose windows are all scored."""
        if not owner.error:
            windows = [(first, scores) for first, scores in owner.windows.items() if scores is not None]
            frames = join_frames([(first, scores.frames) for first, scores in windows])
            if not np.isfinite(frames).all():
                owner.error = f"{owner.utterance}: the model does not give a finite score"
        if owner.error:
            return Score(
                owner.utterance,
                0.0,
                math.nan,
                np.zeros(0, np.float32),
                self._step,
                owner.error,
                owner.recording,
                self._scales[0],
                model=self._model,
            )
        each = [self._converted(np.ascontiguousarray(scores) + self._offset, n) for n, scores in enumerate(frames.T)]
        scores = [float(frames.mean(dtype=np.float64)) for frames in each]
        score = Score(
            owner.utterance,
            owner.samples / SAMPLE_RATE,
            scores[0],
            each[0],
            self._step,
            recording=owner.recording,
            scale=self._scales[0],
            scores={scale.name: value for scale, value in zip(self._scales, scores, strict=True)},
            model=self._model,
            calibrated=self._calibration.name if self._calibration else "",
            novelty=fmean(found.novelty for _, found in windows),
        )
        _warn(owner, score)
        return score

    def _converted(self, frames: np.ndarray, target: int) -> np.ndarray:
        """Return the frame scores (T,) of a target, by its number, on its scale."""
        if self._calibration is None:
            return MOS_SCALE.convert(frames, self._scales[target]).astype(np.float32)
        own = MOS_SCALE.convert(frames, self._model_scales[target])
        return self._calibration.targets[target].calibrate(own).astype(np.float32)


def _warn(owner: _Pending, score: Score) -> None:
    recording = owner.recording
    # The caller checks waveforms, which it has at their own sampling rate.
    found = owner.checks.warnings("choose one with the option `channel`") if recording else []
    if score.doubt:
        found.append(score.doubt)
    if found:
        name = recording.name if recording else f"waveform {owner.utterance}"
        warnings.warn(f"{name}: {'; '.join(found)}", InputWarning, stacklevel=4)


def _offset(info: ModelInfo, corpus: str | None) -> float:
    if corpus is None:
        return 0.0
    if corpus not in info.offsets:
        names = ", ".join(info.offsets)
        known = f"its training corpora are {names}" if names else "it was trained on a single corpus"
        raise InputError(f"the model has no scale for corpus {corpus!r}; {known}")
    return info.offsets[corpus]
