"""Read BC23, the Blizzard Challenge 2023 (French), tracks 1a and 1b of the VoiceMOS Challenge 2023.

Layout: egs/bc23 of SHEET, local/data_download.sh and local/data_prep.py. The lines of answer.csv are those of
egs/vmc23/answers/track1_answer.txt.

    bc23/wavs/VoiceMOS2023Track1-A-AD_test_0026.wav
    sheet/egs/bc23/answers/answer.csv     name,mean
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

from source import Rated, Source

from distilmos.data.datadir import Utterance

NAME = re.compile(r"VoiceMOS2023Track1-([A-Z]+-(NEB|AD))_.+")  # system and voice
HUB, SPOKE = "NEB", "AD"


def read(source: Source, voice: str) -> Iterator[Rated]:
    """Yield the utterances of one voice."""
    for row in source.means(source.answers("answer.csv")):
        match, mos = source.parts(row, NAME), source.mos(row)
        if match is not None and mos is not None and match[2] == voice:
            audio = source.root / "wavs" / f"{row['name']}.wav"
            yield Utterance(row["name"], audio, match[1], mos), row.where


read_hub = partial(read, voice=HUB)
read_spoke = partial(read, voice=SPOKE)
