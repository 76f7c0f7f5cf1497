"""Score the references of one target of a test set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilmos.data.datadir import DataDir
from distilmos.data.schema import MOS_SCALE, Scale
from distilmos.data.tables import read_floats
from distilmos.metrics import LEVELS, METRICS
from distilmos.ratings.agreement import listener_ceiling
from distilmos.references.published import MODELS
from distilmos.references.result import LENGTH
from distilmos.references.training import FittedLayer
from distilmos.scoring.pairs import pair_accuracy
from distilmos.scoring.results import level_arrays, score_levels, scored_rows
from distilmos.tokens.pooled import read_pooled

ENDS = ("value", "low", "high")


@dataclass(frozen=True)
class RatedTarget:
    """The ratings of one target of a test set; scores references for them.

    Attributes:
        data: the test set.
        scale: scale of the ratings.
        rated: utterance -> rated score.
        system_mos: true scores of systems, where they are known.
        samples: number of bootstrap resamples.
        seed: their seed.
    """

    data: DataDir
    scale: Scale
    rated: Mapping[str, float]
    system_mos: Mapping[str, float]
    samples: int
    seed: int

    def row(
        self,
        name: str,
        predicted: Mapping[str, float],
        measures: Sequence[str] = METRICS,
        levels: Sequence[str] = LEVELS,
        *,
        orders: bool = True,
    ) -> dict[str, Any]:
        """Return a row of references.json.

        Args:
            name: of the reference.
            predicted: utterance -> score on the scale of the ratings; utterances without one do not count.
            measures: those to keep.
            levels: those to keep.
            orders: whether the accuracy of the order of pairs means something.
        """
        rows = scored_rows(self.data, self.rated, predicted, self.system_mos)
        scores, arrays = score_levels(rows, self.samples, self.seed), level_arrays(rows)
        found: dict[str, Any] = {"target": self.scale.name, "name": name}
        found["levels"] = {
            level: {measure: {end: scores[level][measure][end] for end in ENDS} for measure in measures}
            for level in levels
        }
        if orders:
            found["pairs"] = {level: pair_accuracy(*arrays[level], self.scale.width) for level in levels}
        return found

    def simple(self, mean: float | None) -> Iterator[dict[str, Any]]:
        """Yield the rows of the mean of the training set, the length and the condition."""
        if mean is not None:
            yield self.row("mean of the training set", dict.fromkeys(self.rated, mean), METRICS[:1], orders=False)
        yield self.row(LENGTH, self.data.durations, METRICS[1:])
        others = self._others()
        if others:
            part = "" if len(others) == len(self.rated) else f", {len(others)} of {len(self.rated)} utterances"
            # Within a condition, the better utterance always gets the lower mean of the others.
            yield self.row(f"other utterances of the condition{part}", others, levels=LEVELS[:1], orders=False)

    def _others(self) -> dict[str, float]:
        """Return the mean score of the other utterances of the condition, for each utterance with any."""
        conditions: dict[str, list[float]] = {}
        for utterance, score in self.rated.items():
            conditions.setdefault(self.data.conditions[utterance], []).append(score)
        return {
            utterance: (sum(scores) - score) / (len(scores) - 1)
            for utterance, score in self.rated.items()
            if len(scores := conditions[self.data.conditions[utterance]]) > 1
        }

    def listeners(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of the listener ceiling, if single ratings of this target are known."""
        if self.data.ratings and self.rated is self.data.mos:
            for name, levels in listener_ceiling(self.data.ratings, self.data.systems).items():
                entries = {
                    level: {measure: {"value": value, "low": None, "high": None} for measure, value in values.items()}
                    for level, values in levels.items()
                }
                yield {"target": self.scale.name, "name": f"listener ceiling, {name}", "levels": entries}

    def ridge(self, fitted: FittedLayer, directory: Path) -> dict[str, Any]:
        """Return the row of a ridge regression; `directory` has the pooled layers of the test set."""
        pooled, info = read_pooled(directory, list(self.rated))
        info.require_encoder(fitted.info.fingerprint, directory)
        predicted = fitted.scale.convert(fitted.ridge.predict(pooled[:, fitted.layer])[:, 0], self.scale)
        name = f"ridge regression, layer {fitted.layer + 1} of frozen {Path(info.ssl).name}"
        return self.row(name, dict(zip(self.rated, predicted.tolist(), strict=True)))

    def published(self, directory: Path) -> Iterator[dict[str, Any]]:
        """Yield the rows of the published models whose scores are in `directory`."""
        for name, model in MODELS.items():
            if (directory / name).exists():
                scores = read_floats(directory / name)
                yield self.row(model.title, {u: MOS_SCALE.convert(score, self.scale) for u, score in scores.items()})
