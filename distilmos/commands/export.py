"""Stage 8: write the final model of an experiment as a directory that needs nothing of the recipe."""

from __future__ import annotations

import argparse

from distilmos.inference.export import export_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("experiment", metavar="EXP", help="for example exp/distilmos_seed1")
    parser.add_argument("--out", required=True, metavar="DIR", help="for example exp/distilmos_seed1/model")


def run(args: argparse.Namespace) -> int:
    """Export and say what was written."""
    model = export_model(args.experiment, args.out)
    print(f"{args.out}: {model.config.model}, {sum(p.numel() for p in model.parameters()):,} parameters")
    return 0
