"""Read SVCC23, the Singing Voice Conversion Challenge 2023, track 2 of the VoiceMOS Challenge 2023.

Layout: egs/svcc23 of SHEET, local/data_download.sh, local/data_prep.py and answers/.

    svcc23/wavs/VoiceMOS2023Track2-B01-SF1-CDF1-30001.wav
    sheet/egs/svcc23/answers/listener_wise_answer.csv     sample_id,listener_name,score
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from source import Rated, Source, with_column

from distilmos.data.datadir import Utterance
from distilmos.data.lists import RatingColumns, read_rows

NAME = re.compile(r"VoiceMOS2023Track2-([^-]+)-.+")  # system
COLUMNS = RatingColumns(name="sample_id", system="system", score="score", listener="listener_name")


def read(source: Source) -> Iterator[Rated]:
    """Yield the utterances."""
    wanted = (COLUMNS.name, COLUMNS.score, COLUMNS.listener)
    path = source.answers("listener_wise_answer.csv")
    rows = []
    for row in read_rows(path, wanted, source.preparation.faults, header=True):
        if match := source.parts(row, NAME, COLUMNS.name):
            rows.append(with_column(row, COLUMNS.system, match[1]))
    for item in source.ratings(rows, COLUMNS):
        audio = source.root / "wavs" / f"{item.name}.wav"
        yield Utterance(item.name, audio, item.system, ratings=tuple(item.ratings)), item.row.where
