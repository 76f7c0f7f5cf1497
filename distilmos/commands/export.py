"""Stage 8: write the final model of an experiment to a directory that does not depend on the recipe.

With --onnx, the directory also gets `model.onnx`, the network for onnxruntime: `distilmos predict` then needs no torch.
`distilmos export --onnx DIR` adds it to a model directory that exists. It is written only if it gives the scores of
torch. It refers to the weights in `model.safetensors`, so both files stay together.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from distilmos.errors import InputError
from distilmos.model.directory import ONNX
from distilmos.model.onnx_export import export_onnx


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "experiment", metavar="EXP", help="for example exp/distilmos_seed1; without --out, a model directory"
    )
    parser.add_argument("--out", metavar="DIR", help="for example exp/distilmos_seed1/model")
    parser.add_argument("--onnx", action="store_true", help="also write model.onnx, for prediction without torch")
    parser.add_argument("--licence", metavar="TEXT", help="licence of the weights, for the model card")
    parser.add_argument(
        "--half", action="store_true", help="store weights in float16, half the size; they are read as float32"
    )


def run(args: argparse.Namespace) -> int:
    """Export the model and print a summary."""
    if args.out is None:
        if not args.onnx or args.half or args.licence:
            raise InputError("--out is missing; only `distilmos export --onnx DIR` needs none")
    else:
        from distilmos.report.export import export_model  # imported here: model.onnx needs nothing of the recipes

        model = export_model(args.experiment, args.out, half=args.half, licence=args.licence)
        print(f"{args.out}: {model.config.model}, {model.num_parameters:,} parameters")
    if args.onnx:
        directory = Path(args.out or args.experiment)
        print(f"{directory / ONNX}: {export_onnx(directory).label}")
    return 0
