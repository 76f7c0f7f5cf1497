"""Stage 7: RESULTS.md and report.html of an experiment.

Both come from what is in EXP: config.yaml, log.jsonl and the scored results/*; what is missing is named in them.
report.html is one file that needs no other.
"""

from __future__ import annotations

import argparse

from distilmos.report.page import write_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("experiment", metavar="EXP", help="experiment directory, for example exp/<tag>")
    parser.add_argument("--kmeans", metavar="DIR", help="directory with quality.json of `distilmos kmeans-table`")
    parser.add_argument(
        "--set", action="append", default=[], dest="sets", metavar="NAME", help="test set that should be there"
    )
    parser.add_argument("--published", metavar="FILE", help="tab-separated table of published figures")


def run(args: argparse.Namespace) -> int:
    """Write the report and print where it is."""
    for path in write_report(args.experiment, args.kmeans, args.sets, args.published):
        print(path)
    return 0
