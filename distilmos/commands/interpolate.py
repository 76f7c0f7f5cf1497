"""Mix the fine-tuned encoder of a finished run with the pretrained one that it started from.

Fine-tuning on a small corpus may cost accuracy on other data; an encoder between both often keeps it (WiSE-FT:
M. Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022; for speech: arXiv 2502.12672).

Writes the model directory EXP/interpolated/alpha_A for each A of --alpha:
  - encoder: (1 - A) * pretrained + A * fine-tuned weights; 0 is the pretrained encoder, 1 the fine-tuned one,
  - heads: as trained,
  - batch norms and the limit of novelty: measured on the training set, as at the end of training.
A run with `init_model` started from the encoder of that model, which then is the pretrained one.

--data also predicts and scores rated sets: EXP/interpolated/alpha_A/results/SET is like the results of stages 6 and 7,
and EXP/interpolated/INTERPOLATION.md and interpolation.json compare all A. A model of several corpora scores on their
mean scale. Choose A on a set whose scores you do not report.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from distilmos.commands.options import add_forward_options, fraction
from distilmos.memory import use_huge_pages
from distilmos.report.interpolation import PAGE, InterpolationOptions, interpolate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("experiment", type=Path, metavar="EXP", help="finished run, exp/<tag>")
    parser.add_argument(
        "--alpha",
        nargs="+",
        action="extend",
        type=fraction,
        required=True,
        metavar="A",
        help="weight of the fine-tuned encoder, 0 to 1",
    )
    parser.add_argument(
        "--data",
        nargs="+",
        action="extend",
        default=[],
        type=Path,
        metavar="DIR",
        help="rated data directories to predict and score, for example dump/raw/dev",
    )
    parser.add_argument(
        "--train", type=Path, metavar="DIR", help="training set of the run (default: the directory that its log names)"
    )
    add_forward_options(parser, InterpolationOptions.batch_seconds)


def run(args: argparse.Namespace) -> int:
    """Write the models and print their paths, then the page."""
    use_huge_pages()
    options = InterpolationOptions(
        experiment=args.experiment,
        alphas=tuple(args.alpha),
        train=args.train,
        data=tuple(args.data),
        device=args.device,
        batch_seconds=args.batch_seconds,
    )
    for path in interpolate(options):
        if path.name == PAGE:
            print("\n" + path.read_text(encoding="utf-8"), end="")
        else:
            print(path, flush=True)
    return 0
