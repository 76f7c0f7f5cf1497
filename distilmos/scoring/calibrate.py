"""Fit the mapping of a model's scores to the scale of a listening test."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from distilmos.data.datadir import DataDir, read_data_dir
from distilmos.data.recordings import find_recordings
from distilmos.data.schema import Scale
from distilmos.errors import InputError, raise_faults
from distilmos.inference.predict import PredictOptions, Score, predict
from distilmos.inference.runtime import load_runtime
from distilmos.mapping import fit_map
from distilmos.metrics import agreement
from distilmos.model.calibration import NAME, CalibratedTarget, Calibration, add_calibrations
from distilmos.model.directory import MODELS, find_model, model_names
from distilmos.scoring.p1401 import MAPPINGS, evaluate
from distilmos.scoring.results import rated_target

LEAST = {1: 10, 3: 20}  # rated utterances, by the order of the mapping


def calibrate_model(
    model: str, data: str | Path, name: str | None, order: int, device: str, options: PredictOptions
) -> tuple[Calibration, list[tuple[str, str, dict[str, float]]]]:
    """Fit a calibration on a rated data directory and add it to the model directory.

    Args:
        model: model directory.
        data: data directory with utt2mos, or with utt2TARGET for the targets of the model.
        name: name of the calibration; None for that of the data directory.
        order: 1 or 3.
        device: "auto", "cpu", "cuda", ...
        options: how to predict.

    Returns:
        the calibration; and target, mapping and `p1401.evaluate`, without mapping and with this one, of each target.

    Raises:
        InputError: if the model is not a directory of the user's, the data directory is faulty or has fewer than LEAST
            ratings for a target, a recording cannot be used, or the scores do not rise with the ratings. The model
            directory then stays as it is.
    """
    directory = _own_directory(model)
    truth = read_data_dir(data, rated=False)
    name = truth.path.resolve().name if name is None else name
    if not re.fullmatch(NAME, name):
        raise InputError(f"{name!r} cannot name a calibration: letters, digits, '.', '_' and '-'; choose another name")
    runtime = load_runtime(directory, "auto", device)
    ratings = [_ratings(truth, place, scale, LEAST[order]) for place, scale in enumerate(runtime.info.scales)]
    scores = {score.utterance: score for score in predict(runtime, find_recordings([str(data)]), options)}
    raise_faults([score.error for score in scores.values() if score.error], f"{data}: recordings cannot be used")
    targets, rows = [], []
    for own, (scale, rated) in zip(runtime.info.scales, ratings, strict=True):
        target, measures = _fit(own, scale, rated, scores, order, truth.path)
        targets.append(target)
        rows += [(own.name, mapping, each) for mapping, each in measures.items()]
    count = min(len(rated) for _, rated in ratings)
    calibration = Calibration(
        name=name,
        model=runtime.info.weights,
        data=truth.path.resolve().name,
        utterances=count,
        targets=targets,
    )
    add_calibrations(directory, [calibration])
    return calibration, rows


def _own_directory(model: str) -> Path:
    if model in model_names():
        raise InputError(f"{model}: ships with distilmos; copy {MODELS / model} and calibrate the copy")
    if not Path(model).is_dir():
        raise InputError(f"{model}: is not a directory; `distilmos pull` copies a model of the hub to one")
    return find_model(model)


def _ratings(truth: DataDir, place: int, scale: Scale, least: int) -> tuple[Scale, dict[str, float]]:
    """Return the scale and the ratings of a target of the model."""
    ratings = rated_target(truth, scale, first=place == 0)
    if len(ratings.scores) < least:
        table = truth.path / f"utt2{ratings.target}"
        raise InputError(f"{table}: {len(ratings.scores)} utterances are rated; at least {least} are needed")
    return ratings.scale, ratings.scores


def _fit(
    own: Scale, scale: Scale, rated: dict[str, float], scores: dict[str, Score], order: int, path: Path
) -> tuple[CalibratedTarget, dict[str, dict[str, float]]]:
    predicted = np.array([scores[utterance].scores[own.name] for utterance in rated])
    truth = np.array(list(rated.values()))
    mapping = fit_map(order, predicted, truth, own.lowest, own.highest)
    lcc = agreement(truth, predicted)["LCC"]
    if not (lcc > 0 and any(mapping.coefficients[1:])):
        raise InputError(f"{path}: the scores of the model do not rise with the ratings of {own.name} (LCC {lcc:.2f})")
    target = CalibratedTarget(
        name=own.name,
        scale=(scale.lowest, scale.highest),
        range=(mapping.lowest, mapping.highest),
        coefficients=list(mapping.coefficients),
    )
    converted = own.convert(predicted, scale)
    return target, {MAPPINGS[each]: evaluate(truth, converted, each, scale) for each in (0, order)}
