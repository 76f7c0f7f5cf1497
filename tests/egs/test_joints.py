"""local/joints.py of egs/hubert_tiny: how well the frames of an encoder show lost packets."""

import subprocess
import sys

import numpy as np
import soundfile
from helpers.corpora import RATE, clean_speech
from helpers.recipes import EGS

from distilmos.data.datadir import Utterance, write_data_dir


def test_gaps_are_found_and_each_layer_has_a_row(tmp_path):
    utterances = []
    for number, samples in enumerate(clean_speech()[:9]):
        path = tmp_path / f"r{number}.wav"
        soundfile.write(path, np.tile(samples, 3), RATE)
        utterances.append(Utterance(path.stem, path, "clean"))
    write_data_dir(tmp_path / "data", utterances)
    script = EGS / "hubert_tiny" / "local" / "joints.py"
    done = subprocess.run(
        [sys.executable, script, "--data", tmp_path / "data"], text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines() if line]
    assert [row[0] for row in rows] == [
        *("frames of", "-" * len(rows[1][0]), "log mel spectrum", "front end"),
        *(f"layer {number}" for number in range(1, 7)),
    ]
    found = {row[0]: dict(zip(rows[0][1:], map(float, row[1:]), strict=True)) for row in rows[2:]}
    assert found["front end"]["silence"] > 0.8
    assert all(0 <= value <= 1 for row in found.values() for value in row.values())
