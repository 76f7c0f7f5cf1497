"""MFCCs in place of an encoder, compared with fairseq's script for the first iteration of HuBERT."""

from __future__ import annotations

import runpy
from pathlib import Path

import fairseq
import numpy as np
import torch

from distilmos.ssl.mfcc import MFCCFeatures

SCRIPT = Path(fairseq.__file__).parent / "examples" / "hubert" / "simple_kmeans" / "dump_mfcc_feature.py"
LENGTHS = (16000, 9001, 400, 399)


def test_features_are_every_second_frame_of_fairseqs_in_any_batch(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    reader = runpy.run_path(str(SCRIPT))["MfccFeatureReader"](16000)
    generator = np.random.default_rng(0)
    waves = [(0.1 * generator.standard_normal(length)).astype(np.float32) for length in LENGTHS]
    batch = torch.zeros(len(waves), max(LENGTHS))
    for row, wave in zip(batch, waves, strict=True):
        row[: len(wave)] = torch.from_numpy(wave)
    features = MFCCFeatures()
    (layer,), counts = features(batch, torch.tensor(LENGTHS))
    assert counts.tolist() == [features.config.num_frames(length) for length in LENGTHS] == [49, 27, 1, 0]
    for number in range(3):
        # The script reads files with a part of torchaudio that no longer exists.
        monkeypatch.setattr(reader, "read_audio", lambda wave, ref_len: wave)
        expected = reader.get_feats(waves[number])[::2]
        np.testing.assert_allclose(layer[number, : counts[number]], expected, rtol=1e-4, atol=1e-3)
