"""Mean opinion scores with intervals of a bootstrap over listeners and items."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

from distilmos.files import write_text
from distilmos.ratings.panel import Panel, divide
from distilmos.scoring.bootstrap import SAMPLES, interval

SEED = 1
ALL, GROUP, SYSTEM, UTTERANCE = _LEVELS = ("set", "group", "system", "utterance")


@dataclass(frozen=True)
class Score:
    """The score of an utterance, a system, a group of systems or the whole set.

    Attributes:
        level: ALL, GROUP, SYSTEM or UTTERANCE.
        name: of the utterance, system, group or set.
        utterances: number of its rated utterances.
        ratings: number of their ratings.
        mos: mean of the means of its utterances.
        low: low end of the 95 % interval.
        high: high end.
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


def bootstrap_scores(
    panel: Panel,
    systems: Mapping[str, str],
    groups: Mapping[str, str],
    samples: int = SAMPLES,
    seed: int = SEED,
) -> list[Score]:
    """Return the scores of a set, its groups, systems and utterances with 95 % intervals.

    Each resample draws, with replacement, as many listeners as there are, and as many utterances of each system as it
    has: the interval says what another panel would find with other utterances of the same systems (A. B. Owen, "The
    pigeonhole bootstrap", Annals of Applied Statistics 1, 2007). That of an utterance is over listeners alone. A
    listener's ratings are drawn together, so that their bias widens the intervals. With few ratings, the intervals are
    too narrow, as all intervals of this kind.

    Args:
        panel: the ratings.
        systems: utterance -> system.
        groups: system -> group; may be empty.
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
    table = _Table(panel)
    for system, members in _members(panel, systems).items():
        means = divide(sums[members] @ draws, given[members] @ draws)  # (utterances, samples)
        items = random.multinomial(len(members), np.full(len(members), 1 / len(members)), size=samples).T
        for place, values in zip(members, means, strict=True):
            table.add(UTTERANCE, panel.utterances[place], [place], values, np.ones(samples))
        total, count = np.nansum(means * items, axis=0), np.sum(items * ~np.isnan(means), axis=0)
        table.add(SYSTEM, system, members, total, count)
        if system in groups:
            table.add(GROUP, groups[system], members, total, count)
        table.add(ALL, ALL, members, total, count)
    return table.scores()


def _members(panel: Panel, systems: Mapping[str, str]) -> dict[str, list[int]]:
    """Return system -> places of its rated utterances, sorted by system."""
    found: dict[str, list[int]] = {}
    for place, count in enumerate(panel.counts):
        if count:
            found.setdefault(systems[panel.utterances[place]], []).append(place)
    return dict(sorted(found.items()))


class _Table:
    """Adds up the resamples of utterances, systems, groups and the set."""

    def __init__(self, panel: Panel) -> None:
        self._means, self._counts, self._sums = panel.means, panel.counts, panel.sums
        self._squares = np.bincount(panel.utterance, panel.score**2, minlength=self._counts.size)
        self._found: dict[tuple[str, str], tuple[list[int], np.ndarray, np.ndarray]] = {}

    def add(self, level: str, name: str, members: Sequence[int], total: np.ndarray, count: np.ndarray) -> None:
        """Add utterances: their places, and sum and number of their means in each resample, each (samples,)."""
        places, totals, counts = self._found.get((level, name), ([], 0, 0))
        self._found[level, name] = ([*places, *members], totals + total, counts + count)

    def scores(self) -> list[Score]:
        """Return the scores, sorted by level and name; utterances in the order of the panel."""

        def order(key: tuple[str, str]) -> tuple[int, list[int], str]:
            level, name = key
            return _LEVELS.index(level), self._found[key][0] if level == UTTERANCE else [], name

        return [self._score(level, name) for level, name in sorted(self._found, key=order)]

    def _score(self, level: str, name: str) -> Score:
        places, totals, drawn = self._found[level, name]
        low, high, _ = interval(divide(totals, drawn))
        number = int(self._counts[places].sum())
        squares = float(self._squares[places].sum() - self._sums[places].sum() ** 2 / number)
        deviation = math.sqrt(max(squares, 0.0) / (number - 1)) if number > 1 else math.nan
        return Score(level, name, len(places), number, float(self._means[places].mean()), low, high, deviation)


def write_scores(path: Path, scores: Sequence[Score], name: str) -> None:
    """Write a table of scores, separated by tabs; `name` is that of what was rated."""
    rows = ["\t".join(["level", "name", "utterances", "ratings", name, "low", "high", "sd"])]
    for score in scores:
        numbers = (score.mos, score.low, score.high, score.deviation)
        texts = ["" if math.isnan(number) else f"{number:.4f}" for number in numbers]
        rows.append("\t".join([score.level, score.name, str(score.utterances), str(score.ratings), *texts]))
    write_text(path, "\n".join(rows) + "\n")
