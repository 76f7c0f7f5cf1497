"""Reject unreliable listeners of a data directory with single ratings, and report who, why, and what it changes.

Writes OUT, all or nothing: the data directory without the rejected ratings, SCREENING.md, screening.tsv (all listeners)
and rejected.tsv (all rejected ratings with the reasons). The rules:
  reference    hidden references rated below 90 of 100 (ITU-R BS.1534-3); more than --max-wrong of them
  anchor       mid-range anchors rated above 90 of 100 (ITU-R BS.1534-3), likewise
  trapping     trapping questions answered wrongly (ITU-T P.808), likewise
  gold         gold standard questions answered wrongly (ITU-T P.808), likewise
  straight     ratings that hardly vary, though the means of the others do
  correlation  ratings that hardly correlate with the means of the others
  outlier      single ratings far from the others of the same system; only these are rejected
The first four need the control questions that `distilmos import-ratings` finds in an export.
"""

from __future__ import annotations

import argparse

from distilmos.commands.options import fraction, positive_float, positive_int
from distilmos.ratings.rules import RULES, Limits
from distilmos.ratings.screen import PAGE, screen_ratings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    default = Limits()
    parser.add_argument("data", metavar="DATA", help="data directory with single ratings")
    parser.add_argument("out", metavar="OUT", help="data directory to write")
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES), help="rules to apply (default: all)")
    parser.add_argument(
        "--max-wrong",
        type=fraction,
        default=default.max_wrong,
        metavar="SHARE",
        help="highest share of wrong answers to the control questions of a kind (default: %(default)s)",
    )
    parser.add_argument(
        "--min-variance",
        type=positive_float,
        default=default.min_variance,
        metavar="V",
        help="lowest variance of a listener's ratings, on a scale from 1 to 5 (default: %(default)s)",
    )
    parser.add_argument(
        "--min-correlation",
        type=fraction,
        default=default.min_correlation,
        metavar="LCC",
        help="lowest correlation with the means of the others (default: %(default)s)",
    )
    parser.add_argument(
        "--min-ratings",
        type=positive_int,
        default=default.min_ratings,
        metavar="N",
        help="ratings that a listener must have for the rules straight and correlation (default: %(default)s)",
    )
    parser.add_argument(
        "--max-z",
        type=positive_float,
        default=default.max_z,
        metavar="Z",
        help="largest z score of a rating among those of its system (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Screen, and print what was rejected."""
    limits = Limits(
        tuple(args.rules), args.max_wrong, args.min_variance, args.min_correlation, args.min_ratings, args.max_z
    )
    print(screen_ratings(args.data, args.out, limits))
    print(f"report: {args.out}/{PAGE}")
    return 0
