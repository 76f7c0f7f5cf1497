"""Prepare the test set of HablaMOS (Spanish) as data directory hablamos; its list has one score for each recording.

The list's system_id differs for every recording, so a system is a voice (speaker_id) here, as in SHEET.
"""

from __future__ import annotations

from distilmos.data.datadir import Utterance
from distilmos.data.lists import read_rows, score
from distilmos.data.prepare import Preparation, corpus_parser
from distilmos.errors import run_main

SET, FILES = "hablamos", 408


def main() -> None:
    """Read the command line and write the data directory."""
    args = corpus_parser(__doc__, "unpacked HablaMOS.tar.gz").parse_args()

    preparation = Preparation("HablaMOS test set", args.datadir, allow_partial=args.allow_partial)
    columns = ("wav_path", "speaker_id", "score")
    rows = read_rows(args.db_root / "test.csv", columns, preparation.faults, header=True)
    preparation.expect("test.csv: files", len(rows), FILES)
    preparation.begin(SET)
    for row in rows:
        audio = args.db_root / row["wav_path"]
        mos = score(row, "score", preparation.faults)
        utterance = Utterance(audio.stem, audio, row["speaker_id"], mos, speaker=row["speaker_id"])
        preparation.add(SET, utterance, row.where)
    preparation.unlisted((args.db_root / "test").glob("*.wav"))
    preparation.write()


if __name__ == "__main__":
    run_main(main)
