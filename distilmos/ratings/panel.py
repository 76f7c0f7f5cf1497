"""The single ratings of a set as arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from distilmos.data.lists import REPEAT

Ratings = Mapping[str, Sequence[tuple[str, float]]]  # utterance -> (listener, score) pairs


@dataclass(frozen=True)
class Panel:
    """N ratings of U utterances by L listeners, who may rate an utterance several times.

    Attributes:
        utterances: names, U.
        listeners: names, L, sorted.
        utterance: place of the utterance of each rating in `utterances`, shape (N,).
        listener: place of the listener of each rating in `listeners`, shape (N,).
        score: shape (N,).
    """

    utterances: Sequence[str]
    listeners: Sequence[str]
    utterance: np.ndarray
    listener: np.ndarray
    score: np.ndarray

    def chosen(self, ratings: np.ndarray) -> Panel:
        """Return some of the ratings of the same utterances and listeners; `ratings` is a mask of shape (N,)."""
        return replace(
            self, utterance=self.utterance[ratings], listener=self.listener[ratings], score=self.score[ratings]
        )

    @property
    def counts(self) -> np.ndarray:
        """Number of ratings of each utterance, shape (U,)."""
        return np.bincount(self.utterance, minlength=len(self.utterances))

    @property
    def sums(self) -> np.ndarray:
        """Sum of the ratings of each utterance, shape (U,)."""
        return np.bincount(self.utterance, self.score, minlength=len(self.utterances))

    @property
    def means(self) -> np.ndarray:
        """Mean of the ratings of each utterance, shape (U,); NaN without a rating."""
        return divide(self.sums, self.counts)


def divide(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the means of sums of `counts` values; NaN where nothing was counted."""
    means: np.ndarray = np.divide(sums, counts, out=np.full(np.shape(sums), np.nan), where=counts > 0)
    return means


def known_mean(values: Sequence[float]) -> float:
    """Return the mean of the values that are not NaN; NaN without any."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def people_of(ratings: Ratings) -> dict[str, str]:
    """Return name -> person: `anna#2` is anna, who rated an utterance again, if there is an anna (`number_repeats`)."""
    names = {listener for pairs in ratings.values() for listener, _ in pairs}
    people = {}
    for name in names:
        first, _, count = name.rpartition(REPEAT)
        people[name] = first if first in names and count.isdecimal() else name
    return people


def places_of(labels: np.ndarray, number: int) -> list[np.ndarray]:
    """Return the places of each label from 0 to number - 1, in ascending order; `labels` has shape (N,)."""
    return np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels, minlength=number))[:-1])


def panel_of(ratings: Ratings) -> Panel:
    """Convert ratings to arrays, in their order, with all ratings of a person as those of one listener.

    At least one utterance must have a rating.
    """
    people = people_of(ratings)
    listeners = sorted(set(people.values()))
    places = {listener: place for place, listener in enumerate(listeners)}
    rows = [
        (n, places[people[listener]], value) for n, pairs in enumerate(ratings.values()) for listener, value in pairs
    ]
    utterance, listener, score = (np.array(column) for column in zip(*rows, strict=True))
    return Panel(list(ratings), listeners, utterance, listener, score.astype(float))
