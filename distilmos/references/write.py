"""Write the references of test sets: simple predictors, listeners, a ridge regression and published models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilmos.data.datadir import read_data_dir, read_scales
from distilmos.data.schema import MOS_SCALE
from distilmos.files import without_nan
from distilmos.references.result import write_result
from distilmos.references.target import RatedTarget
from distilmos.references.training import Training
from distilmos.scoring.results import rated_target


@dataclass(frozen=True)
class PooledLayers:
    """Where the pooled layers of the frozen encoder are.

    Attributes:
        train: directory of those of the training set.
        tests: parent of the directories of the test sets, which have the names of the directories of results.
    """

    train: Path
    tests: Path


def write_references(
    train: Path | None,
    tests: Sequence[tuple[Path, Path]],
    pooled: PooledLayers | None,
    published: Path | None,
    samples: int,
    seed: int,
) -> list[str]:
    """Write references.json of test sets, see `result`.

    Args:
        train: training set of the model; None if it is not at hand.
        tests: data directory and directory of results of each test set.
        pooled: pooled layers of the encoder; None for a model without one.
        published: parent of directories of scores of published models, which have the names of the directories of
            results; None without them.
        samples: number of bootstrap resamples.
        seed: their seed.

    Returns:
        a line for each test set whose layers are not pooled, and that lacks the ridge regression for this reason.

    Raises:
        InputError: if a directory is faulty, the pooled layers of a set lack an utterance, or two encoders made them.
    """
    training = Training(train, pooled.train if pooled else None) if train else None
    left_out = []
    for directory, results in tests:
        data = read_data_dir(directory, rated=False)
        layers = pooled.tests / results.resolve().name if pooled else None
        if layers is not None and not layers.exists():
            left_out.append(f"{results}: no ridge regression: {layers} does not exist; stage 4 writes it")
            layers = None
        rows: list[dict[str, Any]] = []
        for place, predicted in enumerate(read_scales(results) or [MOS_SCALE]):
            first = place == 0
            target = RatedTarget(data, rated_target(data, predicted, first=first), samples, seed)
            if not target.ratings.scores:
                continue
            rows += target.simple(training.mean(predicted, target.ratings.scale, first=first) if training else None)
            rows += target.listeners()
            fitted = training.ridge(predicted, first=first) if training and layers else None
            if fitted is not None and layers is not None:
                rows.append(target.ridge(fitted, layers))
            if first and published is not None:
                rows += target.published(published / results.resolve().name)
        write_result(results, without_nan(rows))
    return left_out
