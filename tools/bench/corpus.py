"""Write recordings of given lengths for the benchmarks, cut from real or synthetic speech."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from harness import run_process

from distilmos.data.audio import SAMPLE_RATE, read_audio
from distilmos.data.datadir import Utterance, write_data_dir
from distilmos.data.recordings import find_recordings

MINI = Path(__file__).parents[2] / "egs" / "mini" / "local"
VOICES = ("en-us", "en-us+f3", "en-us+m3", "en-gb-scotland+f2")


def make_corpus(directory: Path, lengths: list[float], speech: Path | None, seed: int = 0) -> str:
    """Write recordings `00000.wav`, ..., 16 kHz mono 16 bits.

    Args:
        directory: output directory; must not exist.
        lengths: length of each recording, in seconds.
        speech: directory of recordings to join, in random order, and cut; None means synthetic speech from eSpeak NG.
        seed: seed of the order.

    Returns:
        description of the audio for the report.
    """
    directory.mkdir(parents=True)
    source = _endless(speech, np.random.default_rng(seed))
    held = np.zeros(0, np.float32)
    for number, seconds in enumerate(lengths):
        size = round(seconds * SAMPLE_RATE)
        while held.size < size:
            held = np.concatenate([held, next(source)])
        soundfile.write(directory / f"{number:05d}.wav", held[:size], SAMPLE_RATE, subtype="PCM_16")
        held = held[size:]
    kind = "real speech" if speech else "synthetic speech from eSpeak NG"
    shortest, longest, total = min(lengths), max(lengths), sum(lengths)
    return f"{len(lengths)} recordings of {shortest:.1f} to {longest:.1f} s, {total:.0f} s in total, of {kind}"


def pack_audio(rated: list[Utterance], directory: Path) -> None:
    """Write the output of stage 1 for recordings to `directory`: their tables, and their audio in one archive."""
    source = directory.with_name(f"{directory.name}_source")
    write_data_dir(source, rated)
    directory.mkdir()
    for name in ("utt2sys", "utt2mos"):
        if (source / name).exists():
            shutil.copyfile(source / name, directory / name)
    run_process(["distilmos", "dump-audio", source, directory])
    run_process(["distilmos", "merge-archives", directory, "--jobs", "1"])


def mixed_lengths(total: float, seed: int = 0) -> list[float]:
    """Return lengths of 1 to 15 s that sum to `total` seconds, log-normal around 4 s as in MOS corpora."""
    random = np.random.default_rng(seed)
    lengths: list[float] = []
    while (rest := total - sum(lengths)) > 0:
        length = float(np.clip(random.lognormal(np.log(4.2), 0.55), 1.0, 15.0))
        lengths.append(max(1.0, min(length, rest)))
    return lengths


def _endless(speech: Path | None, random: np.random.Generator) -> Iterator[np.ndarray]:
    if speech is None:
        parts = _speak()
    else:
        paths = [recording.path for recording in find_recordings([str(speech)])]
        parts = [read_audio(paths[index]) for index in random.permutation(len(paths))[:2000]]
    while True:
        yield from parts


def _speak() -> list[np.ndarray]:
    sys.path.insert(0, str(MINI))
    from espeak import Voice, synthesise_all

    sentences = (MINI / "sentences.txt").read_text(encoding="utf-8").splitlines()
    orders = [(sentence, Voice(name)) for name in VOICES for sentence in sentences if sentence]
    spoken: list[np.ndarray] = synthesise_all(orders)
    return spoken
