"""Rules that reject listeners, or single ratings, of a listening test."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from distilmos.data.datadir import DataDir
from distilmos.data.schema import CONTROL_KINDS, MOS_SCALE, Control
from distilmos.metrics import agreement
from distilmos.ratings.panel import Panel, divide, panel_of, people_of, places_of

STRAIGHT, CORRELATION, OUTLIER = "straight", "correlation", "outlier"
RULES = {
    "reference": "wrong answers to hidden references, ITU-R BS.1534-3, section 4.1.2: a score below 90 of 100",
    "anchor": "wrong answers to mid-range anchors, ITU-R BS.1534-3, section 4.1.2: a score above 90 of 100",
    "trapping": "wrong answers to trapping questions, ITU-T P.808",
    "gold": "wrong answers to gold standard questions, ITU-T P.808",
    STRAIGHT: "straight-lining: the ratings hardly vary, though the means of the others do",
    CORRELATION: "low correlation with the means of the others",
    OUTLIER: "single ratings far from the others of the same system",
}
HARD_ITEM = 0.25  # share of wrong answers from which on an anchor checks nobody (BS.1534-3, section 4.1.2)
_LEAST_IN_SYSTEM = 6  # ratings of a system that define an outlier, as in the P.808 toolkit


@dataclass(frozen=True)
class Limits:
    """Limits of the rules.

    Attributes:
        rules: the names in RULES that apply.
        max_wrong: highest share of wrong answers to the control questions of a kind (BS.1534-3: 15 %).
        min_variance: lowest variance of the ratings of a listener, on a scale from 1 to 5 (P.808 toolkit: 0.1).
        min_correlation: lowest LCC of a listener's ratings with the means of the others.
        min_ratings: ratings that a listener must have to be judged by variance or correlation.
        max_z: largest z score of a rating among those of its system (P.808 toolkit: 3.29).
    """

    rules: Collection[str] = tuple(RULES)
    max_wrong: float = 0.15
    min_variance: float = 0.1
    min_correlation: float = 0.25
    min_ratings: int = 20
    max_z: float = 3.29


@dataclass
class Listener:
    """What is known of a listener.

    Attributes:
        ratings: number of ratings.
        variance: of the ratings; NaN for a single one.
        correlation: LCC with the means of the others that other rules keep; NaN if it is not defined.
        answers: kind of control question -> numbers of all and of wrong answers that count.
        reasons: rule that rejects the listener -> why.
    """

    ratings: int
    variance: float
    correlation: float = math.nan
    answers: dict[str, tuple[int, int]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """What the rules say.

    Attributes:
        listeners: name -> what is known, sorted by name.
        people: name of each rating -> listener, as by `people_of`.
        outliers: (utterance, name) -> why a single rating is rejected; none of a rejected listener.
    """

    listeners: dict[str, Listener]
    people: dict[str, str]
    outliers: dict[tuple[str, str], str]

    def rejected(self, utterance: str, name: str) -> dict[str, str]:
        """Return the rules that reject a rating, and why."""
        reasons = dict(self.listeners[self.people[name]].reasons)
        if (utterance, name) in self.outliers:
            reasons[OUTLIER] = self.outliers[utterance, name]
        return reasons


def judge(data: DataDir, limits: Limits) -> Verdict:
    """Apply the rules to the ratings of a data directory, which must have some.

    Control questions and straight-lining come first. The correlation is then with the listeners that these keep, and
    outliers are among the ratings that all other rules keep.
    """
    panel = panel_of(data.ratings)
    by_listener = places_of(panel.listener, len(panel.listeners))
    listeners = {name: _known(panel.score[own]) for name, own in zip(panel.listeners, by_listener, strict=True)}
    verdict = Verdict(listeners, people_of(data.ratings), {})
    _check_answers(verdict, data.controls, limits)
    others = _others(panel, np.ones(panel.score.size, dtype=bool))
    least = limits.min_variance * (data.scale.width / MOS_SCALE.width) ** 2
    if STRAIGHT in limits.rules:
        for own, listener in zip(by_listener, listeners.values(), strict=True):
            of_others = others[own]
            of_others = of_others[~np.isnan(of_others)]
            varied = of_others.size >= limits.min_ratings and float(np.var(of_others, ddof=1)) >= least
            if varied and listener.ratings >= limits.min_ratings and listener.variance < least:
                listener.reasons[STRAIGHT] = f"variance {listener.variance:.3f} of {listener.ratings} ratings"
    others = _others(panel, _kept(panel, verdict))
    for own, listener in zip(by_listener, listeners.values(), strict=True):
        shared = own[~np.isnan(others[own])]
        listener.correlation = agreement(others[shared], panel.score[shared])["LCC"]
        if CORRELATION not in limits.rules or shared.size < limits.min_ratings:
            continue
        if listener.correlation < limits.min_correlation:
            listener.reasons[CORRELATION] = f"LCC {listener.correlation:.2f} of {shared.size} ratings"
        elif np.ptp(panel.score[shared]) == 0 and np.var(others[shared]) >= least:
            # The LCC is not defined. Equal ratings of equal utterances are no fault.
            listener.reasons[CORRELATION] = f"all {shared.size} ratings are equal"
    if OUTLIER in limits.rules:
        _find_outliers(verdict, panel, data, limits.max_z)
    return verdict


def _known(scores: np.ndarray) -> Listener:
    return Listener(scores.size, float(np.var(scores, ddof=1)) if scores.size > 1 else math.nan)


def _check_answers(verdict: Verdict, controls: Mapping[str, list[Control]], limits: Limits) -> None:
    """Count the answers to control questions and reject listeners with too many wrong ones."""
    asked: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    anchors = [control for given in controls.values() for control in given if control.kind == "anchor"]
    asked.update(control.stimulus for control in anchors)
    missed.update(control.stimulus for control in anchors if not control.right)
    hard = {stimulus for stimulus, count in missed.items() if count > HARD_ITEM * asked[stimulus]}
    for name, listener in verdict.listeners.items():
        given = controls.get(name, [])
        for kind in CONTROL_KINDS:
            right = [c.right for c in given if c.kind == kind and not (kind == "anchor" and c.stimulus in hard)]
            if not right:
                continue
            wrong = right.count(False)
            listener.answers[kind] = (len(right), wrong)
            if kind in limits.rules and wrong > limits.max_wrong * len(right):
                listener.reasons[kind] = f"{wrong} of {len(right)} answers wrong"


def _kept(panel: Panel, verdict: Verdict) -> np.ndarray:
    """Return which ratings are by listeners that are not rejected, shape (N,)."""
    rejected = [place for place, name in enumerate(panel.listeners) if verdict.listeners[name].reasons]
    return np.isin(panel.listener, rejected, invert=True)


def _others(panel: Panel, kept: np.ndarray) -> np.ndarray:
    """Return the mean of the kept ratings of the same utterance by other listeners, (N,); NaN if there is none."""
    those = panel.chosen(kept)
    _, pair = np.unique(panel.utterance * len(panel.listeners) + panel.listener, return_inverse=True)
    own_sums, own_counts = (np.bincount(pair, values)[pair] for values in (np.where(kept, panel.score, 0.0), kept))
    return divide(those.sums[panel.utterance] - own_sums, those.counts[panel.utterance] - own_counts)


def _find_outliers(verdict: Verdict, panel: Panel, data: DataDir, max_z: float) -> None:
    keys = [(utterance, name) for utterance, pairs in data.ratings.items() for name, _ in pairs]
    names, system = np.unique([data.systems[utterance] for utterance in panel.utterances], return_inverse=True)
    kept = _kept(panel, verdict)
    for name, those in zip(names, places_of(system[panel.utterance], names.size), strict=True):
        those = those[kept[those]]
        deviation = float(np.std(panel.score[those])) if those.size >= _LEAST_IN_SYSTEM else 0.0
        if deviation == 0:
            continue
        mean = float(np.mean(panel.score[those]))
        for rating in those[np.abs(panel.score[those] - mean) > max_z * deviation]:
            z = (float(panel.score[rating]) - mean) / deviation
            verdict.outliers[keys[rating]] = f"z score {z:+.2f} in {name}, where the mean is {mean:.2f}"
