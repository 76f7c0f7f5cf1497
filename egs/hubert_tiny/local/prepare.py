"""Prepare the data directories train and valid of plain speech: all recordings below a directory, unrated."""

from __future__ import annotations

from distilmos.data.datadir import Utterance
from distilmos.data.plain import find_plain_speech
from distilmos.data.prepare import Preparation, corpus_parser
from distilmos.errors import run_main

VALID = 50  # one recording in VALID is held out


def main() -> None:
    """Read the command line and write the data directories."""
    args = corpus_parser(__doc__, "directory of recordings").parse_args()
    preparation = Preparation(f"plain speech of {args.db_root}", args.datadir, allow_partial=args.allow_partial)
    for name in ("train", "valid"):
        preparation.begin(name)
    for recording in find_plain_speech(args.db_root):
        # Plain speech has no systems; the folder takes their place, which only summaries show.
        preparation.add(
            "valid" if recording.one_in(VALID) else "train",
            Utterance(id=recording.id, audio=recording.path, system=recording.folder),
            str(recording.path),
        )
    preparation.write()


if __name__ == "__main__":
    run_main(main)
