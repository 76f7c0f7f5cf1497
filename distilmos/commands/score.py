"""Stage 7: score the predictions of one set against its ratings.

Writes RESULTS/metrics.json and RESULTS/scored.tsv. metrics.json holds MSE, LCC, SRCC and KTAU of utterances and of
systems, each with a percentile bootstrap interval that resamples whole systems. For a set without ratings it holds the
counts only.
"""

from __future__ import annotations

import argparse

from distilmos.commands.options import add_bootstrap_options
from distilmos.scoring.bootstrap import SAMPLES
from distilmos.scoring.results import count_line, score_results, score_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--data", required=True, metavar="DATA", help="data directory, for example dump/raw/test")
    parser.add_argument(
        "--results", required=True, metavar="RESULTS", help="directory with utt2mos, for example exp/<tag>/results/test"
    )
    add_bootstrap_options(parser, SAMPLES)


def run(args: argparse.Namespace) -> int:
    """Score the set and print the table."""
    metrics = score_results(args.data, args.results, args.samples, args.seed)
    print(f"{metrics['set']}: {count_line(metrics)}\n\n{score_table(metrics)}", end="")
    return 0
