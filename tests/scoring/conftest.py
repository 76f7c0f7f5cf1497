"""Rated data directories in which all utterances share one recording."""

import numpy as np
import pytest
import soundfile

from distilmos.data.datadir import Utterance, write_data_dir
from distilmos.data.tables import write_table


@pytest.fixture
def make_set(tmp_path):
    """Return a function: rows of (utterance, system, rated or None, predicted) -> data directory, results directory."""
    wav = tmp_path / "tone.wav"
    soundfile.write(wav, np.full(1600, 0.1), 16000)

    def make(rows, name="test", notes="", groups=None):
        data, results = tmp_path / "raw" / name, tmp_path / "results" / name
        groups = groups or {}
        write_data_dir(data, [Utterance(u, wav, s, mos=mos, group=groups.get(s)) for u, s, mos, _ in rows], notes)
        write_table(results / "utt2mos", {u: float(predicted) for u, _, _, predicted in rows})
        return data, results

    return make


@pytest.fixture
def rated_rows():
    """60 utterances of 12 systems with plausible ratings and predictions."""
    generator = np.random.default_rng(5)
    rows = []
    for system in range(12):
        level = generator.uniform(1.5, 4.5)
        for utterance in range(5):
            mos = round(float(np.clip(level + 0.4 * generator.normal(), 1, 5)), 3)
            rows.append((f"s{system:02d}-u{utterance}", f"s{system:02d}", mos, mos + 0.4 * float(generator.normal())))
    return rows
