"""Ridge regression whose penalty is chosen by cross-validation within its training data, and the folds for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Penalties for standardised features that are divided by the square root of their number. The smallest hardly shrinks
# the weights; the largest leaves little more than the mean.
PENALTIES = tuple(10.0**exponent for exponent in range(-5, 3))
FOLDS = 5


@dataclass(frozen=True)
class Ridge:
    """A fitted regression.

    Attributes:
        mean: mean of each feature, (P,).
        scale: divisor of each feature, (P,).
        weights: (P, C).
        centre: mean of the targets, (C,).
        error: sum of squared errors of the cross-validation that chose the penalty.
    """

    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    centre: np.ndarray
    error: float

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return the predictions (M, C) for `features` (M, P)."""
        return np.asarray(self.centre + (features - self.mean) / self.scale @ self.weights)


def fit_ridge(
    features: np.ndarray, targets: np.ndarray, folds: np.ndarray, penalties: Sequence[float] = PENALTIES
) -> Ridge:
    """Fit `features` (N, P) to `targets` (N, C).

    The penalty is the one of `penalties` that is best in a cross-validation over `folds` (N,), which must have at least
    two different values.
    """
    mean, scale = standardisation(features)
    inputs = (features - mean) / scale
    left, squares = _left_vectors(inputs)
    centre = targets.mean(0)
    rotated = left.T @ (targets - centre)

    parts = [
        (left[folds == fold], left[folds == fold].T @ left[folds == fold], folds == fold) for fold in np.unique(folds)
    ]

    def error(penalty: float) -> float:
        """Return the squared error of a cross-validation over the folds, without a fit for each fold.

        With the hat matrix H of the fit to all data, the residuals of a left-out fold f are (I - H_ff)^-1 times its
        residuals in that fit (K.-C. Li, "Asymptotic optimality for Cp, CL, cross-validation and generalized
        cross-validation", Annals of Statistics 1987, for single points).
        """
        shrunk = squares / (squares + penalty)
        residuals = targets - centre - left @ (shrunk[:, None] * rotated)
        total = 0.0
        for own, gram, members in parts:
            errors = residuals[members]
            if len(own) <= own.shape[1]:
                errors = np.linalg.solve(np.eye(len(own)) - (own * shrunk) @ own.T, errors)
            else:  # the same by the identity of Woodbury, so that the cost does not grow with the cube of the fold
                removed = np.eye(own.shape[1]) - shrunk[:, None] * gram
                errors = errors + own @ np.linalg.solve(removed, shrunk[:, None] * (own.T @ errors))
            total += float(np.square(errors).sum())
        return total

    errors = {penalty: error(penalty) for penalty in penalties}
    best = min(errors, key=errors.__getitem__)
    weights = inputs.T @ (left @ (rotated / (squares + best)[:, None]))
    return Ridge(mean, scale, weights, centre, errors[best])


def standardisation(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of each feature (N, P), and the divisor after which all P together have variance 1, (P,) each."""
    deviation = features.std(0, dtype=np.float64)
    return features.mean(0, dtype=np.float64), np.where(deviation > 0, deviation, 1) * np.sqrt(features.shape[1])


def best_fit(models: Sequence[Ridge]) -> int:
    """Return the place of the fit with the smallest error of its cross-validation, such as that of the best layer."""
    return min(range(len(models)), key=lambda place: models[place].error)


def _left_vectors(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the left singular vectors (N, R) and the squared singular values (R,) of `inputs` (N, P)."""
    if inputs.shape[0] > inputs.shape[1]:
        left, values, _ = np.linalg.svd(inputs, full_matrices=False)
        return left, values**2
    # The Gram matrix is much smaller than a matrix of all layers. Eigenvalues of the size of its rounding errors are 0.
    squares, left = np.linalg.eigh(inputs @ inputs.T)
    kept = squares > len(squares) * np.finfo(np.float64).eps * squares[-1]
    return left[:, kept], squares[kept]


def deal_folds(units: Sequence[str], classes: Sequence[str], seed: int) -> np.ndarray:
    """Return the fold of each utterance, (U,), in 0..FOLDS-1.

    Shuffle the units of each class and give them to the folds in turn: each fold gets its share of each class, and all
    utterances of a unit are in one fold.

    Args:
        units: unit of each utterance.
        classes: class of each utterance, the same for all utterances of a unit.
        seed: seed of the order.
    """
    members: dict[str, set[str]] = {}
    for unit, name in zip(units, classes, strict=True):
        members.setdefault(name, set()).add(unit)
    random = np.random.default_rng(seed)
    folds: dict[str, int] = {}
    for name in sorted(members):
        ordered = sorted(members[name])
        for place in random.permutation(len(ordered)):
            folds[ordered[place]] = len(folds) % FOLDS
    return np.array([folds[unit] for unit in units])


def deal_whole(units: Sequence[str], utterances: Sequence[str], seed: int) -> np.ndarray:
    """Return the fold of each utterance, (U,): no unit is in two folds, but utterances are dealt if all are of one."""
    dealt = units if len(set(units)) > 1 else utterances
    return deal_folds(dealt, [""] * len(dealt), seed)
