"""Fit the scores of a model to the scale of a listening test.

Listening tests differ in the range and the severity of their ratings. From some recordings that were rated in a test
(50, say), this fits a mapping that never falls, stores it in the model directory (calibrations.json), and
`distilmos predict --model MODEL --calibrated NAME` applies it: scores are then on the scale of the test. The mapping
does not change the order of recordings.

--order 1 is a line, --order 3 a polynomial of third order (ITU-T P.1401), which needs more ratings. The table shows
errors and correlations on DATA itself; the errors of other recordings are a little larger.
"""

from __future__ import annotations

import argparse

from distilmos.commands.options import add_forward_options
from distilmos.inference.predict import PredictOptions
from distilmos.markdown import markdown_table, number
from distilmos.memory import use_huge_pages
from distilmos.scoring.calibrate import LEAST, calibrate_model

COLUMNS = ("RMSE", "LCC", "SRCC", "KTAU")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", metavar="MODEL", help="model directory, for example exp/<tag>/model")
    least = ", ".join(f"{count} for order {order}" for order, count in LEAST.items())
    parser.add_argument(
        "--data", required=True, metavar="DATA", help=f"data directory with utt2mos; rated utterances needed: {least}"
    )
    parser.add_argument("--name", metavar="NAME", help="name of the calibration (default: that of DATA)")
    parser.add_argument("--order", type=int, choices=LEAST, default=1, help="order of the mapping (default: 1)")
    add_forward_options(parser, PredictOptions.batch_seconds)


def run(args: argparse.Namespace) -> int:
    """Fit and store the mapping, and print the errors without and with it."""
    use_huge_pages()
    options = PredictOptions(batch_seconds=args.batch_seconds)
    calibration, rows = calibrate_model(args.model, args.data, args.name, args.order, args.device, options)
    cells = [[target, mapping, *(number(each[name]) for name in COLUMNS)] for target, mapping, each in rows]
    print(
        f"{args.model}: {calibration.text}\n\n{markdown_table(['target', 'mapping', *COLUMNS], cells, left=2)}", end=""
    )
    return 0
