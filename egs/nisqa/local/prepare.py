"""Prepare the test sets of NISQA as data directories nisqa_for, nisqa_p501 and nisqa_livetalk; scores are means."""

from __future__ import annotations

from distilmos.data.datadir import Utterance
from distilmos.data.lists import read_rows, score
from distilmos.data.prepare import Preparation, corpus_parser
from distilmos.errors import run_main

FILES = {"FOR": 240, "P501": 240, "LIVETALK": 232}


def main() -> None:
    """Read the command line and write the data directories."""
    args = corpus_parser(__doc__, "unpacked NISQA_Corpus.zip").parse_args()

    preparation = Preparation("NISQA test sets", args.datadir, allow_partial=args.allow_partial)
    for part, published in FILES.items():
        directory = args.db_root / f"NISQA_TEST_{part}"
        path = directory / f"{directory.name}_file.csv"
        rows = read_rows(path, ("con", "filename_deg", "mos"), preparation.faults, header=True)
        preparation.expect(f"{directory.name}: files", len(rows), published)
        name = f"nisqa_{part.lower()}"
        preparation.begin(name)
        for row in rows:
            audio = directory / "deg" / row["filename_deg"]
            mos = score(row, "mos", preparation.faults)
            utterance = Utterance(f"{part.lower()}_{audio.stem}", audio, f"{part.lower()}_{row['con']}", mos)
            preparation.add(name, utterance, row.where)
        preparation.unlisted((directory / "deg").glob("*.wav"))
    preparation.write()


if __name__ == "__main__":
    run_main(main)
