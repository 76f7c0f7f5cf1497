"""Stage 7: analyse each layer of the encoder before and after fine-tuning.

Writes analysis.json, ANALYSIS.md and figures to EXP/analysis (or --out); `distilmos report EXP` then shows them.
For each layer the analysis measures:
  - similarity: linear CKA with every layer of the frozen encoder,
  - forgetting: the share of the frozen encoder's token ids that the nearest centroid and a linear probe still find,
  - fit: how well the k-means centroids of the frozen encoder fit,
  - probes: how well cross-validated linear models predict the MOS and the labels of utterances. Labels come from the
    data directories (speaker: utt2spk, sentence: utt2sent, group: sys2group) and from --labels.

Forgetting and fit need k-means: --kmeans, or the one next to EXP that made the tokens of the model.
With --ssl NAME instead of EXP the analysis covers an encoder alone, and helps to choose an encoder and layers before
fine-tuning: it shows how well ridge regression on the frozen features of all utterances of --data predicts the MOS of
unseen systems, unseen groups (sys2group) and other sets (--test-data).

Use data that the model was not trained on: on its training data a model has learned the MOS, and a probe that finds it
says nothing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from distilmos.analysis.analyze import AnalysisOptions, analyze
from distilmos.commands.options import add_forward_options, add_seed_option, pair, positive_int
from distilmos.errors import InputError
from distilmos.report.analysis import write_analysis


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    defaults = AnalysisOptions
    parser.add_argument("experiment", nargs="?", type=Path, metavar="EXP", help="experiment directory, exp/<tag>")
    parser.add_argument(
        "--ssl",
        metavar="NAME",
        help="analyse this encoder, or that of a model directory, instead of EXP; needs --data and --out",
    )
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="data directory of stage 1; can be given several times (default: dev set of EXP)",
    )
    parser.add_argument(
        "--test-data",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="with --ssl: rated data directory to predict with a fit to all of --data; can be given several times",
    )
    parser.add_argument(
        "--labels",
        action="append",
        default=[],
        type=pair("NAME=FILE"),
        metavar="NAME=FILE",
        help="table with lines `utterance label` to probe; can be given several times",
    )
    parser.add_argument("--kmeans", type=Path, metavar="DIR", help="k-means directory of the frozen encoder (stage 3)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="output directory (default: EXP/analysis)")
    parser.add_argument(
        "--max-frames",
        type=positive_int,
        default=defaults.max_frames,
        metavar="N",
        help="frames to sample, many times more than the width of a layer. They are drawn from utterances with about "
        f"ten times as many frames; the probes use these utterances (default: {defaults.max_frames})",
    )
    add_seed_option(parser, "the samples and of the cross-validation folds")
    add_forward_options(parser, defaults.batch_seconds)


def run(args: argparse.Namespace) -> int:
    """Write the analysis and print the path of its page."""
    names = [name for name, _ in args.labels]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"--labels: the name {name} is given twice")
    options = AnalysisOptions(
        experiment=args.experiment,
        ssl=args.ssl,
        out=args.out,
        data=tuple(args.data),
        test_data=tuple(args.test_data),
        labels={name: Path(path) for name, path in args.labels},
        kmeans=args.kmeans,
        max_frames=args.max_frames,
        seed=args.seed,
        device=args.device,
        batch_seconds=args.batch_seconds,
    )
    print(write_analysis(analyze(options), args.experiment))
    return 0
