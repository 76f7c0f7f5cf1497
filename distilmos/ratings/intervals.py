"""Mean opinion scores with intervals of a bootstrap over listeners and items."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

from distilmos.files import write_text
from distilmos.markdown import bounds
from distilmos.ratings.panel import Panel, divide, known_mean
from distilmos.scoring.bootstrap import SAMPLES, interval

SEED = 1
ALL, GROUP, CONDITION, SYSTEM, UTTERANCE = _LEVELS = ("set", "group", "condition", "system", "utterance")


@dataclass(frozen=True)
class MeanScore:
    """The score of an utterance, a system, a condition, a group of systems or the whole set.

    Attributes:
        level: ALL, GROUP, CONDITION, SYSTEM or UTTERANCE.
        name: of the utterance, system, condition, group or set.
        utterances: number of its rated utterances.
        ratings: number of their ratings.
        mos: mean of the means of its utterances.
        low: low end of the 95 % interval; NaN with fewer than two listeners, who do not show what others would say.
        high: high end, likewise.
        deviation: standard deviation of the ratings; NaN for a single one.
    """

    level: str
    name: str
    utterances: int
    ratings: int
    mos: float
    low: float
    high: float
    deviation: float

    @property
    def margin(self) -> float:
        """Half of the width of the interval."""
        return (self.high - self.low) / 2

    @property
    def bounds(self) -> str:
        """The interval as text; a dash if it is not known."""
        return bounds({"low": self.low, "high": self.high}, digits=2) or "-"


def bootstrap_scores(
    panel: Panel,
    systems: Mapping[str, str],
    groups: Mapping[str, str],
    conditions: Mapping[str, str],
    samples: int = SAMPLES,
    seed: int = SEED,
) -> list[MeanScore]:
    """Return the scores of a set, its groups, conditions, systems and utterances with 95 % intervals.

    Each resample draws, with replacement, as many listeners as there are, and as many utterances of each system as it
    has: the interval says what another panel would find with other utterances of the same systems (A. B. Owen, "The
    pigeonhole bootstrap", Annals of Applied Statistics 1, 2007). That of an utterance is over listeners alone. A
    listener's ratings are drawn together, so that their bias widens the intervals. With few ratings, the intervals are
    too narrow, as all intervals of this kind.

    Args:
        panel: the ratings.
        systems: utterance -> system.
        groups: system -> group; may be empty.
        conditions: utterance -> condition, the same for all utterances of a system; may be empty.
        samples: number of resamples.
        seed: their seed.

    Returns:
        scores by level, and by name within a level; utterances in the order of the panel.
    """
    random = np.random.default_rng(seed)
    shape = (len(panel.utterances), len(panel.listeners))
    draws = random.multinomial(shape[1], np.full(shape[1], 1 / shape[1]), size=samples).T.astype(float)
    places = (panel.utterance, panel.listener)
    given, sums = (csr_array((values, places), shape=shape) for values in (np.ones(panel.score.size), panel.score))
    table = _Table(panel, given)
    utterances: dict[int, MeanScore] = {}
    for system, members in _members(panel, systems).items():
        means = divide(sums[members] @ draws, given[members] @ draws)  # (utterances, samples)
        items = random.multinomial(len(members), np.full(len(members), 1 / len(members)), size=samples).T
        for place, values in zip(members, means, strict=True):
            utterances[place] = table.score(UTTERANCE, panel.utterances[place], [place], values)
        total, count = np.nansum(means * items, axis=0), np.sum(items * ~np.isnan(means), axis=0)
        table.add(SYSTEM, system, members, total, count)
        if system in groups:
            table.add(GROUP, groups[system], members, total, count)
        if condition := conditions.get(panel.utterances[members[0]]):
            table.add(CONDITION, condition, members, total, count)
        table.add(ALL, ALL, members, total, count)
    return [*table.scores(), *(score for _, score in sorted(utterances.items()))]


def _members(panel: Panel, systems: Mapping[str, str]) -> dict[str, list[int]]:
    """Return system -> places of its rated utterances, sorted by system."""
    found: dict[str, list[int]] = {}
    for place, count in enumerate(panel.counts):
        if count:
            found.setdefault(systems[panel.utterances[place]], []).append(place)
    return dict(sorted(found.items()))


class _Table:
    """Scores of utterances; adds up the resamples of systems, conditions, groups and the set."""

    def __init__(self, panel: Panel, given: csr_array) -> None:
        """Take the ratings, and their number by each listener for each utterance, shape (U, L)."""
        self._given = given
        self._means, self._counts, self._sums = panel.means, panel.counts, panel.sums
        self._squares = np.bincount(panel.utterance, panel.score**2, minlength=self._counts.size)
        self._found: dict[tuple[str, str], tuple[list[int], np.ndarray, np.ndarray]] = {}

    def add(self, level: str, name: str, members: Sequence[int], total: np.ndarray, count: np.ndarray) -> None:
        """Add utterances: their places, and sum and number of their means in each resample, each (samples,)."""
        places, totals, counts = self._found.get((level, name), ([], 0, 0))
        places.extend(members)
        self._found[level, name] = (places, totals + total, counts + count)

    def scores(self) -> list[MeanScore]:
        """Return the scores of what was added, sorted by level and name."""
        found = sorted(self._found.items(), key=lambda item: (_LEVELS.index(item[0][0]), item[0][1]))
        return [self.score(*key, places, divide(totals, counts)) for key, (places, totals, counts) in found]

    def score(self, level: str, name: str, places: Sequence[int], means: np.ndarray) -> MeanScore:
        """Return the score of utterances: their places, and their mean in each resample, (samples,)."""
        several = np.unique(self._given[places].indices).size > 1
        low, high = interval(means)[:2] if several else (math.nan, math.nan)
        number = int(self._counts[places].sum())
        squares = float(self._squares[places].sum() - self._sums[places].sum() ** 2 / number)
        deviation = math.sqrt(max(squares, 0.0) / (number - 1)) if number > 1 else math.nan
        return MeanScore(level, name, len(places), number, float(self._means[places].mean()), low, high, deviation)


def mean_margin(scores: Sequence[MeanScore], level: str) -> float:
    """Return the mean of half of the intervals of a level, as far as they are known; NaN if none is."""
    return known_mean([score.margin for score in scores if score.level == level])


def write_scores(path: Path, scores: Sequence[MeanScore], name: str) -> None:
    """Write a table of scores, separated by tabs; `name` is that of what was rated."""
    rows = ["\t".join(["level", "name", "utterances", "ratings", name, "low", "high", "sd"])]
    for score in scores:
        numbers = (score.mos, score.low, score.high, score.deviation)
        texts = ["" if math.isnan(number) else f"{number:.4f}" for number in numbers]
        rows.append("\t".join([score.level, score.name, str(score.utterances), str(score.ratings), *texts]))
    write_text(path, "\n".join(rows) + "\n")
