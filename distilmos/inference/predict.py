"""Predict MOS. A score depends on the recording alone, never on what it is batched with."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch

from distilmos.data.audio import SAMPLE_RATE
from distilmos.data.packing import pack_by_length
from distilmos.data.recordings import Recording
from distilmos.errors import InputError
from distilmos.inference.reading import read_ahead
from distilmos.inference.windows import Windows, join_frames
from distilmos.model.networks import MOSNetwork
from distilmos.ssl.forward import pad_audio, to_device

POOL = 16  # batches' worth of audio among which recordings of similar length are looked for
# Batches at a time. On a CPU each has its part of the cores: a small network in two threads of one core each is a fifth
# faster than in one of two, for its LSTM and its many small steps leave cores idle. On a GPU one is prepared meanwhile.
LANES = 2


@dataclass(frozen=True)
class PredictOptions:
    """How to predict; none of it changes a score by more than rounding, but for `window_seconds`.

    Attributes:
        batch_seconds: padded seconds in the forward passes that run at a time; with it memory grows.
        window_seconds: longer recordings are scored in overlapping windows of this length (see `windows`).
        workers: threads that read and resample audio.
        corpus: one that the model was trained on, on whose scale the scores shall be; None for their mean scale.
    """

    batch_seconds: float = 30.0
    window_seconds: float = 30.0
    workers: int = 2
    corpus: str | None = None

    def __post_init__(self) -> None:
        """Refuse values that no prediction can have.

        Raises:
            InputError: names the first one.
        """
        for name in ("batch_seconds", "window_seconds"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} {value!r} is not a finite number above 0")
        if not isinstance(self.workers, int) or self.workers < 1:
            raise InputError(f"workers {self.workers!r} is not a whole number of at least 1")
        if not isinstance(self.corpus, str | None):
            raise InputError(f"corpus {self.corpus!r} is not a name")


@dataclass(frozen=True, eq=False)
class Score:
    """What the model says of a recording.

    Attributes:
        utterance: its id.
        seconds: its length; 0 if it cannot be used.
        mos: its score; NaN if it cannot be used.
        frame_mos: of each frame, float32 (T,).
        frame_seconds: from one frame to the next; frame t begins at t * frame_seconds.
        error: why it cannot be used; empty if it can.
        recording: what was scored; None for a waveform.
    """

    utterance: str
    seconds: float
    mos: float
    frame_mos: np.ndarray = field(repr=False)
    frame_seconds: float
    error: str = ""
    recording: Recording | None = field(default=None, repr=False)


@dataclass
class _Pending:
    """A recording whose windows are not all scored yet."""

    utterance: str
    recording: Recording | None = None
    windows: dict[int, np.ndarray | None] = field(default_factory=dict)  # first frame -> frame scores
    samples: int = 0
    complete: bool = False
    error: str = ""

    @property
    def ready(self) -> bool:
        return self.complete and all(scores is not None for scores in self.windows.values())


@dataclass(frozen=True)
class _Piece:
    """A window that waits for its batch."""

    owner: _Pending
    first: int
    samples: np.ndarray


def predict(
    model: MOSNetwork,
    recordings: Iterable[Recording],
    device: torch.device,
    options: PredictOptions | None = None,
) -> Iterator[Score]:
    """Score recordings, in their order, holding a bounded part of them at a time.

    Args:
        model: in evaluation mode, on `device`.
        recordings: what to score.
        device: where to compute.
        options: how.

    Yields:
        a score for each recording. One that is missing, unreadable or shorter than a frame, or for which the model
        gives no finite score, has an error instead.

    Raises:
        InputError: if the model does not know `options.corpus`.
    """
    options = options or PredictOptions()
    pending = (
        (_Pending(recording.utterance, recording), recording.stream(options.window_seconds)) for recording in recordings
    )
    return _score(model, pending, device, options, _offset(model, options.corpus))


def score_audio(
    model: MOSNetwork,
    recordings: Iterable[tuple[str, Iterable[np.ndarray]]],
    device: torch.device,
    options: PredictOptions,
) -> Iterator[Score]:
    """Score recordings that come as an id and parts of 16 kHz samples, (N,) float32 each; else as `predict`."""
    pending = ((_Pending(utterance), parts) for utterance, parts in recordings)
    return _score(model, pending, device, options, _offset(model, options.corpus))


def _score(
    model: MOSNetwork,
    recordings: Iterable[tuple[_Pending, Iterable[np.ndarray]]],
    device: torch.device,
    options: PredictOptions,
    offset: float,
) -> Iterator[Score]:
    windows = Windows.for_model(model, options.window_seconds)
    shortest = model.encoder_config.receptive_field
    waiting: deque[_Pending] = deque()
    pool: list[_Piece] = []
    pooled = 0
    budget = options.batch_seconds * SAMPLE_RATE
    with _lanes(device) as lanes:
        for owner, pieces in read_ahead(recordings, windows, options.workers):
            waiting.append(owner)
            for first, samples in _until_error(owner, pieces):
                if samples.size < shortest:
                    owner.error = f"{owner.utterance}: {too_short(samples.size, shortest)}"
                    continue
                owner.windows[first] = None
                owner.samples = first * windows.hop + samples.size
                pool.append(_Piece(owner, first, samples))
                pooled += samples.size
                if pooled >= POOL * budget:
                    _score_pool(model, pool, device, budget, lanes)
                    pooled = 0
            owner.complete = True
            while waiting and waiting[0].ready:
                yield _result(waiting.popleft(), windows.hop, offset)
        _score_pool(model, pool, device, budget, lanes)
    for owner in waiting:
        yield _result(owner, windows.hop, offset)


def _until_error(owner: _Pending, pieces: Iterator[tuple[int, np.ndarray]]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the windows of a recording; a fault ends it and is kept."""
    try:
        yield from pieces
    except InputError as error:
        owner.error = str(error)
    except Exception as error:  # a fault of a library, or no memory left: not a reason to lose the other recordings
        owner.error = f"{owner.utterance}: cannot be read: {str(error) or type(error).__name__}"


