"""Score the predictions of one set against its ratings, and read and write results directories.

Files of a results directory:

    utt2mos       utterance and predicted MOS; `distilmos predict` writes it
    utt2TARGET    utterance and predicted score, for each further target of the model
    scale         the scales of the predictions, as in a data directory, unless they are MOS from 1 to 5
    metrics.json  counts; MSE, LCC, SRCC, KTAU of both levels with intervals; `p1401`, the measures of ITU-T P.1401 for
                  each level and mapping; accuracy of the order of `pairs`; the same for further `targets`
    scored.tsv    utterance, system, group, mos (rated), predicted, system_mos; only for a rated set
    notes         notes of the data directory, if it has any
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, FiniteFloat, model_validator

from distilmos.data.datadir import DataDir, read_data_dir, read_scales
from distilmos.data.schema import MOS, MOS_SCALE, Scale, target_table
from distilmos.data.tables import c_locale_key, read_floats, read_json, read_lines
from distilmos.errors import InputError, raise_faults
from distilmos.files import without_nan, write_json, write_text
from distilmos.markdown import markdown_table, with_interval
from distilmos.metrics import LEVELS, METRICS, agreement, few_systems, level_scores
from distilmos.scoring.bootstrap import COVERAGE, SAMPLES, bootstrap_agreement, interval
from distilmos.scoring.p1401 import Evaluated, evaluate_set
from distilmos.scoring.pairs import Pairs, pair_accuracy

UNRATED = "No ratings: nothing to score.\n"
METRICS_FILE = "metrics.json"
HEADER = ["utterance", "system", "group", "mos", "predicted", "system_mos"]


def require_metrics(model: BaseModel) -> None:
    """Raise ValueError if a level that was given to `model`, such as `utterance`, lacks one of METRICS."""
    for level in LEVELS:
        if level in model.model_fields_set and (missing := {*METRICS} - getattr(model, level).keys()):
            raise ValueError(f"{level} has no {min(missing)}")


class Measure(BaseModel):
    """A measure with its interval; the values are None where it is not defined."""

    model_config = ConfigDict(extra="allow")

    value: FiniteFloat | None
    low: FiniteFloat | None
    high: FiniteFloat | None


class _Counts(BaseModel):
    utterances: int
    systems: int


class _Target(BaseModel):
    """The scores of one target; the two levels are missing if it is not rated."""

    model_config = ConfigDict(extra="allow")

    scale: Scale = MOS_SCALE
    counts: _Counts
    utterance: dict[str, Measure] = {}
    system: dict[str, Measure] = {}
    pairs: Pairs = {}
    p1401: list[Evaluated] = []

    @model_validator(mode="after")
    def _has_all(self) -> Self:
        require_metrics(self)
        if len(self.model_fields_set & {*LEVELS}) == 1:
            raise ValueError(f"has only one of the levels {', '.join(LEVELS)}")
        if self.pairs and (self.pairs.keys() != {*LEVELS} or len({*map(len, self.pairs.values())}) > 1):
            raise ValueError(f"pairs: has not the same classes of each level ({', '.join(LEVELS)})")
        return self


class _Metrics(_Target):
    """metrics.json."""

    set: str
    notes: str
    targets: list[_Target] = []


@dataclass(frozen=True)
class Scored:
    """An utterance with its rated and its predicted score, both on the scale of the ratings.

    Attributes:
        utterance: utterance id.
        system: system of the utterance.
        group: group of the system; empty if the data directory has no sys2group.
        mos: rated MOS.
        predicted: predicted MOS.
        system_mos: rated MOS of the system from sys2mos; None means the mean over its utterances.
    """

    utterance: str
    system: str
    group: str
    mos: float
    predicted: float
    system_mos: float | None = None


def score_results(data: str | Path, results: str | Path, samples: int = SAMPLES, seed: int = 1) -> dict[str, Any]:
    """Score the predictions in `results` against the ratings of `data`; write metrics.json and scored.tsv.

    The ratings of a target of the model are those of utt2TARGET, if `data` has this table, otherwise those of utt2mos.
    Predictions are mapped linearly to the scale of the ratings.

    Args:
        data: data directory, such as dump/raw/test.
        results: directory with utt2mos, such as exp/<tag>/results/test.
        samples: number of bootstrap resamples.
        seed: seed of the bootstrap.

    Returns:
        the content of metrics.json; without the two levels if the data directory has no ratings.

    Raises:
        InputError: if either directory is faulty, or the predictions are for other utterances than those of `data`.
    """
    if samples < 1:
        raise InputError(f"the number of bootstrap samples must be at least 1, not {samples}")
    results = Path(results)
    truth = read_data_dir(data, rated=False)
    scales = read_scales(results) or [MOS_SCALE]
    metrics: dict[str, Any] = {"set": results.resolve().name, "notes": truth.notes}
    if truth.notes:
        write_text(results / "notes", truth.notes + "\n")
    else:
        (results / "notes").unlink(missing_ok=True)
    ratings, rows = _compare(truth, results / "utt2mos", scales[0])
    metrics |= _target_metrics(truth, ratings, rows, samples, seed)
    if further := [_compare(truth, results / target_table(scale.name).name, scale) for scale in scales[1:]]:
        metrics["targets"] = [_target_metrics(truth, *each, samples, seed) for each in further]
    if rows:
        write_text(results / "scored.tsv", _scored_text(rows))
    else:
        (results / "scored.tsv").unlink(missing_ok=True)
    write_json(results / METRICS_FILE, metrics)
    return metrics


def _compare(truth: DataDir, path: Path, predicted: Scale) -> tuple[Ratings, list[Scored]]:
    """Return the ratings of a target, and a row for each of its rated utterances.

    Args:
        truth: the rated set.
        path: table of the predictions.
        predicted: their scale.
    """
    scores = _read_predictions(path, truth)
    ratings = rated_target(truth, predicted, first=path.name == "utt2mos")
    converted = {utterance: predicted.convert(scores[utterance], ratings.scale) for utterance in ratings.scores}
    return ratings, scored_rows(truth, ratings, converted)


@dataclass(frozen=True)
class Ratings:
    """The ratings of one target of a set.

    Attributes:
        target: MOS for the ratings of utt2mos, which alone may have single ratings; else the name of the target.
        scale: their scale.
        scores: utterance -> score; empty if the target is not rated.
        system_mos: true scores of the systems that have one.
    """

    target: str
    scale: Scale
    scores: dict[str, float]
    system_mos: dict[str, float]


def rated_target(data: DataDir, predicted: Scale, *, first: bool) -> Ratings:
    """Return the ratings that predictions on the scale `predicted`, whose name is that of the target, are of.

    Args:
        data: the rated set.
        predicted: scale of the predictions.
        first: whether it is the first target of a model. It is that of utt2mos if the scale of utt2mos has its name, or
            if `data` has no target of its name.
    """
    own = predicted.name in data.targets and not (data.mos and predicted.name == data.scale.name)
    if first and not own:
        return Ratings(MOS, data.scale, data.mos, data.system_mos)
    if predicted.name in data.targets:
        return Ratings(predicted.name, *data.target(predicted.name), {})
    return Ratings(predicted.name, predicted, {}, {})


def first_target(directory: Path, predicted: Scale) -> tuple[str, ...]:
    """Return the target of a rated set that the first output of a model predicts, as `read_rated_set` takes it.

    Args:
        directory: the rated set, with utt2mos or with utt2TARGET of this target.
        predicted: scale of the output.
    """
    target = rated_target(read_data_dir(directory, rated=False), predicted, first=True).target
    return () if target == MOS else (target,)


def scored_rows(
    data: DataDir,
    ratings: Ratings,
    predicted: Mapping[str, float],
) -> list[Scored]:
    """Return a row for each utterance that is rated and predicted, both on the scale of the ratings."""
    systems, groups = data.systems, data.groups
    return [
        Scored(
            utterance=u,
            system=systems[u],
            group=groups.get(systems[u], ""),
            mos=ratings.scores[u],
            predicted=predicted[u],
            system_mos=ratings.system_mos.get(systems[u]),
        )
        for u in data.utterances
        if u in ratings.scores and u in predicted
    ]


def _target_metrics(
    truth: DataDir, ratings: Ratings, rows: Sequence[Scored], samples: int, seed: int
) -> dict[str, Any]:
    """Return the part of metrics.json about one target; it names the scale unless that is MOS from 1 to 5."""
    counted = [row.utterance for row in rows] or truth.utterances
    counts = {"utterances": len(counted), "systems": len({truth.systems[u] for u in counted})}
    return {
        **({} if ratings.scale == MOS_SCALE else {"scale": asdict(ratings.scale)}),
        "counts": counts,
        **(_measures(truth, ratings, rows, samples, seed) if rows else {}),
    }


def _measures(truth: DataDir, ratings: Ratings, rows: Sequence[Scored], samples: int, seed: int) -> dict[str, Any]:
    parts = {"pairs": _pairs(rows, ratings.scale), "p1401": _p1401(truth, ratings, rows)}
    return score_levels(rows, samples, seed) | parts


def _p1401(truth: DataDir, ratings: Ratings, rows: Sequence[Scored]) -> list[dict[str, Any]]:
    """Return the part of metrics.json with the measures of ITU-T P.1401 for one target."""
    found = evaluate_set(
        truth,
        ratings.target,
        ratings.scale,
        {row.utterance: row.mos for row in rows},
        {row.utterance: row.predicted for row in rows},
        {row.system: row.system_mos for row in rows if row.system_mos is not None},
    )
    return [without_nan(row) for row in found]


def _pairs(rows: Sequence[Scored], scale: Scale) -> dict[str, list[dict[str, Any]]]:
    """Return level -> the accuracy of the order of its pairs."""
    return {level: pair_accuracy(*arrays, scale.width) for level, arrays in level_arrays(rows).items()}


def _read_predictions(path: Path, truth: DataDir) -> dict[str, float]:
    predicted = read_floats(path)
    faults = [f"{path}: {u} of {truth.path} has no prediction" for u in truth.utterances if u not in predicted]
    known = set(truth.utterances)
    faults += [
        f"{path}:{line}: {u} is not in {truth.path}" for line, u in enumerate(predicted, start=1) if u not in known
    ]
    raise_faults(faults, f"predictions and {truth.path} do not hold the same utterances")
    return predicted


def level_arrays(rows: Sequence[Scored]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the rated and the predicted scores of each level, each of shape (N,); see `metrics.level_scores`.

    They are sorted by utterance or system, for any order of `rows`.
    """
    ordered = _ordered(rows)
    return level_scores(
        {row.utterance: row.mos for row in ordered},
        {row.utterance: row.predicted for row in ordered},
        {row.utterance: row.system for row in ordered},
        {row.system: row.system_mos for row in ordered if row.system_mos is not None},
    )


