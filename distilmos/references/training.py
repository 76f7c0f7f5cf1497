"""What a training set alone tells about the scores of a test set: its mean, and a ridge regression on one layer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from distilmos.data.datadir import read_data_dir
from distilmos.data.schema import Scale
from distilmos.ridge import Ridge, best_fit, deal_whole, fit_ridge
from distilmos.scoring.results import rated_target
from distilmos.tokens.info import TokenInfo
from distilmos.tokens.pooled import read_pooled

FOLDS_SEED = 1


@dataclass(frozen=True)
class FittedLayer:
    """A ridge regression on one layer.

    Attributes:
        ridge: the regression.
        layer: the layer, counted from 0.
        scale: scale of its predictions.
        info: origin of the layers.
    """

    ridge: Ridge
    layer: int
    scale: Scale
    info: TokenInfo


class Training:
    """The training set, and what is fitted to it."""

    def __init__(self, directory: Path, pooled: Path | None) -> None:
        """Read the set; `pooled` is the directory of its pooled layers, None without them."""
        self._data = read_data_dir(directory, rated=False)
        self._pooled = read_pooled(pooled, self._data.utterances) if pooled else None
        self._fitted: dict[str, FittedLayer | None] = {}

    def mean(self, predicted: Scale, to: Scale, *, first: bool) -> float | None:
        """Return the mean score of a target (see `rated_target`) on the scale `to`; None if it is not rated."""
        ratings = rated_target(self._data, predicted, first=first)
        return ratings.scale.convert(fmean(ratings.scores.values()), to) if ratings.scores else None

    def ridge(self, predicted: Scale, *, first: bool) -> FittedLayer | None:
        """Return the ridge regression of a target; None without pooled layers or with fewer than two rated utterances.

        A cross-validation chooses penalty and layer; it keeps conditions together.
        """
        if predicted.name not in self._fitted:
            self._fitted[predicted.name] = self._fit(predicted, first)
        return self._fitted[predicted.name]

    def _fit(self, predicted: Scale, first: bool) -> FittedLayer | None:
        ratings = rated_target(self._data, predicted, first=first)
        rated = ratings.scores
        if self._pooled is None or len(rated) < 2:
            return None
        pooled, info = self._pooled
        places = [place for place, utterance in enumerate(self._data.utterances) if utterance in rated]
        utterances = [self._data.utterances[place] for place in places]
        folds = deal_whole([self._data.conditions[u] for u in utterances], utterances, FOLDS_SEED)
        targets = np.array([[rated[u]] for u in utterances])
        models = [fit_ridge(pooled[places, layer], targets, folds) for layer in range(info.layers)]
        layer = best_fit(models)
        return FittedLayer(models[layer], layer, ratings.scale, info)
