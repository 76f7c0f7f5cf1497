"""Stage 8: write the final model of an experiment to a directory that does not depend on the recipe."""

from __future__ import annotations

import argparse

from distilmos.report.export import export_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("experiment", metavar="EXP", help="for example exp/distilmos_seed1")
    parser.add_argument("--out", required=True, metavar="DIR", help="for example exp/distilmos_seed1/model")
    parser.add_argument("--licence", metavar="TEXT", help="licence of the weights, for the model card")
    parser.add_argument(
        "--half", action="store_true", help="store weights in float16, half the size; they are read as float32"
    )


def run(args: argparse.Namespace) -> int:
    """Export the model and print a summary."""
    model = export_model(args.experiment, args.out, half=args.half, licence=args.licence)
    print(f"{args.out}: {model.config.model}, {sum(p.numel() for p in model.parameters()):,} parameters")
    return 0
