"""Write and print the scores of a model on MOS-Bench, one row for each set, in the order of MOS-Bench."""

from __future__ import annotations

import argparse
from pathlib import Path

from prepare import read_table

from distilmos.data.lists import Row
from distilmos.errors import run_main
from distilmos.files import write_text
from distilmos.markdown import markdown_table, number
from distilmos.metrics import LEVELS, METRICS
from distilmos.scoring.results import rated_targets, read_metrics

PAGE = "MOS_BENCH.md"
ABSENT, UNRATED = "not prepared", "not rated"


def main() -> None:
    """Read the command line, and write and print the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "results",
        nargs="+",
        metavar="RESULTS",
        help="a directory of results for each line of sets.tsv; - if not prepared",
    )
    parser.add_argument("--model", required=True, help="the model, as the user named it")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="directory of the page")
    args = parser.parse_args()

    header = [
        "set",
        "MOS-Bench",
        "utterances",
        "systems",
        *(f"{level} {metric}" for level in LEVELS for metric in METRICS),
    ]
    rows = [row_of(row, results) for row, results in zip(read_table(), args.results, strict=True)]
    page = f"MOS-Bench, model `{args.model}`\n\n{markdown_table(header, rows, left=2)}"
    write_text(args.out / PAGE, page)
    print(f"{page}\n{args.out / PAGE}")


def row_of(row: Row, results: str) -> list[str]:
    """Return the cells of a set.

    Args:
        row: its line in sets.tsv.
        results: its directory of results; - if the set is not prepared.
    """
    start = [row["set"], row["title"]]
    unknown = ["-"] * (1 + len(LEVELS) * len(METRICS))
    if results == "-":
        return [*start, ABSENT, *unknown]
    metrics = read_metrics(results)
    if not rated_targets(metrics):
        return [*start, UNRATED, *unknown]
    counts = metrics["counts"]
    found, published = str(counts["utterances"]), row["utterances"]
    partial = f" of {published}" if published not in (found, "-") else ""
    values = [number(metrics[level][metric]["value"]) for level in LEVELS for metric in METRICS]
    return [*start, f"{found}{partial}", str(counts["systems"]), *values]


if __name__ == "__main__":
    run_main(main)
