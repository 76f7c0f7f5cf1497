"""Measure how well single frames of an encoder show lost packets, and so whether a model on it can hear them.

In each recording three packets of 20 ms a second are silenced, repeated or skipped. A logistic regression of single
frames detects the frames with a joint, in other recordings than those it was fitted on. The scores are areas under the
ROC curve: 0.5 is chance, 1 is perfect. Log mel spectra of the same frames are the reference.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy.signal import stft
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torchaudio.functional import melscale_fbanks

from distilmos.data.audio import SAMPLE_RATE, read_audio
from distilmos.data.datadir import read_data_dir
from distilmos.errors import InputError, run_main
from distilmos.markdown import markdown_table
from distilmos.simulation.degrade import PACKET, at_level
from distilmos.simulation.draw import generator_of
from distilmos.ssl.encoder import SSLEncoder
from distilmos.ssl.load import load_ssl

KINDS = ("silence", "repeat", "skip")
LOSSES = 3  # packets a second
LONGEST = 6 * SAMPLE_RATE  # samples; the rest of a longer recording is not used
SHORTEST = SAMPLE_RATE
LOUD = 1e-2  # a frame counts if its energy is above this share of the loudest frame's
SPECTRUM, FILTERS = 400, 40  # log mel spectra: window in samples, as long as a frame of HuBERT, and number of filters
LEARNED = 2 / 3  # share of the recordings to fit on; the others are scored


def main() -> None:
    """Read the command line and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ssl", default="hubert_tiny", metavar="NAME", help="encoder (default: %(default)s)")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="for example dump/raw/valid")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="seed of the packets (default: %(default)s)")
    args = parser.parse_args()
    encoder = load_ssl(args.ssl).eval()
    locations = read_data_dir(args.data, rated=False).wavs
    columns = [kind_scores(encoder, locations, kind, args.seed) for kind in KINDS]
    rows = [[name, *(f"{column[name]:.2f}" for column in columns)] for name in columns[0]]
    print(markdown_table(["frames of", *KINDS], rows))


def kind_scores(
    encoder: SSLEncoder, locations: dict[str, tuple[Path, int | None]], kind: str, seed: int
) -> dict[str, float]:
    """Return the area under the ROC curve for frames of the spectrum, the front end and each layer, by name."""
    frames: dict[str, list[np.ndarray]] = {}
    labels: list[np.ndarray] = []
    for utterance, location in locations.items():
        recording = read_audio(*location)[:LONGEST]
        if recording.size < SHORTEST or not recording.any():
            continue
        samples, joints = lose(at_level(recording), kind, generator_of(utterance, seed))
        found = all_frames(encoder, samples)
        count = min(len(rows) for rows in found.values())
        starts = np.arange(count) * encoder.config.hop
        energy = np.array([np.square(samples[start : start + SPECTRUM]).mean() for start in starts])
        loud = energy > LOUD * energy.max()
        nearest = np.rint((joints - SPECTRUM / 2) / encoder.config.hop).astype(int)
        labels.append(np.isin(np.arange(count), nearest)[loud])
        for name, rows in found.items():
            frames.setdefault(name, []).append(rows[:count][loud])
    learned = round(LEARNED * len(labels))
    if not 0 < learned < len(labels):
        raise InputError(f"{len(labels)} recordings of {SHORTEST / SAMPLE_RATE:g} s or more; at least two are needed")
    reader = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
    scores = {}
    for name, parts in frames.items():
        reader.fit(np.concatenate(parts[:learned]), np.concatenate(labels[:learned]))
        guesses = reader.decision_function(np.concatenate(parts[learned:]))
        scores[name] = float(roc_auc_score(np.concatenate(labels[learned:]), guesses))
    return scores


def lose(samples: np.ndarray, kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return speech (N,) with packets silenced, repeated or skipped, and the positions of the joints in samples."""
    starts = np.sort(rng.integers(PACKET, samples.size - PACKET, size=LOSSES * samples.size // SAMPLE_RATE))
    if kind == "skip":
        kept = np.ones(samples.size, bool)
        for start in starts:
            kept[start : start + PACKET] = False
        return samples[kept], np.cumsum(kept)[starts]
    heard = samples.copy()
    for start in starts:
        heard[start : start + PACKET] = 0 if kind == "silence" else samples[start - PACKET : start]
    return heard, np.concatenate([starts, starts + PACKET])


@torch.inference_mode()
def all_frames(encoder: SSLEncoder, samples: np.ndarray) -> dict[str, np.ndarray]:
    """Return name -> frames (T, width) of the spectrum, the front end and each layer; T may differ by one."""
    hop = encoder.config.hop
    _, _, spectrum = stft(samples, nperseg=SPECTRUM, noverlap=SPECTRUM - hop, boundary=None, padded=False)
    filters = melscale_fbanks(SPECTRUM // 2 + 1, 0.0, SAMPLE_RATE / 2, FILTERS, SAMPLE_RATE).numpy()
    audio, length = torch.from_numpy(samples)[None], torch.tensor([samples.size])
    layers, _ = encoder(audio, length)
    return {
        "log mel spectrum": np.log(np.square(np.abs(spectrum.T)) @ filters + 1e-10),
        "front end": encoder.conv(audio, length)[0][0].numpy(),
        **{f"layer {number}": layer[0].numpy() for number, layer in enumerate(layers, start=1)},
    }


if __name__ == "__main__":
    run_main(main)
