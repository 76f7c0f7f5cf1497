"""Read the test set of TMHINT-QI (noisy and enhanced Mandarin), and its second version, track 3 of VoiceMOS 2023.

Layout: egs/tmhint-qi and egs/tmhint-qi-s of SHEET, local/data_download.sh and local/data_prep.py; `idx` is the listener
according to README.md of github.com/yuwchen/InQSS.

    tmhint-qi/raw_data.csv     idx,method,uttr,snr,noise,quality_score,intelligibility_score,file_name; all sets
    tmhint-qi/test/FILE_NAME.wav
    tmhint-qi-s/wavs/VoiceMOS2023Track3-Noisy_snr5_white_TMHINT_g4_32_03.wav
    sheet/egs/tmhint-qi-s/answers/answer.csv     name,mean
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from source import Rated, Source, with_column

from distilmos.data.datadir import Utterance
from distilmos.data.lists import RatingColumns, read_rows
from distilmos.files import is_file

COLUMNS = RatingColumns(name="file_name", system="system", score="quality_score", listener="idx")
CONDITION = ("method", "snr", "noise")  # snr and noise may be empty for clean speech
NAME = re.compile(r"VoiceMOS2023Track3-(.+)_[^_]+_[^_]+_[^_]+")  # system, then talker and sentence
UNPROCESSED = "TMHINT"  # SHEET counts clean speech as clean_TMHINT only


def read(source: Source) -> Iterator[Rated]:
    """Yield the utterances of the test set of TMHINT-QI: those of the list whose audio is in test/."""
    wanted = (COLUMNS.name, COLUMNS.score, COLUMNS.listener, *CONDITION)
    path = source.root / "raw_data.csv"
    rows = read_rows(path, wanted, source.preparation.faults, header=True, may_be_empty=True)
    audio = {name: source.root / "test" / f"{name}.wav" for name in {row[COLUMNS.name] for row in rows}}
    present = {name for name, wav in audio.items() if is_file(wav)}
    # Lines without a quality score rate the intelligibility only.
    tested = [row for row in rows if row[COLUMNS.name] in present and row[COLUMNS.score]]
    named = [with_column(row, COLUMNS.system, condition_of(row["method"], row["snr"], row["noise"])) for row in tested]
    for item in source.ratings(named, COLUMNS):
        yield Utterance(item.name, audio[item.name], item.system, ratings=tuple(item.ratings)), item.row.where


def condition_of(method: str, snr: str, noise: str) -> str:
    """Return the system as SHEET names it."""
    return "_".join(f"{method}-SNR{snr}-{noise}".split())


def read_second(source: Source) -> Iterator[Rated]:
    """Yield the utterances of TMHINT-QI(S)."""
    for row in source.means(source.answers("answer.csv")):
        match, mos = source.parts(row, NAME), source.mos(row)
        if match is not None and mos is not None and match[1] != UNPROCESSED:
            audio = source.root / "wavs" / f"{row['name']}.wav"
            yield Utterance(row["name"], audio, match[1], mos), row.where
