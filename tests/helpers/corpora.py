"""Corpora in the layouts of BVCC, SOMOS, NISQA, HablaMOS and TTSDS2: eSpeak NG speech, degraded; simulated ratings.

Only the layout is that of the corpora. The numbers of systems, listeners and utterances are arguments, so a corpus can
be tiny or as large as the published one.
"""

from __future__ import annotations

import csv
import random
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly

from distilmos.simulation.degrade import DEGRADATIONS, at_level
from distilmos.simulation.listeners import make_listeners, simulate_ratings, true_quality

MINI = Path(__file__).resolve().parents[2] / "egs" / "mini" / "local"
sys.path.append(str(MINI))

from espeak import Voice, synthesise_all  # noqa: E402

RATE = 16000
KINDS = tuple(kind for kind in DEGRADATIONS if kind != "clean")
VOICES = (Voice("en-us", 175), Voice("en-us+f3", 165), Voice("en-gb-scotland", 175), Voice("en+f2", 165, 55))
SENTENCES = ("The bus is late.", "Call me at noon.", "It rained all day.", "Please shut the door.", "We met in May.")
SPLITS = ("train", "dev", "test")


@cache
def clean_speech() -> list[np.ndarray]:
    """Every sentence in every voice, at 16 kHz."""
    return synthesise_all([(sentence, voice) for sentence in SENTENCES for voice in VOICES])


@dataclass(frozen=True)
class Rated:
    """One recording of a generated corpus."""

    system: str
    number: int  # of the utterance
    split: str
    samples: np.ndarray
    ratings: tuple[tuple[str, float], ...]

    @property
    def mean(self) -> float:
        return sum(score for _, score in self.ratings) / len(self.ratings)


@dataclass(frozen=True)
class Design:
    """Size of a corpus.

    Attributes:
        systems: number of systems.
        sizes: utterances of each split.
        reach: split -> number of its systems, counted from the first; all systems if missing.
        ratings: ratings of each utterance.
        listeners: number of listeners.
        seconds: longest duration; longer speech is cut.
        seed: seed of all random numbers.
    """

    systems: int = 6
    sizes: dict[str, int] = field(default_factory=lambda: {"train": 12, "dev": 6, "test": 6})
    reach: dict[str, int] = field(default_factory=dict)
    ratings: int = 8
    listeners: int = 10
    seconds: float = 1.0
    seed: int = 1


FULL_BVCC = Design(
    systems=187,
    sizes={"train": 4974, "dev": 1066, "test": 1066},
    reach={"train": 175, "dev": 181},
    listeners=304,
)


def make_recordings(design: Design, names: Sequence[str]) -> Iterable[Rated]:
    """Yield degraded and rated recordings; the systems alternate, so that each split has as many of them as possible.

    Args:
        design: the sizes.
        names: names of the systems; the first is clean speech.
    """
    draw = random.Random(design.seed)
    listeners = make_listeners(design.listeners, np.random.default_rng(design.seed))
    speech = clean_speech()
    number = 0
    for split in SPLITS:
        for index in range(design.sizes.get(split, 0)):
            system = index % design.reach.get(split, len(names))
            kind, strength = ("clean", 0.0)
            if system:
                kind, strength = KINDS[system % len(KINDS)], 0.1 + 0.9 * (system * 7 % len(names)) / len(names)
            rng = np.random.default_rng([design.seed, number])
            source = speech[draw.randrange(len(speech))][: round(design.seconds * RATE)]
            samples = at_level(DEGRADATIONS[kind](source, strength, rng))
            scores = simulate_ratings(true_quality(kind, strength, 0.0), listeners, design.ratings, rng)
            yield Rated(names[system], number, split, samples, scores)
            number += 1


def write_bvcc(root: Path, design: Design = Design()) -> Path:
    """Write an unpacked main.tar.gz below `root`; return `root/main`."""
    draw = random.Random(design.seed)
    names = [f"sys{value:05x}" for value in sorted(draw.sample(range(16**5), design.systems))]
    data = root / "main" / "DATA"
    (data / "sets").mkdir(parents=True)
    (data / "wav").mkdir()
    lists: dict[str, list[str]] = {split: [] for split in SPLITS}
    means: dict[str, list[str]] = {split: [] for split in SPLITS}
    by_system: dict[str, list[float]] = {}
    for item in make_recordings(design, names):
        wav = f"{item.system}-utt{draw.randrange(16**7):07x}.wav"
        soundfile.write(data / "wav" / wav, item.samples, RATE, subtype="PCM_16")
        for order, (listener, score) in enumerate(item.ratings):
            info = listener_info(listener)
            lists[item.split].append(f"{item.system},{wav},{score:.0f},X{item.number}_{order},{info}\n")
        means[item.split].append(f"{wav},{item.mean}\n")
        if item.split != "test":  # the file has means over train and dev
            by_system.setdefault(item.system, []).append(item.mean)
    for split, (ratings, mean) in zip(
        SPLITS, (("TRAINSET", "train"), ("DEVSET", "val"), ("TESTSET", "test")), strict=True
    ):
        (data / "sets" / ratings).write_text("".join(lists[split]))
        (data / "sets" / f"{mean}_mos_list.txt").write_text("".join(means[split]))
    systems = [f"{system},{sum(values) / len(values)}\n" for system, values in sorted(by_system.items())]
    (data / "mydata_system.csv").write_text("system_ID,mean\n" + "".join(systems))
    return root / "main"


