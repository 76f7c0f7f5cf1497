"""Accuracy of the order of pairs, by the difference of their rated scores.

A preference test asks which of two recordings is better. Its answer to a pair can be predicted from two scores; how
often that is right depends on how different the two are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, Field, FiniteFloat, NonNegativeInt

from distilmos.data.schema import MOS_SCALE
from distilmos.markdown import number

# Smallest difference of each class of pairs, on a scale from 1 to 5; it is in proportion on other scales. A difference
# of 0.1 is that of a few votes; preference tests of good systems are about 0.1 to 0.5.
DIFFERENCES = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)
MOST = 10_000  # scores, which have 50 million pairs: two seconds
_DIGITS = 6  # differences are rounded, so that 3.1 and 3.0 differ by 0.1


class PairClass(BaseModel):
    """The pairs of a class of differences, see `pair_accuracy`."""

    low: FiniteFloat
    high: FiniteFloat | None
    pairs: NonNegativeInt
    accuracy: Annotated[FiniteFloat, Field(ge=0, le=1)] | None


Pairs = dict[str, Annotated[list[PairClass], Field(min_length=1)]]  # level -> classes


def pair_accuracy(rated: np.ndarray, predicted: np.ndarray, width: float = MOS_SCALE.width) -> list[dict[str, Any]]:
    """Return the accuracy of the order of all pairs of different rated scores, of MOST random scores if there are more.

    Args:
        rated: shape (N,).
        predicted: shape (N,).
        width: width of the rating scale.

    Returns:
        for each class of DIFFERENCES `low` and `high` (None in the last one): pairs that differ by at least `low` and
        less than `high`; `pairs`, their number, and `accuracy`, the share whose order the predictions have; a tie of
        the predictions counts half. None without a pair.
    """
    edges = np.array([low * width / MOS_SCALE.width for low in DIFFERENCES])
    pairs, right = np.zeros(len(edges)), np.zeros(len(edges))
    if len(rated) > MOST:
        drawn = np.random.default_rng(1).choice(len(rated), MOST, replace=False)
        rated, predicted = rated[drawn], predicted[drawn]
    order = np.argsort(rated, kind="stable")
    rated, predicted = rated[order], predicted[order]
    for place in range(len(rated) - 1):
        apart = np.round(rated[place + 1 :] - rated[place], _DIGITS)
        agrees = (np.sign(predicted[place + 1 :] - predicted[place])[apart > 0] + 1) / 2
        classes = np.searchsorted(edges, apart[apart > 0], side="right") - 1
        pairs += np.bincount(classes, minlength=len(edges))
        right += np.bincount(classes, agrees, minlength=len(edges))
    return [
        {
            "low": float(low),
            "high": None if np.isinf(high) else float(high),
            "pairs": int(count),
            "accuracy": float(hits / count) if count else None,
        }
        for (low, high), count, hits in zip(pairwise([*edges, np.inf]), pairs, right, strict=True)
    ]


def overall(classes: Sequence[Mapping[str, Any]]) -> tuple[float | None, int]:
    """Return the accuracy over all pairs, None without any, and their number."""
    total = sum(row["pairs"] for row in classes)
    right = sum(row["pairs"] * row["accuracy"] for row in classes if row["pairs"])
    return (right / total if total else None), total


def difference_text(row: Mapping[str, Any]) -> str:
    """Return the differences of a class of pairs as text."""
    if row["high"] is None:
        return f"from {row['low']:g}"
    return f"{row['low']:g} to {row['high']:g}" if row["low"] else f"below {row['high']:g}"


def pair_rows(pairs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[list[str]]:
    """Return the rows of a table: differences, then accuracy and number of pairs of each level of `pairs`."""
    levels = list(pairs.values())
    rows = [
        [difference_text(of_class[0]), *(text for row in of_class for text in _cells(row["accuracy"], row["pairs"]))]
        for of_class in zip(*levels, strict=True)
    ]
    return [*rows, ["all", *(text for classes in levels for text in _cells(*overall(classes)))]]


def _cells(accuracy: float | None, pairs: int) -> list[str]:
    return [number(accuracy), f"{pairs:,}"]
