"""Corpora in the layouts of the recipes: eSpeak NG speech, degraded, with simulated ratings.

Only the layout is that of the corpora. The numbers of systems, listeners and utterances are arguments, so a corpus can
be tiny or as large as the published one.
"""

from __future__ import annotations

import csv
import json
import random
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
import openpyxl
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
SPEECHOCEAN_LISTS = ("wav.scp", "utt2spk", "text", "spk2age")
# SNR and MNRU Q in dB of c0, c1, ...; the misspelling is the workbook's.
P835_LEVELS = (
    *(("refrence", None), (40, 8), (40, 16), (40, 24), (40, 32), (40, 40)),
    *((0, 40), (10, 40), (20, 40), (30, 40), (10, 16), (20, 24), (30, 32)),
)


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


def write_speechocean762(root: Path, design: Design = Design(sizes={"train": 12, "test": 6})) -> Path:
    """Write an unpacked speechocean762.tar.gz below `root`; return `root/speechocean762`.

    A system is a speaker; every second one is a child. The files named .WAV hold FLAC. There is a recording without
    ratings, and there is no scores.json.
    """
    root = root / "speechocean762"
    lists: dict[str, dict[str, str]] = {
        f"{part}/{name}": {} for part in ("train", "test") for name in SPEECHOCEAN_LISTS
    }
    scores = {}
    sizes = {part: design.sizes[part] for part in ("train", "test")}
    for item in make_recordings(
        replace(design, sizes=sizes, ratings=5, listeners=5), [str(n) for n in range(design.systems)]
    ):
        speaker = f"{(5000 if item.split == 'test' else 0) + int(item.system) + 1:04d}"
        utterance = f"{speaker}{item.number:05d}"
        wav = f"WAVE/SPEAKER{speaker}/{utterance}.WAV"
        (root / wav).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / wav, item.samples, RATE, format="FLAC")
        age = 9 if int(item.system) % 2 else 24
        for name, value in zip(SPEECHOCEAN_LISTS, (wav, speaker, "THE BUS IS LATE", age), strict=True):
            lists[f"{item.split}/{name}"][speaker if name == "spk2age" else utterance] = str(value)
        opinions = [round(score) for _, score in item.ratings]
        scores[utterance] = {
            "text": "the bus is late",
            "accuracy": [2 * opinion - 2 for opinion in opinions],
            "completeness": [1.0] * 5,
            "fluency": [2 * opinion for opinion in opinions],
            "prosodic": [2 * opinion - 1 for opinion in opinions],
            "total": [float(opinion) for opinion in opinions],
        }
    (root / wav).with_name("unrated.WAV").write_bytes((root / wav).read_bytes())
    for name, table in lists.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("".join(f"{key}\t{value}\n" for key, value in sorted(table.items())))
    (root / "resource").mkdir()
    (root / "resource" / "scores-detail.json").write_text(json.dumps(scores, indent=1))
    return root


def write_p835(root: Path, design: Design = Design(systems=13, sizes={"test": 26}, seconds=0.2)) -> Path:
    """Write a copy of microsoft/P.808 with the reference conditions of P.835 below `root`; return `root`.

    A system is a condition. The files named .wav hold FLAC.
    """
    directory = root / "p835_reference_conditions"
    book = openpyxl.Workbook()
    plan = book.active
    plan.title = "testplan"
    plan.append(["Num", "Condition Name", "SNR (dB)", "MNRU (QdB)", "degraded_fullband_48KHz", "degraded_WB_16KHz"])
    for number, levels in enumerate(P835_LEVELS[: design.systems]):
        plan.append([number + 1, f"c{number}", *levels, "fullband", "WB"])
    for seed, (title, folder, rate) in enumerate(
        (
            ("Fullband-results per file", "degraded_fullband_48KHz", 48000),
            ("16KHzWB-results per file", "degraded_WB_16KHz", 16000),
        )
    ):
        (directory / folder).mkdir(parents=True)
        sheet = book.create_sheet(title)
        kinds = ("BAK", "SIG", "OVRL")
        columns = [name for kind in kinds for name in (f"MOS_{kind}", f"std_{kind.lower()}", f"95%CI_{kind.lower()}")]
        sheet.append(["file_url", "short_file_name", "condition_num", "n votes", *columns])
        for item in make_recordings(one_set(design, seed), [f"c{n}" for n in range(design.systems)]):
            talker = ("f1", "m1")[item.number // design.systems % 2]
            wav = f"{item.system}_{talker}.wav"
            samples = resample_poly(item.samples, rate // RATE, 1)
            soundfile.write(directory / folder / wav, samples, rate, format="FLAC")
            opinions = [score for _, score in item.ratings]
            deviation = statistics.stdev(opinions)
            means = (max(1.0, item.mean - 0.25), min(5.0, item.mean + 0.25), item.mean)  # differ
            cells = [cell for mean in means for cell in (mean, deviation, 0.1)]
            sheet.append([f"https://example.org/{wav}", wav, int(item.system[1:]), len(opinions), *cells])
    book.save(directory / "CSP835_Ref_Conditions.xlsx")
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
