"""Stage 7: write RESULTS.md and report.html of an experiment.

Both show config.yaml, log.jsonl, the scored results/* and the layer analysis of EXP, and list missing parts.
report.html is self-contained.
"""

from __future__ import annotations

import argparse

from distilmos.report.page import write_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("experiment", metavar="EXP", help="experiment directory, for example exp/<tag>")
    parser.add_argument("--kmeans", metavar="DIR", help="directory with quality.json from `distilmos kmeans-table`")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="sets",
        metavar="NAME",
        help='expected test set, shown as "not run" if it has no results; can be given several times',
    )
    parser.add_argument("--published", metavar="FILE", help="tab-separated table of published scores")


def run(args: argparse.Namespace) -> int:
    """Write the report and print its paths."""
    for path in write_report(args.experiment, args.kmeans, args.sets, args.published):
        print(path)
    return 0
