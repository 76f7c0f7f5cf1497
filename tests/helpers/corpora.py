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
        shortest: if not 0, every duration is drawn between this and `seconds`; shorter speech is repeated.
        seed: seed of all random numbers.
    """

    systems: int = 6
    sizes: dict[str, int] = field(default_factory=lambda: {"train": 12, "dev": 6, "test": 6})
    reach: dict[str, int] = field(default_factory=dict)
    ratings: int = 8
    listeners: int = 10
    seconds: float = 1.0
    shortest: float = 0.0
    seed: int = 1

    def scaled(self, share: float) -> Design:
        """Return a design with a share of the utterances, at least four in each split."""
        return replace(self, sizes={name: max(4, round(share * size)) for name, size in self.sizes.items()})


FULL_BVCC = Design(
    systems=187,
    sizes={"train": 4974, "dev": 1066, "test": 1066},
    reach={"train": 175, "dev": 181},
    listeners=304,
)
FULL_SOMOS = Design(systems=201, sizes={"train": 14100, "dev": 3000, "test": 3000}, ratings=20, listeners=987)


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
            if design.shortest:
                source = np.resize(source, round(draw.uniform(design.shortest, design.seconds) * RATE))
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


def write_bvcc_ood(root: Path, design: Design = Design(ratings=5)) -> Path:
    """Write an unpacked ood.tar.gz below `root`, with two unlabelled recordings; return `root/ood`."""
    data = root / "ood" / "DATA"
    (data / "sets").mkdir(parents=True)
    (data / "wav").mkdir()
    lists: dict[str, list[str]] = {split: [] for split in SPLITS}
    for item in make_recordings(design, [f"sys{number:05x}" for number in range(design.systems)]):
        name = f"{item.system}-utt{item.number:07x}"
        soundfile.write(data / "wav" / f"{name}.wav", item.samples, RATE, subtype="PCM_16")
        for order, (listener, score) in enumerate(item.ratings):
            kind = ("EE", "EP", "ER")[order % 3]
            lists[item.split].append(f"{item.system},{name},{score:.0f},na,{{}}_na_{listener}_na_na_na_{kind}\n")
    for split, name in zip(SPLITS, ("TRAINSET", "DEVSET", "TESTSET"), strict=True):
        (data / "sets" / name).write_text("".join(lists[split]))
    unlabelled = [f"sys00000-utt{number:07x}.wav" for number in (0xAAAA, 0xBBBB)]
    for name in unlabelled:
        soundfile.write(data / "wav" / name, item.samples, RATE, subtype="PCM_16")
    (data / "sets" / "unlabeled_mos_list.txt").write_text("".join(f"{name}\n" for name in unlabelled))
    return root / "ood"


def write_mos_bench(root: Path, design: Design = Design(systems=4, sizes={"test": 6}, ratings=4, seconds=0.3)) -> Path:
    """Write all corpora that egs/mos_bench reads, and SHEET's lists, below `root`; return `root`.

    The file names are those in SHEET's comments, with other numbers.
    """
    write_bc23(root, one_set(design, 1))
    write_svcc23(root, one_set(design, 2))
    write_singmos(root, one_set(design, 3))
    write_brspeechmos(root, one_set(design, 4))
    write_tmhint_qi(root, one_set(design, 5))
    write_tmhint_qi_s(root, one_set(design, 6))
    write_vmc24_track3(root, one_set(design, 7))
    return root


def write_bc23(root: Path, design: Design) -> None:
    """Write both tracks of BC23."""
    answers = []
    for item in make_recordings(design, [chr(ord("A") + n) for n in range(design.systems)]):
        voice = ("NEB", "AD")[(item.number + item.number // design.systems) % 2]
        name = f"VoiceMOS2023Track1-{item.system}-{voice}_test_{item.number:04d}"
        write_wav(root / "bc23" / "wavs" / f"{name}.wav", item)
        answers.append((name, repr(item.mean)))
    write_rows(sheet_answers(root, "bc23") / "answer.csv", answers)


def write_svcc23(root: Path, design: Design) -> None:
    """Write SVCC23."""
    ratings = []
    for item in make_recordings(design, [f"T{n:02d}" for n in range(design.systems)]):
        name = f"VoiceMOS2023Track2-{item.system}-SF1-CDF1-{30001 + item.number}"
        write_wav(root / "svcc23" / "wavs" / f"{name}.wav", item)
        ratings += [(name, listener, f"{score:.0f}") for listener, score in item.ratings]
    ratings.append((name, item.ratings[0][0], "1"))  # a second rating by the same listener
    path = sheet_answers(root, "svcc23") / "listener_wise_answer.csv"
    write_csv(path, ("sample_id", "listener_name", "score"), ratings)


def write_singmos(root: Path, design: Design) -> None:
    """Write the test set of SingMOS, and a recording of another set."""
    data = root / "singmos" / "DATA"
    answers = []
    for item in make_recordings(design, [f"sys{n:04d}" for n in range(design.systems)]):
        name = f"voicemos2024-track2-{item.system}-utt{item.number:04d}"
        write_wav(data / "wav" / f"{name}.wav", item)
        answers.append((name, f"{item.mean:.6f}"))
    write_wav(data / "wav" / "voicemos2024-track2-sys0001-utt9999.wav", item)
    write_rows(data / "sets" / "eval_mos_list.txt", answers)


def write_brspeechmos(root: Path, design: Design) -> None:
    """Write the test set of BRSpeechMOS; the first system is natural speech. The list has a byte order mark."""
    rows = []
    for item in make_recordings(design, [f"tts{n}" for n in range(design.systems)]):
        natural = item.system == "tts0"
        wav = f"audios/{item.system}/{item.number}.wav"
        write_wav(root / "brspeechmos" / wav, item)
        condition, db = ("natural", "ground_truth") if natural else (str(item.number), item.system)
        rows.append((f"./{wav}", repr(item.mean), condition, db))
    path = root / "brspeechmos" / "test.csv"
    write_csv(path, ("filepath", "mos", "condition", "db"), rows)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


def write_tmhint_qi(root: Path, design: Design) -> None:
    """Write the test set of TMHINT-QI, in a list with a recording of the training set and one without quality score."""
    rows = []
    for item in make_recordings(design, ["clean", *(f"SE{n}" for n in range(1, design.systems))]):
        snr, noise = ("", "") if item.system == "clean" else ("-2", "street noise")
        name = f"{item.system}_{item.number}"
        write_wav(root / "tmhint-qi" / "test" / f"{name}.wav", item)
        for listener, score in item.ratings:
            rows.append((listener, item.system, str(item.number), snr, noise, f"{score:.0f}", "9", name))
        rows.append(("another", item.system, str(item.number), snr, noise, "", "9", name))
    rows.append(("another", "SE1", "99", "0", "pink", "3", "9", "SE1_99"))
    header = ("idx", "method", "uttr", "snr", "noise", "quality_score", "intelligibility_score", "file_name")
    write_csv(root / "tmhint-qi" / "raw_data.csv", header, rows)


def write_tmhint_qi_s(root: Path, design: Design) -> None:
    """Write TMHINT-QI(S), with a recording that SHEET leaves out."""
    answers = [("VoiceMOS2023Track3-TMHINT_g4_21_99", "5.0")]
    names = ["clean_TMHINT", *(f"CMGAN_snr{n}_pink_TMHINT" for n in range(1, design.systems))]
    for item in make_recordings(design, names):
        name = f"VoiceMOS2023Track3-{item.system}_g4_21_{item.number:02d}"
        write_wav(root / "tmhint-qi-s" / "wavs" / f"{name}.wav", item)
        answers.append((name, repr(item.mean)))
    write_wav(root / "tmhint-qi-s" / "wavs" / f"{answers[0][0]}.wav", item)
    write_rows(sheet_answers(root, "tmhint-qi-s") / "answer.csv", answers)


def write_vmc24_track3(root: Path, design: Design) -> None:
    """Write track 3 of VoiceMOS 2024."""
    ratings = []
    for item in make_recordings(design, [f"sys{n + 1}" for n in range(design.systems)]):
        name = f"p232_{item.system}_{item.number:03d}"
        write_wav(root / "vmc24_track3" / "DATA" / "wav" / f"voicemos2024-track3-{name}.wav", item)
        ratings += [(name, "3", "4", f"{score:.0f}", f"{listener}-F-20-30") for listener, score in item.ratings]
    path = sheet_answers(root, "vmc24_track3") / "track3_listener_wise_answer.csv"
    write_csv(path, ("sample_id", "sig", "bak", "ovr", "listener"), ratings)


def sheet_answers(root: Path, folder: str) -> Path:
    """Make and return the directory of scores that SHEET's repository has for a corpus."""
    path = root / "sheet" / "egs" / folder / "answers"
    path.mkdir(parents=True)
    return path


def write_wav(path: Path, item: Rated) -> None:
    """Write a recording, and the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, item.samples, RATE, subtype="PCM_16")


def write_rows(path: Path, rows: Iterable[Sequence[str]]) -> None:
    """Write a CSV file without a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(",".join(row) + "\n" for row in rows))


def one_set(design: Design, seed: int) -> Design:
    """Return a design with only the test set."""
    return replace(design, sizes={"test": design.sizes["test"]}, seed=seed)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a CSV file with a header."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