def listener_info(listener: str) -> str:
    """Return the last column of a BVCC list for a simulated listener."""
    number = int(listener.removeprefix("simulated"))
    age = ("18-29", "30-39", "40-49", "50-59")[number % 4]
    gender, impaired = ("Male", "Female", "Others")[number % 3], ("No", "Yes")[number % 7 == 0]
    return f"{{}}_{age}_{listener}_{gender}_Valid_1_{impaired}"


def write_somos(root: Path, design: Design = Design(ratings=5)) -> Path:
    """Write an unpacked somos.zip below `root`; return `root`. The variant `clean` lacks every fifth rating."""
    audios = root / "audios"
    audios.mkdir(parents=True)
    rows: dict[str, list[tuple[str, str, str, str]]] = {split: [] for split in SPLITS}
    for item in make_recordings(design, [f"{number:03d}" for number in range(design.systems)]):
        wav = f"novel_{item.number:04d}_{item.system}.wav"
        soundfile.write(audios / wav, resample_poly(item.samples, 3, 2), 24000, subtype="PCM_16")
        rows[item.split] += [(item.system, wav, f"{score:.0f}", listener) for listener, score in item.ratings]
    for variant in ("full", "clean"):
        directory = root / "training_files" / "split1" / variant
        directory.mkdir(parents=True)
        for split, name, mean in zip(SPLITS, ("TRAIN", "VALID", "TEST"), ("train", "valid", "test"), strict=True):
            kept = [row for n, row in enumerate(rows[split]) if variant == "full" or n % 5]
            write_csv(directory / f"{name}SET", ("systemId", "utteranceId", "choice", "listenerId"), kept)
            for key, column, file in ((1, "utteranceId", "mos_list.txt"), (0, "systemId", "system.csv")):
                scores: dict[str, list[int]] = {}
                for row in kept:
                    scores.setdefault(row[key], []).append(int(row[2]))
                listed = [(thing, repr(sum(values) / len(values))) for thing, values in scores.items()]
                write_csv(directory / f"{mean}_{file}", (column, "mean"), listed)
    return root


def write_nisqa(root: Path, design: Design = Design()) -> Path:
    """Write the three test sets of an unpacked NISQA_Corpus.zip below `root`; return `root`."""
    for number, part in enumerate(("FOR", "P501", "LIVETALK")):
        directory = root / f"NISQA_TEST_{part}"
        (directory / "deg").mkdir(parents=True)
        rows = []
        for item in make_recordings(one_set(design, number), [f"c{n:02d}" for n in range(design.systems)]):
            wav = f"{item.system}_{item.number}.wav"
            soundfile.write(directory / "deg" / wav, resample_poly(item.samples, 3, 1), 48000, subtype="PCM_16")
            rows.append((f"NISQA_TEST_{part}", item.system, wav, repr(item.mean), str(design.ratings)))
        write_csv(directory / f"{directory.name}_file.csv", ("db", "con", "filename_deg", "mos", "votes"), rows)
    return root


def write_hablamos(root: Path, design: Design = Design()) -> Path:
    """Write an unpacked HablaMOS.tar.gz below `root`; return `root/HablaMOS`. Each system is a voice."""
    directory = root / "HablaMOS"
    names = dict(zip(SPLITS, ("train", "val", "test"), strict=True))
    rows: dict[str, list[Sequence[str]]] = {split: [] for split in SPLITS}
    for item in make_recordings(design, [f"A{n}" for n in range(design.systems)]):
        sample = f"clip_{item.number:03d}"
        wav = f"{names[item.split]}/{sample}.wav"
        (directory / wav).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(directory / wav, item.samples, RATE, subtype="PCM_16")
        milliseconds = f"{item.samples.size * 1000 / RATE}"
        rows[item.split].append((wav, sample, sample, item.system, milliseconds, repr(item.mean)))
    header = ("wav_path", "system_id", "sample_id", "speaker_id", "duration_ms", "score")
    for split, name in names.items():
        write_csv(directory / f"{name}.csv", header, rows[split])
    return directory


def write_ttsds2(root: Path, design: Design = Design()) -> Path:
    """Write an unpacked ttsds2.zip below `root`; return `root`."""
    rows = []
    for item in make_recordings(one_set(design, 0), [f"TTS {n}" for n in range(design.systems)]):
        dataset = ("noisy", "kids")[item.number % 2]
        wav = f"wavs/{dataset}/{item.system}/{item.number}.wav"
        (root / wav).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / wav, resample_poly(item.samples, 441, 320), 22050, subtype="PCM_16")
        for listener, score in item.ratings:
            rows.append((wav, dataset, item.system, "mos", f"{score:.0f}", listener, "en"))
            rows.append((wav, dataset, "", "smos", "3", listener, "en"))
            rows.append((wav, dataset, item.system, "cmos", "", listener, "en"))
    header = ("audio", "dataset", "system", "rating_type", "value", "annotator", "language")
    write_csv(root / "subjective_results.csv", header, rows)
    return root


def one_set(design: Design, seed: int) -> Design:
    """Return a design with only the test set."""
    return replace(design, sizes={"test": design.sizes["test"]}, seed=seed)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a CSV file with a header."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