def _ordered(rows: Sequence[Scored]) -> list[Scored]:
    return sorted(rows, key=lambda row: c_locale_key(row.utterance))


def resample_levels(
    arrays: Sequence[Mapping[str, tuple[np.ndarray, np.ndarray]]],
    rows: Sequence[Scored],
    samples: int,
    seed: int | tuple[int, ...],
    metrics: Sequence[str] = METRICS,
    clusters: Mapping[str, str] | None = None,
) -> dict[str, dict[str, np.ndarray]]:
    """Compute the measures of every resample of whole systems.

    The errors of a model depend on the system: an interval from single utterances would be too narrow for unseen
    systems. If the set has only one system, single utterances are drawn.

    Args:
        arrays: result of `level_arrays` for each prediction.
        rows: rows of one of the predictions.
        samples: number of resamples, shared by all predictions and both levels.
        seed: seed of the draws.
        metrics: measures to compute.
        clusters: system -> cluster of systems that are drawn together, such as copies of one system; None if all
            systems are independent.

    Returns:
        level -> measure -> array (samples, predictions), see `bootstrap_agreement`.
    """
    systems = [row.system for row in _ordered(rows)]
    names = sorted(set(systems))
    drawn = clusters or dict(zip(names, names, strict=True))
    found = {}
    for level, members in zip(LEVELS, (systems, names), strict=True):
        predictions = np.stack([of_one[level][1] for of_one in arrays])
        together = np.array([drawn[system] for system in members]) if len(names) > 1 else None
        found[level] = bootstrap_agreement(arrays[0][level][0], predictions, samples, seed, metrics, together)
    return found


