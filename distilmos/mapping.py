"""Monotonic mappings of predicted scores to the scale of a listening test (ITU-T P.1401, 01/2020, clause 7)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.polynomial import Polynomial

ORDERS = {1: "first order", 3: "third order"}
_FLAT = 1e-9  # a mapping that explains less of the variance of the ratings is a constant
_ROUNDING = 1e-12  # what a further part of the fit must gain, and a slope that counts as 0, both relative
_MOST_PARTS = 50  # about 10 are needed


@dataclass(frozen=True)
class MonotonicMap:
    """A polynomial that never falls from `lowest` to `highest`; beyond the ends it continues as a straight line.

    Attributes:
        lowest: low end of the scores on which the polynomial holds.
        highest: high end.
        coefficients: of the powers 0, 1, ... of the score, as if `lowest` were -1 and `highest` 1.
    """

    lowest: float
    highest: float
    coefficients: tuple[float, ...]

    @cached_property
    def _polynomial(self) -> Polynomial:
        return Polynomial(self.coefficients, domain=[self.lowest, self.highest])

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Map scores of any shape."""
        inside = np.clip(scores, self.lowest, self.highest)
        return np.asarray(self._polynomial(inside) + self.slope(scores) * (scores - inside))

    def slope(self, scores: np.ndarray) -> np.ndarray:
        """Return the derivative at scores of any shape; it is at least 0."""
        slopes = self._polynomial.deriv()(np.clip(scores, self.lowest, self.highest))
        return np.asarray(np.maximum(slopes, 0.0))  # rounding may leave less where it is 0


def is_monotonic(coefficients: np.ndarray) -> bool:
    """Return whether a polynomial of at most third order, coefficients (P,), does not fall from -1 to 1."""
    slope = Polynomial(coefficients).deriv()
    level, _, curvature = (*slope.coef, 0.0, 0.0, 0.0)[:3]
    turns = slope.deriv().roots() if curvature else np.zeros(0)
    places = np.concatenate([[-1.0, 1.0], turns[np.abs(turns) < 1]])
    return bool(slope(places).min() >= -_ROUNDING * max(abs(level), np.abs(coefficients).max()))


def fit_map(order: int, predicted: np.ndarray, rated: np.ndarray, lowest: float, highest: float) -> MonotonicMap:
    """Fit the mapping of least squared error between mapped and rated scores.

    The polynomial rises on the whole scale and on all predictions, not only between the predictions, so that it can be
    applied to other recordings. A first-order mapping of predictions that fall where the ratings rise is a constant.

    A third-order polynomial whose unconstrained fit rises is that fit. Otherwise its derivative is a sum, with weights
    of at least 0, of 1 - t^2 and of (t - r)^2 for several r from -1 to 1: the polynomials of second order that are
    non-negative for t from -1 to 1 are exactly these (F. Lukacs; G. Szego, Orthogonal Polynomials, theorem 1.21.1).
    scipy's non-negative least squares finds the weights; the r that reduces the error most is added until none does.
    So the problem is convex, its fit does not depend on a start, and the mapping rises everywhere. A constraint on the
    points of a grid, as in NISQA's evaluation, lets it fall between them.

    Args:
        order: 1 or 3.
        predicted: shape (N,).
        rated: shape (N,).
        lowest: low end of the scale of the predictions.
        highest: high end.
    """
    low, high = min(lowest, float(predicted.min())), max(highest, float(predicted.max()))
    places = (predicted / 2 - low / 2) / (high / 4 - low / 4) - 1  # so that no difference overflows
    spread = float(np.sum((rated - rated.mean()) ** 2))
    coefficients = np.array([rated.mean(), *[0.0] * order])
    if 0 < spread < np.inf:
        fitted = _line(places, rated) if order == 1 else _cubic(places, rated)
        if spread - float(np.sum((rated - Polynomial(fitted)(places)) ** 2)) > _FLAT * spread:
            coefficients = fitted
    return MonotonicMap(low, high, tuple(map(float, coefficients)))


def _line(places: np.ndarray, rated: np.ndarray) -> np.ndarray:
    centred = places - places.mean()
    power = float(centred @ centred)
    slope = max(0.0, float(centred @ rated) / power) if power else 0.0
    return np.array([rated.mean() - slope * places.mean(), slope])


def _cubic(places: np.ndarray, rated: np.ndarray) -> np.ndarray:
    """Return the coefficients (4,) of the best polynomial that does not fall from -1 to 1; see `fit_map`."""
    from scipy.optimize import nnls  # applying a mapping needs no scipy, which prediction alone does not install

    free = np.asarray(np.linalg.lstsq(np.vander(places, 4, increasing=True), rated, rcond=None)[0])
    if is_monotonic(free):
        return free
    powers = np.stack([places, places**2, places**3], axis=1)
    means, target = powers.mean(axis=0), rated - rated.mean()
    parts = [np.array([1.0, 0.0, -1 / 3]), _rising_except_at(-1.0), _rising_except_at(1.0)]  # the first: of 1 - t^2
    while True:
        weights, _ = nnls((powers - means) @ np.stack(parts, axis=1), target)
        slopes = weights @ np.stack(parts)
        gains = (target - (powers - means) @ slopes) @ (powers - means)
        # What a part gains is a polynomial of second order in its r: the largest is at an end or where it turns.
        turn = float(np.clip(gains[1] / (2 * gains[0]), -1, 1)) if gains[0] else 1.0
        best = max(map(_rising_except_at, (-1.0, 1.0, turn)), key=lambda part: float(part @ gains))
        if best @ gains <= _ROUNDING * float(target @ target) or len(parts) == _MOST_PARTS:
            return np.array([rated.mean() - means @ slopes, *slopes])
        parts.append(best)


def _rising_except_at(r: float) -> np.ndarray:
    """Return the coefficients of t, t^2 and t^3 of the integral of (t - r)^2."""
    return np.array([r * r, -r, 1 / 3])
