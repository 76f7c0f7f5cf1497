"""Compare two scored results directories of the same set by a paired bootstrap.

Prints for each measure, at utterance and system level, both values, the difference B - A, its 95 % interval and its
two-sided p value. The bootstrap resamples whole systems.

A second table shows the tests of ITU-T P.1401 after each mapping: z of the difference of the correlations with its
two-sided p value, and F, the larger squared RMSE divided by the smaller, with its one-sided p value. They take the two
models, and all utterances or systems, as independent; where they disagree with the bootstrap, trust the bootstrap.
"""

from __future__ import annotations

import argparse

from distilmos.commands.options import add_bootstrap_options
from distilmos.files import write_json
from distilmos.scoring.bootstrap import SAMPLES
from distilmos.scoring.compare import compare_results, comparison_table, p1401_comparison_table
from distilmos.scoring.results import count_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("a", metavar="RESULTS_A", help="scored results directory, for example exp/sslmos/results/test")
    parser.add_argument("b", metavar="RESULTS_B", help="scored results directory of another model on the same set")
    parser.add_argument("--json", metavar="FILE", help="also write the comparison to FILE")
    add_bootstrap_options(parser, SAMPLES)


def run(args: argparse.Namespace) -> int:
    """Compare the directories and print the tables."""
    comparison = compare_results(args.a, args.b, args.samples, args.seed)
    if args.json:
        write_json(args.json, comparison)
    print(f"A: {args.a}\nB: {args.b}\n{count_line(comparison)}\n\n{comparison_table(comparison)}")
    print(f"Tests of ITU-T P.1401:\n\n{p1401_comparison_table(comparison)}", end="")
    return 0
