"""Compare two predictions of the same rated set by a paired bootstrap, and by the tests of ITU-T P.1401."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distilmos.data.schema import Scale
from distilmos.errors import InputError, raise_faults
from distilmos.files import without_nan
from distilmos.markdown import bounds, markdown_table, number, p_value
from distilmos.metrics import LEVELS, METRICS, agreement
from distilmos.scoring.bootstrap import COVERAGE, SAMPLES, interval, two_sided_p
from distilmos.scoring.p1401 import DEGREES_OF_FREEDOM, MAPPINGS, compare_correlations, compare_rmse, evaluate
from distilmos.scoring.results import Scored, level_arrays, read_metrics, read_scored, resample_levels, scale_in

Arrays = Mapping[str, tuple[np.ndarray, np.ndarray]]  # level -> rated and predicted scores


def compare_results(a: str | Path, b: str | Path, samples: int = SAMPLES, seed: int = 1) -> dict[str, Any]:
    """Compare two scored results directories of the same rated set.

    Of several targets, the first is compared.

    Args:
        a: first results directory.
        b: second results directory.
        samples: number of bootstrap resamples, shared by both; see `resample_levels`.
        seed: seed of the bootstrap.

    Returns:
        level -> measure -> the values of `a` and `b`, the difference b - a, its interval, its two-sided p value, and
        the number of resamples that do not define it; and `p1401`: for each level and mapping, LCC and RMSE of both,
        the statistic and the p value (see `p1401.compare_correlations` and `compare_rmse`).

    Raises:
        InputError: if an utterance is in one directory only, or its system or rating differs; names each of them.
    """
    if samples < 1:
        raise InputError(f"the number of bootstrap samples must be at least 1, not {samples}")
    rows_a, rows_b = read_scored(a), read_scored(b)
    _check_same_set(a, rows_a, b, rows_b)
    metrics = read_metrics(a), read_metrics(b)
    notes = dict.fromkeys(filter(None, (each["notes"] for each in metrics)))
    comparison: dict[str, Any] = {
        "a": str(a),
        "b": str(b),
        "notes": " ".join(notes),
        "counts": {"utterances": len(rows_a), "systems": len({row.system for row in rows_a})},
    }
    if "scale" in metrics[0]:
        comparison["scale"] = metrics[0]["scale"]
    arrays_a, arrays_b = level_arrays(rows_a), level_arrays(rows_b)
    for level, resampled in resample_levels([arrays_a, arrays_b], rows_a, samples, seed).items():
        value_a, value_b = agreement(*arrays_a[level]), agreement(*arrays_b[level])
        comparison[level] = {}
        for name in METRICS:
            differences = resampled[name][:, 1] - resampled[name][:, 0]
            low, high, undefined = interval(differences)
            entry = {"a": value_a[name], "b": value_b[name], "difference": value_b[name] - value_a[name]}
            entry |= {"low": low, "high": high, "p": two_sided_p(differences)}
            comparison[level][name] = without_nan(entry) | {"undefined": undefined}
    comparison["p1401"] = _p1401(arrays_a, arrays_b, scale_in(metrics[0]))
    return comparison | {"bootstrap": {"samples": samples, "seed": seed, "level": COVERAGE}}


def _p1401(a: Arrays, b: Arrays, scale: Scale) -> list[dict[str, Any]]:
    rows = []
    for level in LEVELS:
        size = a[level][0].size
        for order, mapping in MAPPINGS.items():
            if size <= DEGREES_OF_FREEDOM[order]:
                continue
            of_a, of_b = (evaluate(*arrays[level], order, scale) for arrays in (a, b))
            z, p_z = compare_correlations(of_a["LCC"], of_b["LCC"], size)
            f, p_f = compare_rmse(of_a["RMSE"], of_b["RMSE"], size, order)
            correlation = without_nan({"a": of_a["LCC"], "b": of_b["LCC"], "z": z, "p": p_z})
            error = without_nan({"a": of_a["RMSE"], "b": of_b["RMSE"], "F": f, "p": p_f})
            rows.append({"level": level, "mapping": mapping, "LCC": correlation, "RMSE": error})
    return rows


def _check_same_set(a: str | Path, rows_a: list[Scored], b: str | Path, rows_b: list[Scored]) -> None:
    in_a = {row.utterance: row for row in rows_a}
    in_b = {row.utterance: row for row in rows_b}
    faults = [f"{a}: utterance {utterance} is not in {b}" for utterance in in_a if utterance not in in_b]
    faults += [f"{b}: utterance {utterance} is not in {a}" for utterance in in_b if utterance not in in_a]
    for utterance, row in in_a.items():
        other = in_b.get(utterance, row)
        if (row.system, row.mos, row.system_mos) != (other.system, other.mos, other.system_mos):
            faults.append(
                f"{b}: utterance {utterance} is of system {other.system}, rated {other.mos}; in {a} it is of system "
                f"{row.system}, rated {row.mos}"
            )
    raise_faults(faults, "the two results directories hold different sets")


def comparison_table(comparison: Mapping[str, Any]) -> str:
    """Format the result of `compare_results` as a Markdown table."""
    rows = []
    for level in LEVELS:
        for name in METRICS:
            entry = comparison[level][name]
            values = [number(entry["a"]), number(entry["b"]), number(entry["difference"], sign=True)]
            rows.append([level, name, *values, bounds(entry, sign=True), p_value(entry["p"])])
    return markdown_table(["level", "metric", "A", "B", "B - A", f"{100 * COVERAGE:g} % interval", "p"], rows, left=2)


def p1401_comparison_table(comparison: Mapping[str, Any]) -> str:
    """Format the tests of ITU-T P.1401 in the result of `compare_results` as a Markdown table."""
    header = ["level", "mapping"]
    for name, statistic in (("LCC", "z"), ("RMSE", "F")):
        header += [f"{name} A", f"{name} B", statistic, "p"]
    rows = [
        [
            row["level"],
            row["mapping"],
            *(
                p_value(value) if key == "p" else number(value)
                for name in ("LCC", "RMSE")
                for key, value in row[name].items()
            ),
        ]
        for row in comparison["p1401"]
    ]
    return markdown_table(header, rows, left=2)
