"""Empty DIR, the output of a stage, unless an interrupted run of the same stage left it.

A stage is the same if the files of --input, each WORD and this package are unchanged. Scheduler jobs that still write
to DIR are cancelled first. If DIR is a symbolic link, the directory that it points to is emptied and the link stays.
Call this with --finish at the end of the stage.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from distilmos.data.archive import pipe_command, split_location
from distilmos.data.tables import scan_table
from distilmos.runner.resume import finish, renew


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.usage = "distilmos renew [--finish] [--input PATH]... [--] DIR [WORD...]"
    parser.add_argument("directory", type=Path, metavar="DIR", help="for example dump/raw/train")
    parser.add_argument("words", nargs="*", metavar="WORD", help="options that the result depends on")
    parser.add_argument("--finish", action="store_true", help="record that the stage is complete")
    parser.add_argument(
        "--input",
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="input of the stage: a file, or a directory, for the files directly in it and the audio of a data "
        "directory; without --input nothing is kept",
    )


def run(args: argparse.Namespace) -> int:
    """Empty or keep the directory, or record that it is complete."""
    if args.finish:
        finish(args.directory)
    elif renew(args.directory, args.words, [path for given in args.input for path in _with_audio(given)]):
        print(f"{args.directory}: continues an interrupted run")
    return 0


def _with_audio(path: Path) -> list[Path]:
    wavs = path / "wav.scp"
    files = scan_table(wavs, _file).checked().values() if wavs.exists() else ()
    return [path, *sorted({file for file in files if file is not None})]


def _file(location: str) -> Path | None:
    """Return the file of an scp value. The files that a pipe reads are unknown; its text is in the wav.scp itself."""
    return None if pipe_command(location) else split_location(location)[0]
