"""The penalty of the ridge regression is that of a cross-validation with a fit for each fold."""

import numpy as np
import pytest

from distilmos.ridge import PENALTIES, fit_ridge


def cross_validation(features, targets, folds, penalty):
    """Return the squared error over all folds; each is predicted by a fit to the others, standardised together."""
    deviation = features.std(0)
    scale = np.where(deviation > 0, deviation, 1) * np.sqrt(features.shape[1])
    inputs, centred = (features - features.mean(0)) / scale, targets - targets.mean(0)
    error = 0.0
    for fold in np.unique(folds):
        x, y = inputs[folds != fold], centred[folds != fold]
        weights = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)
        error += float(np.square(centred[folds == fold] - inputs[folds == fold] @ weights).sum())
    return error


@pytest.mark.parametrize(("number", "width"), [(200, 12), (60, 40), (30, 60)])
def test_error_is_that_of_a_fit_for_each_fold(number, width):
    generator = np.random.default_rng(0)
    features = generator.standard_normal((number, width))
    features[:, 3] = 1.0  # a constant feature says nothing
    targets = features[:, :2] + generator.standard_normal((number, 2))
    folds = np.arange(number) % 5
    errors = [cross_validation(features, targets, folds, penalty) for penalty in PENALTIES]
    assert fit_ridge(features, targets, folds).error == pytest.approx(min(errors))
