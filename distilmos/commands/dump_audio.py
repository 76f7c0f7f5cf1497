"""Stage 1: write the audio of a data directory as 16 kHz mono 16-bit Kaldi archives.

Only wav.scp must exist in DATA. With `segments`, each segment becomes a recording of its own.

Writes OUT/shards/wav.JOB.{ark,scp} and utt2dur.JOB; `distilmos merge-archives OUT` joins the shards.
"""

from __future__ import annotations

import argparse

from distilmos.commands.options import add_job_options
from distilmos.data.dump import dump_audio


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("data", metavar="DATA", help="data directory, for example data/train")
    parser.add_argument("out", metavar="OUT", help="output directory, for example dump/raw/train")
    parser.add_argument(
        "--execute-pipes",
        action="store_true",
        help="run the commands in wav.scp (`utt sph2pipe -f wav x.sph |`) in bash; without this they are an error",
    )
    add_job_options(parser)


def run(args: argparse.Namespace) -> int:
    """Write the audio of one job; print its size and warnings."""
    summary = dump_audio(args.data, args.out, args.job, args.jobs, execute_pipes=args.execute_pipes)
    print(f"{summary.utterances} utterances, {summary.seconds / 3600:.3f} hours")
    for warning in summary.warnings:
        print(f"warning: {warning}")
    return 0
