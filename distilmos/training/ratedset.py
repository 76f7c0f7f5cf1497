"""A set of recordings with their mean scores and the tokens of the frozen encoder."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np

from distilmos.data.audio import SAMPLE_RATE
from distilmos.data.datadir import DataDir, read_data_dir
from distilmos.data.schema import MOS_SCALE, Scale
from distilmos.errors import InputError, raise_faults
from distilmos.metrics import agreement, level_scores
from distilmos.ssl.encoder import SSLEncoder
from distilmos.tokens.info import TokenInfo
from distilmos.tokens.labels import read_tokens


@dataclass(frozen=True)
class RatedSet:
    """The recordings of a data directory, in the C locale's order of their ids.

    Attributes:
        path: the data directory.
        utterances: ids.
        locations: audio file or archive, and byte offset, of each.
        num_samples: exact lengths at 16 kHz.
        scales: the scale of each target; the first target selects the best models.
        scores: mean scores of each target, mapped to the scale 1..5, float (N, targets); NaN where there is none.
        systems: the system of each.
        system_mos: true MOS of the systems whose MOS is not the mean of their recordings in this set; empty with
            `targets`, which have none.
        notes: caveats to show with results on this set, such as simulated ratings.
        tokens: of each recording, integers (target layers, frames); None without tokens.
        corpora: the corpus of each; empty for a single corpus.
        ratings: (listener, score mapped to 1..5) pairs of each; an empty list where they are unknown.
    """

    path: Path
    utterances: list[str]
    locations: list[tuple[Path, int | None]]
    num_samples: list[int]
    scales: tuple[Scale, ...]
    scores: np.ndarray
    systems: list[str]
    system_mos: dict[str, float]
    notes: str
    tokens: list[np.ndarray] | None
    corpora: list[str]
    ratings: list[list[tuple[str, float]]]

    @property
    def seconds(self) -> float:
        """Total duration."""
        return sum(self.num_samples) / SAMPLE_RATE

    @property
    def mos(self) -> list[float]:
        """Mean scores of the first target."""
        return list(map(float, self.scores[:, 0]))

    def agreement(self, predicted: Mapping[str, float], target: int = 0) -> dict[str, dict[str, float]]:
        """Return the agreement of predicted scores with this set: level -> metric -> value; MSE is on the set's scale.

        With several corpora, each value is the mean over corpora. Over all recordings together, a model that only
        distinguishes the corpora would correlate too, because each corpus has its own scale and quality.

        Args:
            predicted: utterance -> score of one target, mapped to 1..5, for every recording.
            target: number of the target. Recordings without a score of it do not count.
        """
        wider = self.scales[target].width / MOS_SCALE.width
        scores, system_mos = self.scores[:, target].tolist(), self.system_mos if target == 0 else {}
        members: dict[str, list[int]] = {}
        for index in np.flatnonzero(~np.isnan(scores)).tolist():
            members.setdefault(self.corpora[index] if self.corpora else "", []).append(index)
        each = []
        for chosen in members.values():
            names = [self.utterances[index] for index in chosen]
            rated = {name: scores[index] for name, index in zip(names, chosen, strict=True)}
            systems = {name: self.systems[index] for name, index in zip(names, chosen, strict=True)}
            levels = level_scores(rated, predicted, systems, system_mos)
            measured = {level: agreement(*pair) for level, pair in levels.items()}
            each.append({level: values | {"MSE": values["MSE"] * wider**2} for level, values in measured.items()})
        return {
            level: {metric: fmean(one[level][metric] for one in each) for metric in values}
            for level, values in each[0].items()
        }

    def moved(self, copies: Mapping[Path, Path]) -> RatedSet:
        """Return the same set with audio that is read from copies (file -> copy)."""
        return replace(self, locations=[(copies[file], offset) for file, offset in self.locations])

    def digest(self) -> str:
        """Return a hash of ids, lengths, scores, ratings, systems and tokens.

        The hash does not cover the audio, which would take minutes to read in a large corpus: changed samples of
        exactly the same length go unnoticed.
        """
        rows = zip(self.utterances, self.num_samples, self.mos, self.systems, strict=True)
        systems = sorted(self.system_mos.items())
        digest = hashlib.sha256(json.dumps([list(rows), self.corpora, self.ratings, systems]).encode())
        if self.scales != (MOS_SCALE,):
            digest.update("\n".join(map(str, self.scales)).encode() + self.scores.tobytes())
        for tokens in self.tokens or ():
            digest.update(np.ascontiguousarray(tokens).tobytes())
        return digest.hexdigest()[:16]


def read_rated_set(
    directory: str | Path, max_seconds: float, longest: float | None = None, targets: Sequence[str] = ()
) -> RatedSet:
    """Read a data directory of stage 1, whose utt2dur is exact.

    Args:
        directory: its path.
        max_seconds: as for `refuse_long`.
        longest: as for `refuse_long`.
        targets: the targets; none for the scores of utt2mos.

    Raises:
        InputError: if the directory is faulty or lacks the scores of a target, or if recordings are longer than
            `max_seconds`, since recordings are never cut.
    """
    data: DataDir = read_data_dir(directory, rated=not targets)
    refuse_long(data, max_seconds, longest)
    utterances = data.utterances
    rated = [data.target(name) for name in targets] if targets else [(data.scale, data.mos)]
    raise_faults([f"{data.path}: no score of {scale.name}" for scale, known in rated if not known], str(data.path))
    scores = [[scale.convert(known.get(u, math.nan), MOS_SCALE) for u in utterances] for scale, known in rated]
    own = data.scale
    return RatedSet(
        path=data.path,
        utterances=utterances,
        locations=[data.wavs[u] for u in utterances],
        num_samples=[round(data.durations[u] * SAMPLE_RATE) for u in utterances],
        scales=tuple(scale for scale, _ in rated),
        scores=np.array(scores).T,
        systems=[data.systems[u] for u in utterances],
        system_mos={s: own.convert(mos, MOS_SCALE) for s, mos in data.system_mos.items()} if not targets else {},
        notes=data.notes,
        tokens=None,
        corpora=[data.corpora[u] for u in utterances] if data.corpora else [],
        ratings=[[(who, own.convert(score, MOS_SCALE)) for who, score in data.ratings.get(u, [])] for u in utterances],
    )


def refuse_long(data: DataDir, max_seconds: float, longest: float | None) -> None:
    """Check that no recording of a data directory is longer than `max_seconds`.

    Args:
        data: the data directory.
        max_seconds: the setting.
        longest: seconds that the encoder reads at most; None if any length fits.

    Raises:
        InputError: naming each longer recording, with file and line.
    """
    faults = [
        f"{data.where('utt2dur', utterance)} lasts {data.durations[utterance]:.2f} s"
        for utterance in data.utterances
        if data.durations[utterance] > max_seconds
    ]
    needed = math.ceil(100 * max(data.durations.values(), default=0.0)) / 100
    if longest is not None and needed > longest:
        advice = f"; the encoder reads at most {longest:.2f} s"
    else:
        advice = f", or set max_seconds to {needed:g} and batch_seconds to at least that"
    raise_faults(faults, f"{data.path}: recordings longer than max_seconds ({max_seconds:g}): leave them out{advice}")


def with_tokens(
    data: RatedSet, directory: str | Path, layers: tuple[int, ...], encoder: SSLEncoder, *, foreign: bool = False
) -> tuple[RatedSet, TokenInfo]:
    """Read the tokens of `data` into memory (four bytes for each frame and layer).

    Args:
        data: the recordings.
        directory: token directory of stage 4.
        layers: target layers, counted from 1; empty leaves the set without tokens.
        encoder: the encoder to fine-tune.
        foreign: accept tokens of another encoder, see `read_tokens`.

    Returns:
        the set with tokens, and the origin of the tokens.

    Raises:
        InputError: if another encoder made the tokens (unless `foreign`), or a recording does not have exactly one
            valid token for each frame.
    """
    frames = map(encoder.config.num_frames, data.num_samples)
    counts = dict(zip(data.utterances, frames, strict=True))
    tokens, info = read_tokens(directory, layers, counts, None if foreign else encoder.fingerprint())
    if info.layers != encoder.config.num_layers and not foreign:
        raise InputError(f"{directory}: tokens of {info.layers} layers; the encoder has {encoder.config.num_layers}")
    return replace(data, tokens=[tokens[u] for u in data.utterances] if layers else None), info
