"""Read track 3 of the VoiceMOS Challenge 2024: noisy and enhanced speech, overall quality.

Layout: egs/vmc24_track3 of SHEET, local/data_download.sh, local/data_prep.py and answers/.

    vmc24_track3/DATA/wav/voicemos2024-track3-p232_sys1_005.wav
    sheet/egs/vmc24_track3/answers/track3_listener_wise_answer.csv     sample_id,sig,bak,ovr,listener
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from source import Rated, Source, with_column

from distilmos.data.datadir import Utterance
from distilmos.data.lists import RatingColumns, read_rows

NAME = re.compile(r"([^_]+)_([^_]+)_([^_]+)")  # talker, system, sentence
COLUMNS = RatingColumns(name="sample_id", system="system", score="ovr", listener="listener")


def read(source: Source) -> Iterator[Rated]:
    """Yield the utterances."""
    wanted = (COLUMNS.name, COLUMNS.score, COLUMNS.listener)
    path = source.answers("track3_listener_wise_answer.csv")
    talkers, rows = {}, []
    for row in read_rows(path, wanted, source.preparation.faults, header=True):
        if match := source.parts(row, NAME, COLUMNS.name):
            talkers[match[0]] = match[1]
            rows.append(with_column(row, COLUMNS.system, match[2]))
    for item in source.ratings(rows, COLUMNS):
        audio = source.root / "DATA" / "wav" / f"voicemos2024-track3-{item.name}.wav"
        utterance = Utterance(item.name, audio, item.system, ratings=tuple(item.ratings), speaker=talkers[item.name])
        yield utterance, item.row.where
