"""Write degraded copies of one job's share of a set; `distilmos merge-archives` joins the shares.

A copy has one of KINDS, sometimes two, one after the other. A copy is as loud as its recording.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from distilmos.data.archive import open_archive, shard_of
from distilmos.data.audio import SAMPLE_RATE, read_audio
from distilmos.data.datadir import DataDir, read_data_dir
from distilmos.data.dump import SHARDS
from distilmos.data.tables import write_table
from distilmos.errors import run_main
from distilmos.simulation.degrade import DEGRADATIONS, TALKER, add_talker, at_level, level_of
from distilmos.simulation.draw import Ring, generator_of

KINDS = (TALKER, *(kind for kind in DEGRADATIONS if kind != "clean"))
SECOND = 0.3  # share of copies with two degradations


def main() -> None:
    """Read the command line and write the share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="data directory of stage 1")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="directory of the shares")
    parser.add_argument("--seed", type=int, required=True, metavar="N", help="seed of the degradations")
    parser.add_argument("--job", type=int, required=True, metavar="J", help="number of this job, from 1")
    parser.add_argument("--jobs", type=int, required=True, metavar="N", help="number of jobs")
    args = parser.parse_args()

    data = read_data_dir(args.data, rated=False)
    ring = Ring(data.utterances)
    shards = args.out / SHARDS
    share = shard_of(data.utterances, args.job, args.jobs)
    with open_archive(shards / f"wav.{args.job}") as archive:
        for utterance in share:
            samples = degraded_copy(data, ring, utterance, args.seed)
            archive.write(utterance, (SAMPLE_RATE, np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)))
    write_table(shards / f"utt2dur.{args.job}", {utterance: data.durations[utterance] for utterance in share})
    write_table(shards / f"utt2sys.{args.job}", {utterance: data.systems[utterance] for utterance in share})


def degraded_copy(data: DataDir, ring: Ring, utterance: str, seed: int) -> np.ndarray:
    """Return a degraded copy of a recording: 16 kHz, float32, shape (N,), as long and as loud as the recording."""
    recording = read_audio(*data.wavs[utterance])
    if not recording.any():
        return recording
    rng = generator_of(utterance, seed)
    samples = recording
    for kind in rng.choice(KINDS, size=2 if rng.random() < SECOND else 1, replace=False):
        if not samples.any():  # the first degradation removed all sound
            break
        samples, strength = at_level(samples), rng.uniform()
        if kind == TALKER:
            others = (read_audio(*data.wavs[other]) for other in ring.after(utterance, seed))
            other = next((other for other in others if other.any()), recording)
            samples = add_talker(samples, other, strength, rng)
        else:
            samples = DEGRADATIONS[kind](samples, strength, rng)
    return at_level(samples, level_of(recording))


if __name__ == "__main__":
    run_main(main)
