"""Turn the export of a listening test into a data directory.

The format of an export is recognised by its content, or named by --format:
  webmushra         mushra.csv of webMUSHRA, 0 to 100; its hidden references and anchors check the listeners
  webmushra-likert  lss.csv or lms.csv of webMUSHRA
  beaqlejs          results of MUSHRA sessions of BeaqleJS (one JSON file each, .txt)
  p808              answers of sessions of the P.808 toolkit (ACR, P.835, P.804), with gold and trapping questions
  p808-votes        *_votes_per_worker_*.csv or *_all_votes_per_clip.csv of its result_parser.py
  p808-clips        *_votes_per_clip.csv of its result_parser.py: means, not single ratings
  mos-bench         lists of MOS-Bench, as SHEET prepares them
  urgent            JSON lines of the URGENT 2026 challenge: means
  plain             a CSV or TSV file with the columns listener, file, score and, optional, system

A stimulus is the recording below --audio with the same name; see --recordings for other cases. The command writes all
or nothing. OUT/report.txt lists what was left out. `distilmos screen-ratings` then rejects unreliable listeners.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from distilmos.commands.options import pair
from distilmos.data.exports.formats import FORMATS, plain_format
from distilmos.data.exports.importing import Choices, import_ratings
from distilmos.data.exports.places import Places, read_places
from distilmos.data.schema import Scale, scale_line
from distilmos.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("exports", nargs="+", type=Path, metavar="EXPORT", help="files of the same format")
    parser.add_argument("--out", type=Path, required=True, metavar="OUT", help="data directory to write")
    parser.add_argument("--format", choices=FORMATS, help="format of the exports (default: by their content)")
    parser.add_argument(
        "--audio",
        type=Path,
        metavar="DIR",
        help="directory of the recordings (default: stimuli are paths, relative to the directory of the export)",
    )
    parser.add_argument(
        "--recordings",
        type=Path,
        metavar="FILE",
        help="the recording of each stimulus: a CSV or TSV file with the columns stimulus and file, or the "
        "configuration of webMUSHRA (.yaml); a stimulus of webMUSHRA is TRIAL/NAME",
    )
    parser.add_argument(
        "--scale", type=_scale, metavar="'LOW HIGH NAME'", help="scale of the ratings, for example '1 5 MOS'"
    )
    parser.add_argument(
        "--system",
        type=_pattern,
        metavar="REGEX",
        help="the first group of this pattern in the path of a recording below --audio is its system (default: as the "
        "export says, or the first folder)",
    )
    parser.add_argument("--reference", metavar="SYSTEM", help="system that is the hidden reference (BS.1534)")
    parser.add_argument("--anchor", metavar="SYSTEM", help="system that is the mid-range anchor (BS.1534)")
    parser.add_argument(
        "--column",
        type=pair("NAME=COLUMN"),
        action="append",
        default=[],
        metavar="NAME=COLUMN",
        help="another name of a column of a plain list (listener, file, score, system), such as listener=user",
    )
    parser.add_argument("--notes", default="", metavar="TEXT", help="one line to show with all results")


def _scale(text: str) -> Scale:
    try:
        return scale_line(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a regular expression: {error}") from None


def run(args: argparse.Namespace) -> int:
    """Import, and print the report."""
    if args.column and args.format not in (None, "plain"):
        raise InputError(f"--column is for plain lists, not for {args.format}")
    form = plain_format(dict(args.column)) if args.column else FORMATS[args.format] if args.format else None
    places = Places(args.audio, read_places(args.recordings) if args.recordings else {})
    choices = Choices(args.scale, args.system, args.reference, args.anchor, " ".join(args.notes.split()))
    print(import_ratings(args.exports, args.out, places, choices, form))
    return 0