def score_levels(
    rows: Sequence[Scored], samples: int = SAMPLES, seed: int = 1, measures: Sequence[str] = METRICS
) -> dict[str, Any]:
    """Compute measures of both levels with percentile bootstrap intervals; None where one is not defined.

    The interval of a correlation leaves out the resamples (see `resample_levels`) that do not define it. Their number
    is `undefined`.
    """
    scores: dict[str, Any] = {}
    arrays = level_arrays(rows)
    for level, resampled in resample_levels([arrays], rows, samples, seed, measures).items():
        values = agreement(*arrays[level])
        scores[level] = {}
        for name in measures:
            low, high, undefined = interval(resampled[name][:, 0])
            entry = {"value": values[name], "low": low, "high": high}
            scores[level][name] = without_nan(entry) | {"undefined": undefined}
    return scores | {"bootstrap": {"samples": samples, "seed": seed, "level": COVERAGE}}


def _scored_text(rows: Sequence[Scored]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows([row.utterance, row.system, row.group, row.mos, row.predicted, row.system_mos] for row in rows)
    return stream.getvalue()


def read_scored(results: str | Path) -> list[Scored]:
    """Read the scored.tsv of a results directory.

    Raises:
        InputError: if it is missing or empty, repeats an utterance, or has a line that `score_results` does not write.
    """
    path = Path(results) / "scored.tsv"
    if not path.exists():
        raise InputError(f"{path}: no such file; `distilmos score` writes it for a set with ratings")
    lines = csv.reader(read_lines(path), delimiter="\t")
    if next(lines, None) != HEADER:
        raise InputError.at(path, 1, f"the header is not {' '.join(HEADER)}, separated by tabs")
    rows: dict[str, Scored] = {}
    for line, fields in enumerate(lines, start=2):
        try:
            utterance, system, group, mos, predicted, system_mos = fields
            row = Scored(
                utterance, system, group, float(mos), float(predicted), float(system_mos) if system_mos else None
            )
        except ValueError:
            raise InputError.at(path, line, f"the fields {fields} are not {', '.join(HEADER)}") from None
        if not all(map(math.isfinite, (row.mos, row.predicted, row.system_mos or 0.0))):
            raise InputError.at(path, line, f"the scores of utterance {utterance} are not all finite: {fields[3:]}")
        if utterance in rows:
            raise InputError.at(path, line, f"utterance {utterance} occurs twice")
        rows[utterance] = row
    if not rows:
        raise InputError(f"{path}: holds no utterance")
    return list(rows.values())


def read_metrics(results: str | Path) -> dict[str, Any]:
    """Read the metrics.json of a results directory.

    Raises:
        InputError: if it is missing, or `score_results` has not written it.
    """
    metrics: _Metrics = read_json(Path(results) / METRICS_FILE, _Metrics)
    return metrics.model_dump(exclude_unset=True)


def scale_in(metrics: Mapping[str, Any]) -> Scale:
    """Return the scale of the ratings."""
    return Scale(**metrics["scale"]) if "scale" in metrics else MOS_SCALE


def count_text(metrics: Mapping[str, Any]) -> str:
    """Return the numbers of utterances and systems, and a scale other than MOS from 1 to 5, as text."""
    text = f"{metrics['counts']['utterances']} utterances, {metrics['counts']['systems']} systems"
    scale = scale_in(metrics)
    return text if scale == MOS_SCALE else f"{text}, {scale.name} from {scale.span}"


def count_line(metrics: Mapping[str, Any]) -> str:
    """Return one line with the counts and the notes; every table of the set must show it."""
    caution = few_systems(metrics["counts"]["systems"])
    return " ".join(filter(None, (f"{count_text(metrics)}.", caution and f"{caution.capitalize()}.", metrics["notes"])))


def score_table(
    metrics: Mapping[str, Any], references: Sequence[tuple[str, Sequence[Mapping[str, Any] | None]]] = ()
) -> str:
    """Format the measures of both levels as a Markdown table; return UNRATED for a set without ratings.

    Args:
        metrics: content of metrics.json.
        references: further rows: label, and an entry for each of METRICS.
    """
    if not rated_targets(metrics):
        return UNRATED
    rows = [
        [label, *(with_interval(scores[level][name]) for name in METRICS)]
        for label, level, scores in score_rows(metrics)
    ]
    rows += [[label, *(with_interval(entry) if entry else "-" for entry in entries)] for label, entries in references]
    return markdown_table(["level", *METRICS], rows)


def rated_targets(metrics: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the part of metrics.json about each target that is rated."""
    return [target for target in (metrics, *metrics.get("targets", ())) if "utterance" in target]


def score_rows(metrics: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Return label, level, and the part of metrics.json, for each row of a table of scores."""
    several = "targets" in metrics
    return [
        (f"{scale_in(target).name}, {level}" if several else level, level, target)
        for target in rated_targets(metrics)
        for level in LEVELS
    ]


def p1401_rows(metrics: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the rows of `p1401_table` for all rated targets; none for metrics.json of an older version."""
    several = "targets" in metrics
    return [
        {**row, "level": f"{scale_in(target).name}, {row['level']}" if several else row["level"]}
        for target in rated_targets(metrics)
        for row in target.get("p1401", ())
    ]
