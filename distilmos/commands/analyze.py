"""Stage 7: what each layer of the encoder knows, before fine-tuning and after it.

Writes to EXP/analysis (or --out): analysis.json, ANALYSIS.md and figures, which `distilmos report EXP` then shows.
There are, for each layer,
  - its similarity to every layer of the frozen encoder (linear CKA),
  - how many token ids of the frozen encoder are still there: by the nearest centroid, and by a linear reader,
  - how well the centroids fit (with k-means: the one that the model's tokens are of, if it is beside EXP, or --kmeans),
  - how well MOS and labels of utterances are read from it by a linear model, cross-validated. Labels are those that the
    data directories hold (speaker: utt2spk, sentence: utt2sent, group: sys2group) and those of --labels.

With --ssl NAME in place of EXP it is an encoder alone. Name data that was not trained on: that the MOS which a model
has learned can be read from it says nothing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from distilmos.analysis.run import AnalysisOptions, analyze
from distilmos.commands.options import add_forward_options, add_seed_option, positive_int
from distilmos.errors import InputError
from distilmos.report.analysis import write_analysis


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    defaults = AnalysisOptions
    parser.add_argument("experiment", nargs="?", type=Path, metavar="EXP", help="experiment directory, exp/<tag>")
    parser.add_argument("--ssl", metavar="NAME", help="analyse this encoder alone; needs --data and --out, and no EXP")
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="data directory of stage 1; can be given several times (default: the dev set of EXP)",
    )
    parser.add_argument(
        "--labels",
        action="append",
        default=[],
        type=_named_table,
        metavar="NAME=FILE",
        help="table `utterance label` of what shall be read; can be given several times",
    )
    parser.add_argument("--kmeans", type=Path, metavar="DIR", help="k-means of the frozen encoder's layers (stage 3)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: EXP/analysis)")
    parser.add_argument(
        "--max-frames",
        type=positive_int,
        default=defaults.max_frames,
        metavar="N",
        help="frames to look at, many times more than the layers are wide, drawn from as many utterances as hold ten "
        f"times so many; labels and MOS are read of these utterances (default: {defaults.max_frames})",
    )
    add_seed_option(parser, "what is drawn, and of the division for cross-validation")
    add_forward_options(parser, defaults.batch_seconds)


def run(args: argparse.Namespace) -> int:
    """Analyse, write and print where."""
    names = [name for name, _ in args.labels]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"--labels: {name} is given twice")
    options = AnalysisOptions(
        experiment=args.experiment,
        ssl=args.ssl,
        out=args.out,
        data=tuple(args.data),
        labels=dict(args.labels),
        kmeans=args.kmeans,
        max_frames=args.max_frames,
        seed=args.seed,
        device=args.device,
        batch_seconds=args.batch_seconds,
    )
    print(write_analysis(analyze(options), args.experiment))
    return 0


def _named_table(text: str) -> tuple[str, Path]:
    name, separator, path = text.partition("=")
    if not (name and separator and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not a NAME=FILE")
    return name, Path(path)
