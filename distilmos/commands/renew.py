"""Make DIR ready for a stage that writes it: empty, unless the same stage has stopped half-way there.

What it did there is kept only if nothing that --input and WORD name has changed, and neither has this package. Jobs of
a scheduler that still write to DIR are cancelled before it is emptied. --finish says that the stage has got to its end.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from distilmos.data.archive import read_scp
from distilmos.runner.resume import finish, renew


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.usage = "distilmos renew [--finish] [--input PATH]... [--] DIR [WORD...]"
    parser.add_argument("directory", type=Path, metavar="DIR", help="for example dump/raw/train")
    parser.add_argument("words", nargs="*", metavar="WORD", help="options that the result depends on")
    parser.add_argument("--finish", action="store_true", help="the stage has got to its end")
    parser.add_argument(
        "--input",
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="what the stage reads: a file, or a directory for the files right in it and, if it is a data directory, "
        "its audio; without any, nothing is kept",
    )


def run(args: argparse.Namespace) -> int:
    """Renew or finish."""
    if args.finish:
        finish(args.directory)
    elif renew(args.directory, args.words, [path for given in args.input for path in _with_audio(given)]):
        print(f"{args.directory}: goes on with what is not done")
    return 0


def _with_audio(path: Path) -> list[Path]:
    wavs = path / "wav.scp"
    return [path, *sorted({file for file, _ in read_scp(wavs).values()} if wavs.exists() else ())]
