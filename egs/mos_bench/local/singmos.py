"""Read the test set of SingMOS, track 2 of the VoiceMOS Challenge 2024.

Layout: egs/singmos of SHEET, local/data_download.sh and local/data_prep.py. DATA/wav has the other sets, too.

    singmos/DATA/sets/eval_mos_list.txt     name,mean
    singmos/DATA/wav/voicemos2024-track2-sys0001-utt0001.wav
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from source import Rated, Source

from distilmos.data.datadir import Utterance

NAME = re.compile(r"voicemos2024-track2-([^-]+)-.+")  # system


def read(source: Source) -> Iterator[Rated]:
    """Yield the utterances."""
    data = source.root / "DATA"
    for row in source.means(data / "sets" / "eval_mos_list.txt"):
        match, mos = source.parts(row, NAME), source.mos(row)
        if match is not None and mos is not None:
            audio = data / "wav" / f"{row['name']}.wav"
            yield Utterance(row["name"], audio, match[1], mos), row.where
