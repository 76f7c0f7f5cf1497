"""Average the weights of models that were trained from the same encoder (model soup).

The mean of such models, which differ in their training data, settings or seeds, is often better on other data than each
of them, and predicts as fast as one (M. Wortsman et al., "Model soups", ICML 2022). Choose the models on a set whose
scores you do not report.

The models must have the same network. Each weight of the new model is the mean of theirs; a model that is named twice
counts twice. Token predictors are those of the first model if the models have learned tokens of different k-means. The
model scores on the mean scale of the corpora that they have learned.

--train is a set like those that they were trained on: batch norms, and the limit from which a recording is unlike the
training data, are measured on it.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from distilmos.commands.options import add_device_option
from distilmos.data.audio import SAMPLE_RATE
from distilmos.errors import InputError
from distilmos.memory import use_huge_pages
from distilmos.model.directory import find_model
from distilmos.model.package import load_described, save_model_dir
from distilmos.scoring.results import first_target
from distilmos.ssl.forward import choose_device
from distilmos.training.average import average_models
from distilmos.training.config import TrainConfig
from distilmos.training.measure import measure_alone
from distilmos.training.ratedset import read_rated_set


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("models", nargs="+", metavar="MODEL", help="model directories, such as exp/<tag>/final")
    parser.add_argument("--train", type=Path, required=True, metavar="DIR", help="rated data directory, see above")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="model directory to write")
    parser.add_argument(
        "--half", action="store_true", help="store weights in float16, half the size; they are read as float32"
    )
    add_device_option(parser)


def run(args: argparse.Namespace) -> int:
    """Write the model and print its path."""
    use_huge_pages()
    device = choose_device(args.device)
    directories = [find_model(name) for name in args.models]
    if args.out.resolve() in [directory.resolve() for directory in directories]:
        raise InputError(f"--out {args.out}: is one of the models")
    models, infos = zip(*map(load_described, directories), strict=True)
    mean = average_models(list(zip(args.models, models, strict=True)))
    longest = mean.encoder_config.max_seconds
    train = read_rated_set(args.train, longest or math.inf, longest, first_target(args.train, mean.scales[0]))
    config = TrainConfig()
    batch_seconds = max(config.batch_seconds, max(train.num_samples) / SAMPLE_RATE)
    measure_alone(mean.to(device), train, config.model_copy(update={"batch_seconds": batch_seconds}), device)
    save_model_dir(args.out, mean, {"average": [info.name for info in infos]}, half=args.half)
    print(args.out)
    return 0
