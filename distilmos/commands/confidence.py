"""Does a model know when it does not know? Compares its signals of doubt with its errors on rated sets.

A model has those signals that its network allows:
  token entropy   of a DistilMOS network with tokens: entropy of its token predictors
  expected error  of a network that was trained with `regression_loss: nll`: the error that it estimates
  novelty         of a network with `head: statistics`: mean square of its standardised features, 1 on its training set

For each set and signal, the table shows the rank correlation (SRCC) with the absolute error, with a 95 % interval over
systems, and the mean absolute error of the quarter, half, three quarters and all of the utterances with the least
doubt. A useful signal has an SRCC well above 0, and an error that grows from left to right. --out has the numbers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from distilmos.analysis.confidence import SHARES, measure_confidence
from distilmos.commands.options import add_device_option
from distilmos.markdown import markdown_table, number, with_interval


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="model directory, such as exp/<tag>/final")
    parser.add_argument(
        "--data",
        nargs="+",
        action="extend",
        required=True,
        type=Path,
        metavar="DIR",
        help="rated data directories of stage 1",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON file to write")
    add_device_option(parser)


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    found = measure_confidence(args.model, tuple(args.data), args.out, args.device)
    rows = [
        [
            Path(of_set["path"]).name,
            signal,
            with_interval(judged["SRCC"]),
            *(number(judged["risk"][f"{share:g}"]) for share in SHARES),
        ]
        for of_set in found
        for signal, judged in of_set["signals"].items()
    ]
    header = ["set", "signal", "SRCC with the error", *(f"error of {share:.0%}" for share in SHARES)]
    print(markdown_table(header, rows))
    return 0
