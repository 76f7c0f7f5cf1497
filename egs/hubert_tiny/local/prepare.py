"""Prepare the data directories train and valid of plain speech: all recordings below a directory, unrated."""

from __future__ import annotations

import hashlib
from pathlib import Path

from distilmos.data.datadir import Utterance
from distilmos.data.prepare import Preparation, corpus_parser
from distilmos.errors import run_main
from distilmos.inference.recordings import find_recordings

VALID = 50  # one recording of so many is held out


def main() -> None:
    """Read the command line and write the data directories."""
    args = corpus_parser(__doc__, "directory of recordings").parse_args()
    preparation = Preparation(f"plain speech of {args.db_root}", args.datadir, allow_partial=args.allow_partial)
    for name in ("train", "valid"):
        preparation.begin(name)
    for recording in find_recordings([str(args.db_root)]):
        below = recording.path.relative_to(args.db_root).with_suffix("")
        utterance = "-".join(below.parts)
        # By a hash of the name, so that a recording stays where it is when others are added.
        held_out = int(hashlib.sha256(utterance.encode()).hexdigest(), 16) % VALID == 0
        # What a system is to rated speech, the folder is here: it is shown in summaries alone.
        system = below.parts[0] if len(below.parts) > 1 else Path(args.db_root).resolve().name
        preparation.add(
            "valid" if held_out else "train",
            Utterance(id=utterance, audio=recording.path, system=system),
            str(recording.path),
        )
    preparation.write()


if __name__ == "__main__":
    run_main(main)
