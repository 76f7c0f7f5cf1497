"""Score the references of one target of a test set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilmos.data.datadir import DataDir
from distilmos.data.schema import MOS, MOS_SCALE
from distilmos.data.tables import read_floats
from distilmos.errors import raise_faults
from distilmos.metrics import LEVELS, METRICS
from distilmos.ratings.agreement import listener_ceiling
from distilmos.references.published import MODELS
from distilmos.references.result import LENGTH
from distilmos.references.training import FittedLayer
from distilmos.scoring.pairs import pair_accuracy
from distilmos.scoring.results import Ratings, level_arrays, score_levels, scored_rows
from distilmos.tokens.pooled import read_pooled

ENDS = ("value", "low", "high")


@dataclass(frozen=True)
class RatedTarget:
    """The ratings of one target of a test set; scores references for them.

    Attributes:
        data: the test set.
        ratings: the ratings.
        samples: number of bootstrap resamples.
        seed: their seed.
    """

    data: DataDir
    ratings: Ratings
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
        rows = scored_rows(self.data, self.ratings, predicted)
        scores, arrays = score_levels(rows, self.samples, self.seed, measures), level_arrays(rows)
        found: dict[str, Any] = {"target": self.ratings.scale.name, "name": name}
        found["levels"] = {
            level: {measure: {end: scores[level][measure][end] for end in ENDS} for measure in measures}
            for level in levels
        }
        if orders:
            found["pairs"] = {level: pair_accuracy(*arrays[level], self.ratings.scale.width) for level in levels}
        return found

    def simple(self, mean: float | None) -> Iterator[dict[str, Any]]:
        """Yield the rows of the mean of the training set, the length and the condition."""
        if mean is not None:
            yield self.row(
                "mean of the training set", dict.fromkeys(self.ratings.scores, mean), METRICS[:1], orders=False
            )
        yield self.row(LENGTH, self.data.durations, METRICS[1:])
        others = self._others()
        if len({self.data.conditions[utterance] for utterance in others}) > 1:
            part = (
                ""
                if len(others) == len(self.ratings.scores)
                else f", {len(others)} of {len(self.ratings.scores)} utterances"
            )
            # Within a condition, the better utterance always gets the lower mean of the others.
            yield self.row(f"other utterances of the condition{part}", others, levels=LEVELS[:1], orders=False)

    def _others(self) -> dict[str, float]:
        """Return the mean score of the other utterances of the condition, for each utterance with any."""
        conditions: dict[str, list[float]] = {}
        for utterance, score in self.ratings.scores.items():
            conditions.setdefault(self.data.conditions[utterance], []).append(score)
        return {
            utterance: (sum(scores) - score) / (len(scores) - 1)
            for utterance, score in self.ratings.scores.items()
            if len(scores := conditions[self.data.conditions[utterance]]) > 1
        }

    def listeners(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of the listener ceiling, if single ratings of this target are known."""
        if self.data.ratings and self.ratings.target == MOS:
            for name, levels in listener_ceiling(self.data.ratings, self.data.systems).items():
                entries = {
                    level: {measure: {"value": value, "low": None, "high": None} for measure, value in values.items()}
                    for level, values in levels.items()
                }
                yield {"target": self.ratings.scale.name, "name": f"listener ceiling, {name}", "levels": entries}

    def ridge(self, fitted: FittedLayer, directory: Path) -> dict[str, Any]:
        """Return the row of a ridge regression; `directory` has the pooled layers of the test set."""
        pooled, info = read_pooled(directory, list(self.ratings.scores))
        info.require_encoder(fitted.info.fingerprint, directory)
        predicted = fitted.scale.convert(fitted.ridge.predict(pooled[:, fitted.layer])[:, 0], self.ratings.scale)
        name = f"ridge regression, layer {fitted.layer + 1} of frozen {Path(info.ssl).name}"
        return self.row(name, dict(zip(self.ratings.scores, predicted.tolist(), strict=True)))

    def published(self, directory: Path) -> Iterator[dict[str, Any]]:
        """Yield the rows of the published models whose scores are in `directory`."""
        for name, model in MODELS.items():
            if (directory / name).exists():
                scores = read_floats(directory / name)
                lacking = [f"{directory / name}: no score of {u}" for u in self.ratings.scores if u not in scores]
                raise_faults(lacking, f"{directory / name} is not of {self.data.path}; run stage 6 again")
                converted = {u: MOS_SCALE.convert(score, self.ratings.scale) for u, score in scores.items()}
                yield self.row(model.title, converted)
