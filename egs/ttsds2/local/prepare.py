"""Prepare the listening test of TTSDS2 as data directory ttsds2; a system counts once for each of its data sets."""

from __future__ import annotations

from pathlib import Path

from distilmos.data.datadir import Utterance
from distilmos.data.lists import RatingColumns, Row, filled, gather_ratings, read_rows
from distilmos.data.prepare import Preparation, corpus_parser
from distilmos.errors import run_main

SET, RATINGS = "ttsds2", 4731
COLUMNS = RatingColumns(name="audio", system="dataset_system", score="value", listener="annotator")


def main() -> None:
    """Read the command line and write the data directory."""
    args = corpus_parser(__doc__, "unpacked ttsds2.zip").parse_args()

    preparation = Preparation("TTSDS2", args.datadir, allow_partial=args.allow_partial)
    columns = ("audio", "dataset", "system", "rating_type", "value", "annotator")
    path, faults = args.db_root / "subjective_results.csv", preparation.faults
    rows = read_rows(path, columns, faults, header=True, may_be_empty=True)
    wanted = [row for row in rows if row["rating_type"].lower() == "mos"]
    wanted = [with_system(row) for row in filled(wanted, columns, faults)]
    preparation.expect("subjective_results.csv: MOS ratings", len(wanted), RATINGS)
    preparation.begin(SET)
    for item in gather_ratings(wanted, COLUMNS, faults, preparation.gaps).values():
        # Files of different systems may have the same name.
        name = one_word("-".join(Path(item.name).with_suffix("").parts))
        group = item.row["dataset"]
        utterance = Utterance(name, args.db_root / item.name, item.system, None, tuple(item.ratings), group=group)
        preparation.add(SET, utterance, item.row.where)
    for row in rows:
        preparation.leave_out(args.db_root / row["audio"])  # so that recordings without a MOS rating count as listed
    preparation.unlisted(args.db_root.rglob("*.wav"))
    preparation.write()


def with_system(row: Row) -> Row:
    """Return the row with the system as the corpus counts it: DATASET-SYSTEM."""
    dataset = one_word(row["dataset"])
    system = one_word(f"{dataset}-{row['system']}")
    return Row(row.path, row.line, row.values | {"dataset": dataset, COLUMNS.system: system})


def one_word(name: str) -> str:
    """Return a name with its blanks replaced, because Kaldi's tables cannot contain them."""
    return "_".join(name.split())


if __name__ == "__main__":
    run_main(main)
