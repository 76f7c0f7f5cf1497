"""Score predictions against the median of the five experts instead of their mean, as published results do.

The medians come from the `ratings` of the data directory, so the data directories need no second mean score.
"""

from __future__ import annotations

import argparse
import math
import statistics
from dataclasses import replace

from distilmos.data.datadir import read_data_dir
from distilmos.errors import InputError, run_main
from distilmos.scoring.results import read_scored, score_levels, score_table


def main() -> None:
    """Read the command line and print the table of scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="DATA", help="data directory, for example dump/raw/test")
    parser.add_argument("--results", required=True, metavar="RESULTS", help="directory that stage 7 has scored")
    args = parser.parse_args()

    ratings = read_data_dir(args.data).ratings
    rows = read_scored(args.results)
    for row in rows:
        if row.utterance not in ratings:
            raise InputError(f"{args.results}: {row.utterance} has no ratings in {args.data}")
        if not math.isclose(statistics.fmean(score for _, score in ratings[row.utterance]), row.mos, abs_tol=1e-3):
            raise InputError(
                f"{args.results}: {row.utterance} is rated {row.mos}, which is not the mean in {args.data}"
            )
    medians = {row.utterance: statistics.median(score for _, score in ratings[row.utterance]) for row in rows}
    print(score_table(score_levels([replace(row, mos=medians[row.utterance]) for row in rows])), end="")


if __name__ == "__main__":
    run_main(main)
