"""Read the test set of BRSpeechMOS (Brazilian Portuguese).

Layout: egs/brspeechmos of SHEET, local/data_download.sh and local/data_prep.py.

    brspeechmos/test.csv     filepath,mos,condition,db; filepath is ./DIRECTORY/NAME.wav
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from source import Rated, Source

from distilmos.data.datadir import Utterance
from distilmos.data.lists import read_rows

NATURAL = "ground_truth"  # the db of recordings whose condition is the system, as in SHEET


def read(source: Source) -> Iterator[Rated]:
    """Yield the utterances."""
    columns = ("filepath", "mos", "condition", "db")
    for row in read_rows(source.root / "test.csv", columns, source.preparation.faults, header=True):
        mos = source.mos(row, "mos")
        if mos is not None:
            name = Path(row["filepath"])
            system = row["condition"] if row["db"] == NATURAL else row["db"]
            yield Utterance("-".join(name.with_suffix("").parts), source.root / name, system, mos), row.where
