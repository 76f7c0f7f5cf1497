"""Results directories: predictions of one set, scored against its ratings.

Files:

    utt2mos       utt  predicted MOS                                  (written by `distilmos predict`)
    metrics.json  MSE, LCC, SRCC, KTAU of both levels with intervals, and the counts
    scored.tsv    utterance, system, group, mos (rated), predicted, system_mos  (absent where nothing is rated)
    notes         the notes of the data directory, where it has any
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distilmos.data.datadir import DataDir, read_data_dir
from distilmos.data.tables import c_locale_key, read_floats, read_lines
from distilmos.errors import InputError, raise_faults
from distilmos.files import write_json, write_text
from distilmos.markdown import markdown_table, with_interval
from distilmos.metrics import LEVELS, METRICS, agreement, level_scores
from distilmos.scoring.bootstrap import LEVEL, SAMPLES, bootstrap_agreement, interval

UNRATED = "No ratings: nothing to score.\n"
HEADER = ["utterance", "system", "group", "mos", "predicted", "system_mos"]


@dataclass(frozen=True)
class Scored:
    """One rated and predicted utterance.

    Attributes:
        utterance: its id.
        system: of the utterance.
        group: of the system; empty where the data directory knows none.
        mos: rated.
        predicted: MOS.
        system_mos: true MOS of the system by sys2mos; None takes the mean of its utterances.
    """

    utterance: str
    system: str
    group: str
    mos: float
    predicted: float
    system_mos: float | None = None


def score_results(data: str | Path, results: str | Path, samples: int = SAMPLES, seed: int = 1) -> dict[str, Any]:
    """Score the predictions in `results` against the ratings of `data`; write metrics.json and scored.tsv.

    Args:
        data: data directory, such as dump/raw/test.
        results: directory with utt2mos, such as exp/<tag>/results/test.
        samples: bootstrap resamples.
        seed: of the bootstrap.

    Returns:
        what metrics.json holds; without the two levels if the data directory has no ratings.

    Raises:
        InputError: if either directory is faulty, or the predictions are not for the utterances of `data`.
    """
    if samples < 1:
        raise InputError(f"the number of bootstrap samples must be at least 1, not {samples}")
    results = Path(results)
    truth = read_data_dir(data, rated=False)
    predicted = _read_predictions(results / "utt2mos", truth)
    metrics: dict[str, Any] = {
        "set": results.resolve().name,
        "notes": truth.notes,
        "counts": {"utterances": len(truth.wavs), "systems": len(set(truth.systems.values()))},
    }
    if truth.notes:
        write_text(results / "notes", truth.notes + "\n")
    else:
        (results / "notes").unlink(missing_ok=True)
    if truth.mos:
        rows = [
            Scored(u, system, truth.groups.get(system, ""), truth.mos[u], predicted[u], truth.system_mos.get(system))
            for u, system in ((u, truth.systems[u]) for u in truth.utterances)
        ]
        metrics |= score_levels(rows, samples, seed)
        write_text(results / "scored.tsv", _scored_text(rows))
    else:
        (results / "scored.tsv").unlink(missing_ok=True)
    write_json(results / "metrics.json", metrics)
    return metrics


def _read_predictions(path: Path, truth: DataDir) -> dict[str, float]:
    predicted = read_floats(path)
    faults = [f"{path}: {u} of {truth.path} has no prediction" for u in truth.utterances if u not in predicted]
    faults += [
        f"{path}:{line}: {u} is not in {truth.path}" for line, u in enumerate(predicted, start=1) if u not in truth.wavs
    ]
    raise_faults(faults, f"the predictions are not for the utterances of {truth.path}")
    return predicted


def level_arrays(rows: Sequence[Scored]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return, for each level, rated and predicted scores, each of shape (N,); see `metrics.level_scores`.

    They are in the order of utterances or systems, whatever that of `rows`.
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
    """Return the measures of every resample of systems, with all utterances of each.

    Models err by system: an interval of utterances that are drawn one by one would be too narrow for other systems.
    Those of a single system are drawn so.

    Args:
        arrays: for each prediction, what `level_arrays` gives.
        rows: of one of the predictions.
        samples: number of resamples, the same ones for all predictions and both levels.
        seed: of the draws.
        metrics: the measures to compute.
        clusters: system -> what it is a copy of, for systems that are not independent either; None if all are.

    Returns:
        level -> measure -> array (samples, predictions), as `bootstrap_agreement` gives it.
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


