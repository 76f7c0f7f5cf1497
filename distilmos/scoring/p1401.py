"""Statistical evaluation of predicted scores as in ITU-T P.1401 (01/2020), clause 7.

Scores are mapped to the scale of the listening test first (see `mapping`), because tests differ in offset and gradient.
A mapping is fitted to the pairs of a level: utterances, or the means of conditions or systems.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, FiniteFloat
from scipy import stats

from distilmos.data.datadir import DataDir
from distilmos.data.schema import MOS, Scale
from distilmos.mapping import ORDERS, fit_map
from distilmos.markdown import markdown_table, number
from distilmos.metrics import agreement, level_scores, system_means

MAPPINGS = {0: "none", **ORDERS}  # order -> name
# What a mapping takes from the N of an error, by its order. These are the numbers of NISQA's published evaluation, so
# that results compare. A line has two coefficients; for N = 100, RMSE would be 0.5 % higher with them.
DEGREES_OF_FREEDOM = {0: 0, 1: 1, 3: 4}
CORRELATIONS = ("LCC", "SRCC", "KTAU")
TITLES = {"RMSE": "RMSE", "RMSE_star": "RMSE*", "outlier_ratio": "outlier ratio", **{n: n for n in CORRELATIONS}}
COVERAGE = 0.95  # of the intervals of ratings
ABOUT = (
    "ITU-T P.1401: each mapping of the predictions is fitted to the ratings of its own row. RMSE* counts an error as "
    f"far as it exceeds the {100 * COVERAGE:g} % interval of the rating, and the outlier ratio is the share of errors "
    "that exceed it; both need single ratings or votes, at least two for each mean."
)


def half_width(means: np.ndarray, deviations: np.ndarray, numbers: np.ndarray) -> float:
    """Return half of the 95 % interval of the mean of all ratings of one or several utterances (Student's t).

    Args:
        means: mean rating of each utterance, shape (U,).
        deviations: standard deviation of the ratings of each utterance, with the divisor K - 1, shape (U,).
        numbers: number K of ratings of each utterance, shape (U,).

    Returns:
        t(K - 1) * standard deviation / sqrt(K), over all K ratings; NaN if there is only one.
    """
    total = int(numbers.sum())
    if total < 2:
        return math.nan
    within = float(((numbers - 1) * deviations**2).sum())
    between = float((numbers * (means - numbers @ means / total) ** 2).sum())
    deviation = math.sqrt((within + between) / (total - 1))
    return float(stats.t.ppf((1 + COVERAGE) / 2, total - 1)) * deviation / math.sqrt(total)


def rmse(errors: np.ndarray, order: int) -> float:
    """Return sqrt(sum of squared errors / (N - d)), with d by the order of the mapping; NaN unless N > d."""
    free = errors.size - DEGREES_OF_FREEDOM[order]
    return math.sqrt(float(errors @ errors) / free) if free > 0 else math.nan


def beyond(errors: np.ndarray, half_widths: np.ndarray) -> np.ndarray:
    """Return the part of each absolute error that lies beyond the interval of the rating, shape (N,): that of RMSE*."""
    return np.asarray(np.maximum(np.abs(errors) - half_widths, 0.0))


def evaluate(
    rated: np.ndarray, predicted: np.ndarray, order: int, scale: Scale, half_widths: np.ndarray | None = None
) -> dict[str, float]:
    """Map the predictions of one level, and return their measures.

    Args:
        rated: shape (N,).
        predicted: shape (N,), on the scale of the ratings.
        order: of the mapping; 0 for none.
        scale: the scale.
        half_widths: half of the 95 % interval of each rating, shape (N,); None if they are not known.

    Returns:
        RMSE; LCC, SRCC and KTAU; and with `half_widths` RMSE_star (an error counts as far as it exceeds the interval)
        and outlier_ratio (the share of errors that exceed it). NaN where a measure is not defined.
    """
    mapped = fit_map(order, predicted, rated, scale.lowest, scale.highest)(predicted) if order else predicted
    errors, values = rated - mapped, agreement(rated, mapped)
    found = {"RMSE": rmse(errors, order)}
    if half_widths is not None:
        excess = beyond(errors, half_widths)
        found |= {"RMSE_star": rmse(excess, order), "outlier_ratio": float(np.mean(excess > 0))}
    return found | {name: values[name] for name in CORRELATIONS}


def compare_correlations(a: float, b: float, size: int) -> tuple[float, float]:
    """Test the difference of two Pearson correlations over N pairs each (Fisher's z).

    The recommendation takes both as independent. Two models on one set are not: the test then finds fewer differences
    than the paired bootstrap does.

    Returns:
        z of b - a, and its two-sided p value; NaN if a correlation is not defined or 1, or N < 4.
    """
    if size < 4 or not max(abs(a), abs(b)) < 1:
        return math.nan, math.nan
    z = (math.atanh(b) - math.atanh(a)) / math.sqrt(2 / (size - 3))
    return z, float(2 * stats.norm.sf(abs(z)))


def compare_rmse(a: float, b: float, size: int, order: int) -> tuple[float, float]:
    """Test the difference of two RMSEs over N pairs each (F test), both mapped with the same order.

    Returns:
        F, the larger squared RMSE divided by the smaller, and the probability of a larger F for equal errors: below
        0.05 where the recommendation finds a difference. It is at most 0.5, as the larger one is on top. NaN if an RMSE
        is not defined or 0.
    """
    if not min(a, b) > 0:
        return math.nan, math.nan
    free = size - DEGREES_OF_FREEDOM[order]
    ratio = (max(a, b) / min(a, b)) ** 2
    return ratio, float(stats.f.sf(ratio, free, free))


@dataclass(frozen=True)
class _Level:
    """Rated and predicted scores of a level, and half of the 95 % intervals of the rated ones, each of shape (N,)."""

    name: str
    pairs: tuple[np.ndarray, np.ndarray]
    half_widths: np.ndarray | None


def evaluate_set(
    truth: DataDir,
    target: str,
    scale: Scale,
    rated: Mapping[str, float],
    predicted: Mapping[str, float],
    system_mos: Mapping[str, float],
) -> list[dict[str, Any]]:
    """Return the measures of each level and mapping.

    Args:
        truth: the rated set; its `ratings` or `votes` give the intervals, its `sys2cond` the conditions.
        target: the rated target; "mos" for utt2mos.
        scale: the scale of all scores.
        rated: utterance -> score.
        predicted: utterance -> score.
        system_mos: system -> true MOS, as in `metrics.level_scores`. No interval is known for it.

    Returns:
        for each row `level`, `mapping`, `count` (N) and the measures of `evaluate`; none for a mapping with too few
        pairs for an RMSE.
    """
    return [
        {"level": level.name, "mapping": name, "count": level.pairs[0].size}
        | evaluate(*level.pairs, order, scale, level.half_widths)
        for level in _levels(truth, target, rated, predicted, system_mos)
        for order, name in MAPPINGS.items()
        if level.pairs[0].size > DEGREES_OF_FREEDOM[order]
    ]


def _levels(
    truth: DataDir,
    target: str,
    rated: Mapping[str, float],
    predicted: Mapping[str, float],
    system_mos: Mapping[str, float],
) -> list[_Level]:
    spreads = _rating_spreads(truth, target)
    rated = dict(sorted(rated.items()))  # the order of the intervals
    pairs = level_scores(rated, predicted, truth.systems, system_mos)

    def half_widths(names: Mapping[str, str]) -> np.ndarray | None:
        members: dict[str, list[str]] = {}
        for utterance in rated:
            if utterance not in spreads:
                return None
            members.setdefault(names[utterance], []).append(utterance)
        found = [
            half_width(
                np.array([rated[u] for u in group]), *map(np.array, zip(*(spreads[u] for u in group), strict=True))
            )
            for _, group in sorted(members.items())
        ]
        return None if np.isnan(found).any() else np.array(found)

    levels = [_Level("utterance", pairs["utterance"], half_widths({u: u for u in rated}))]
    if "sys2cond" in truth.tables:
        means, guesses = (system_means(scores, truth.conditions) for scores in (rated, predicted))
        arrays = np.array(list(means.values())), np.array(list(guesses.values()))
        levels.append(_Level("condition", arrays, half_widths(truth.conditions)))
    return [*levels, _Level("system", pairs["system"], None if system_mos else half_widths(truth.systems))]


def _rating_spreads(truth: DataDir, target: str) -> dict[str, tuple[float, int]]:
    """Return the standard deviation (divisor K - 1; 0 if K is 1) and the number K of the ratings of each utterance."""
    spreads = {u: each[target] for u, each in truth.votes.items() if target in each}
    if target == MOS:
        for utterance, pairs in truth.ratings.items():
            scores = [score for _, score in pairs]
            spreads[utterance] = (float(np.std(scores, ddof=1)) if len(scores) > 1 else 0.0, len(scores))
    return spreads


class Evaluated(BaseModel):
    """A row of `evaluate_set` in metrics.json; None where a measure is not defined."""

    level: str
    mapping: str
    count: int
    RMSE: FiniteFloat | None
    RMSE_star: FiniteFloat | None = None
    outlier_ratio: FiniteFloat | None = None
    LCC: FiniteFloat | None
    SRCC: FiniteFloat | None
    KTAU: FiniteFloat | None


def p1401_cells(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return header and cells of a table of `evaluate_set`, without the measures that no row has."""
    known = [name for name in TITLES if any(name in row for row in rows)]
    cells = [
        [row["level"], row["mapping"], f"{row['count']:,}", *(number(row.get(name)) for name in known)] for row in rows
    ]
    return ["level", "mapping", "N", *(TITLES[name] for name in known)], cells


def p1401_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Format the result of `evaluate_set` as a Markdown table."""
    return markdown_table(*p1401_cells(rows), left=2)