@contextmanager
def _lanes(device: torch.device) -> Iterator[ThreadPoolExecutor]:
    """Give the threads that run batches, LANES of them with an even part of a CPU's cores each."""
    threads = torch.get_num_threads()
    count = LANES if device.type != "cpu" else min(LANES, threads)
    with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(max(1, threads // count),)) as lanes:
        try:
            yield lanes
        finally:
            torch.set_num_threads(threads)  # what a thread sets for itself is the default of threads to come


def _score_pool(
    model: MOSNetwork, pool: list[_Piece], device: torch.device, budget: float, lanes: ThreadPoolExecutor
) -> None:
    """Score the windows of the pool, in batches of similar length, and empty it."""

    @torch.inference_mode()
    def score(batch: tuple[int, ...]) -> None:
        pieces = [pool[index] for index in batch]
        audio, num_samples = pad_audio([torch.from_numpy(piece.samples) for piece in pieces])
        prediction = model(to_device(audio, device), num_samples.to(device), with_tokens=False)
        counts = prediction.num_frames.tolist()
        for piece, scores, count in zip(pieces, prediction.frame_mos.float().cpu().numpy(), counts, strict=True):
            piece.owner.windows[piece.first] = scores[:count].copy()

    list(lanes.map(score, pack_by_length([piece.samples.size for piece in pool], budget / LANES)))
    pool.clear()


def too_short(samples: int, shortest: int) -> str:
    """Say that so many 16 kHz samples are fewer than the `shortest` that give a frame."""
    found, needed = (count / SAMPLE_RATE * 1000 for count in (samples, shortest))
    return f"{found:.1f} ms is shorter than one frame of the model ({needed:.1f} ms)"


def _result(owner: _Pending, hop: int, offset: float) -> Score:
    step = hop / SAMPLE_RATE
    if not owner.error:
        frames = join_frames([(first, scores) for first, scores in owner.windows.items() if scores is not None])
        if not np.isfinite(frames).all():
            owner.error = f"{owner.utterance}: the model gives no finite score"
    if owner.error:
        empty = np.zeros(0, np.float32)
        return Score(owner.utterance, 0.0, float("nan"), empty, step, owner.error, owner.recording)
    frames = (frames + offset).astype(np.float32)
    mos = float(frames.mean(dtype=np.float64))
    return Score(owner.utterance, owner.samples / SAMPLE_RATE, mos, frames, step, recording=owner.recording)


@torch.inference_mode()
def _offset(model: MOSNetwork, corpus: str | None) -> float:
    if corpus is None:
        return 0.0
    names = model.corpus_offsets.names if model.corpus_offsets else ()
    if model.corpus_offsets is None or corpus not in names:
        known = ", ".join(names) or "a single one: it has no scales to choose from"
        raise InputError(f"the model was not trained on a corpus {corpus!r} among others, but on {known}")
    device = model.corpus_offsets.values.device
    return float(model.corpus_offsets(torch.tensor(names.index(corpus), device=device)))
