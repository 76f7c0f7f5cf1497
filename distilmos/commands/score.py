"""Stage 7: score the predictions of one set against its ratings.

Writes RESULTS/metrics.json and RESULTS/scored.tsv. metrics.json holds MSE, LCC, SRCC and KTAU of utterances and of
systems, each with a percentile bootstrap interval that resamples whole systems, and the measures of ITU-T P.1401 for
utterances, conditions (if the data directory has sys2cond) and systems: RMSE, RMSE* and outlier ratio, without mapping
and after a first-order and a monotonic third-order mapping. For a set without ratings it holds the counts only.
"""

from __future__ import annotations

import argparse

from distilmos.commands.options import add_bootstrap_options
from distilmos.scoring.bootstrap import SAMPLES
from distilmos.scoring.p1401 import ABOUT, p1401_table
from distilmos.scoring.results import count_line, p1401_rows, score_results, score_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--data", required=True, metavar="DATA", help="data directory, for example dump/raw/test")
    parser.add_argument(
        "--results", required=True, metavar="RESULTS", help="directory with utt2mos, for example exp/<tag>/results/test"
    )
    add_bootstrap_options(parser, SAMPLES)


def run(args: argparse.Namespace) -> int:
    """Score the set and print the tables."""
    metrics = score_results(args.data, args.results, args.samples, args.seed)
    print(f"{metrics['set']}: {count_line(metrics)}\n\n{score_table(metrics)}", end="")
    if rows := p1401_rows(metrics):
        print(f"\n{ABOUT}\n\n{p1401_table(rows)}", end="")
    return 0