def score_levels(rows: Sequence[Scored], samples: int = SAMPLES, seed: int = 1) -> dict[str, Any]:
    """Return the measures of both levels with percentile bootstrap intervals; None where one is not defined.

    A resample, see `resample_levels`, in which a correlation is not defined is left out of its interval and counted as
    `undefined`.
    """
    scores: dict[str, Any] = {}
    arrays = level_arrays(rows)
    for level, resampled in resample_levels([arrays], rows, samples, seed).items():
        values = agreement(*arrays[level])
        scores[level] = {}
        for name in METRICS:
            low, high, undefined = interval(resampled[name][:, 0])
            entry = {"value": values[name], "low": low, "high": high}
            scores[level][name] = finite(entry) | {"undefined": undefined}
    return scores | {"bootstrap": {"samples": samples, "seed": seed, "level": LEVEL}}


def finite(numbers: Mapping[str, float]) -> dict[str, float | None]:
    """Return `numbers` with None, which JSON can hold, for every NaN."""
    return {name: None if math.isnan(value) else value for name, value in numbers.items()}


def _scored_text(rows: Sequence[Scored]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows([row.utterance, row.system, row.group, row.mos, row.predicted, row.system_mos] for row in rows)
    return stream.getvalue()


def read_scored(results: str | Path) -> list[Scored]:
    """Read the scored.tsv of a results directory.

    Raises:
        InputError: if it is missing, has no utterance, repeats one, or a line is not as `score_results` writes it.
    """
    path = Path(results) / "scored.tsv"
    if not path.exists():
        raise InputError(f"{path}: no such file; `distilmos score` makes it for sets with ratings")
    lines = csv.reader(read_lines(path), delimiter="\t")
    if next(lines, None) != HEADER:
        raise InputError.at(path, 1, f"expected the tab-separated header {' '.join(HEADER)}")
    rows: dict[str, Scored] = {}
    for line, fields in enumerate(lines, start=2):
        try:
            utterance, system, group, mos, predicted, system_mos = fields
            row = Scored(
                utterance, system, group, float(mos), float(predicted), float(system_mos) if system_mos else None
            )
        except ValueError:
            raise InputError.at(path, line, f"not {', '.join(HEADER)}: {fields}") from None
        if not all(map(math.isfinite, (row.mos, row.predicted, row.system_mos or 0.0))):
            raise InputError.at(path, line, f"{utterance}: not a finite score")
        if utterance in rows:
            raise InputError.at(path, line, f"{utterance} is given twice")
        rows[utterance] = row
    if not rows:
        raise InputError(f"{path}: no utterance")
    return list(rows.values())


def read_metrics(results: str | Path) -> dict[str, Any]:
    """Read the metrics.json of a results directory.

    Raises:
        InputError: if it is missing or not as `score_results` writes it.
    """
    path = Path(results) / "metrics.json"
    try:
        metrics: dict[str, Any] = json.loads("\n".join(read_lines(path)))
        entries = [metrics[level][name] for level in LEVELS if level in metrics for name in METRICS]
        complete = [{"set", "notes", "counts"} <= metrics.keys(), {"utterances", "systems"} <= metrics["counts"].keys()]
        complete += [{"value", "low", "high"} <= entry.keys() for entry in entries]
        if not all(complete):
            raise ValueError("an entry is missing")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a metrics.json of `distilmos score` ({error})") from None
    return metrics


def count_line(metrics: Mapping[str, Any]) -> str:
    """Return one line with the counts and the notes, to be shown beside every table of the set."""
    counts = metrics["counts"]
    return f"{counts['utterances']} utterances, {counts['systems']} systems. {metrics['notes']}".strip()


def score_table(metrics: Mapping[str, Any]) -> str:
    """Return both levels as a Markdown table; a line that says so if nothing is rated."""
    if "utterance" not in metrics:
        return UNRATED
    rows = [[level, *(with_interval(metrics[level][name]) for name in METRICS)] for level in LEVELS]
    return markdown_table(["level", *METRICS], rows)
