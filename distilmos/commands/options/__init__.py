"""Options that several commands share, and types of option values."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

MAX_SEED = 2**32 - 1  # the largest seed that numpy and scikit-learn accept


def positive_int(text: str) -> int:
    """Convert an option's value to a whole number of at least 1."""
    return _integer(text, 1, None)


def port(text: str) -> int:
    """Convert an option's value to a TCP port, 1..65535."""
    return _integer(text, 1, 65535)


def non_negative_int(text: str) -> int:
    """Convert an option's value to a whole number of at least 0."""
    return _integer(text, 0, None)


def seed(text: str) -> int:
    """Convert an option's value to a seed, 0..MAX_SEED."""
    return _integer(text, 0, MAX_SEED)


def positive_float(text: str) -> float:
    """Convert an option's value to a finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (number > 0 and math.isfinite(number)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number above 0")
    return number


def fraction(text: str) -> float:
    """Convert an option's value to a number from 0 to 1."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return abs(number)  # not -0


def pair(form: str) -> Callable[[str], tuple[str, str]]:
    """Return a type of options whose value has two parts with `=` between them.

    Args:
        form: the names of the parts, such as NAME=FILE, for the message.
    """

    def convert(text: str) -> tuple[str, str]:
        first, separator, second = text.partition("=")
        if not (first and separator and second):
            raise argparse.ArgumentTypeError(f"{text!r} is not {form}")
        return first, second

    return convert


def _integer(text: str, least: int, most: int | None) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least or (most is not None and number > most):
        limit = "" if most is None else f" and at most {most}"
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}{limit}")
    return number


def add_seed_option(parser: argparse.ArgumentParser, what: str) -> None:
    """Declare --seed; `what` names the seeded step in the help."""
    parser.add_argument("--seed", type=seed, default=1, metavar="N", help=f"seed of {what} (default: 1)")


def add_bootstrap_options(parser: argparse.ArgumentParser, samples: int) -> None:
    """Declare --samples (default: `samples`) and --seed."""
    parser.add_argument(
        "--samples",
        type=positive_int,
        default=samples,
        metavar="N",
        help=f"number of bootstrap samples (default: {samples})",
    )
    add_seed_option(parser, "the bootstrap")


def add_job_options(parser: argparse.ArgumentParser) -> None:
    """Declare --job and --jobs, which select the share of an array job."""
    parser.add_argument(
        "--job", type=positive_int, default=1, metavar="J", help="number of this job, 1..NJ (default: 1)"
    )
    parser.add_argument(
        "--jobs", type=positive_int, default=1, metavar="NJ", help="number of parallel jobs (default: 1)"
    )


def add_scale_option(parser: argparse.ArgumentParser) -> None:
    """Declare --scale."""
    parser.add_argument(
        "--scale",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="map scores linearly to this scale (default: that of the model, 1 to 5 unless its card names another)",
    )


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """Declare --device."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (default: auto)")


def add_forward_options(parser: argparse.ArgumentParser, batch_seconds: float) -> None:
    """Declare --device and --batch-seconds (default: `batch_seconds`)."""
    add_device_option(parser)
    parser.add_argument(
        "--batch-seconds",
        type=positive_float,
        default=batch_seconds,
        metavar="S",
        help=f"padded seconds of audio in a batch of torch; use more on a GPU (default: {batch_seconds:g})",
    )
