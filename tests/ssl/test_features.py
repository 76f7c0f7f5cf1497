"""Features in place of an encoder; MFCCs are compared with fairseq's script for the first iteration of HuBERT."""

from __future__ import annotations

import runpy
from pathlib import Path

import fairseq
import numpy as np
import torch

from distilmos.cli import main
from distilmos.ssl.features import BestRQFeatures, MFCCFeatures

SCRIPT = Path(fairseq.__file__).parent / "examples" / "hubert" / "simple_kmeans" / "dump_mfcc_feature.py"
LENGTHS = (16000, 9001, 400, 399)


def test_mfccs_are_every_second_frame_of_fairseqs_in_any_batch(monkeypatch):
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


def test_best_rq_has_unit_vectors_that_depend_on_neither_the_level_nor_the_batch():
    generator = torch.Generator().manual_seed(0)
    batch = torch.zeros(len(LENGTHS), max(LENGTHS))
    for row, length in zip(batch, LENGTHS, strict=True):
        row[:length] = 0.1 * torch.randn(length, generator=generator)
    features = BestRQFeatures()
    (layer,), counts = features(batch, torch.tensor(LENGTHS))
    assert counts.tolist() == [features.config.num_frames(length) for length in LENGTHS] == [49, 27, 1, 0]
    torch.testing.assert_close(layer[0].norm(dim=1), torch.ones(49))
    (alone,), _ = features(0.3 * batch[1:2, : LENGTHS[1]], torch.tensor(LENGTHS[1:2]))
    torch.testing.assert_close(alone[0], layer[1, :27], rtol=1e-3, atol=1e-3)
    (silent,), _ = features(torch.zeros(1, 16000), torch.tensor([16000]))
    assert silent.isfinite().all()
    assert features.fingerprint() == BestRQFeatures().fingerprint() != MFCCFeatures().fingerprint()


def test_features_need_no_download():
    assert main(["fetch-ssl", "mfcc"]) == main(["fetch-ssl", "best_rq"]) == 0
