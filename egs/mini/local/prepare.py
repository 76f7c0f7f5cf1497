"""Make the embedded corpus: data directories train, dev, test and test_ood in DATADIR, audio in DATADIR/wav.

Voices of eSpeak NG speak, graded degradations are the systems, and simulated listeners rate. Every run makes the same
bytes.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import soundfile
from espeak import Voice, synthesise_all

from distilmos.data.audio import SAMPLE_RATE
from distilmos.data.datadir import Utterance, write_data_dir
from distilmos.data.tables import read_lines
from distilmos.errors import run_main
from distilmos.files import replaced_directory
from distilmos.simulation.degrade import DEGRADATIONS, at_level, segmental_snr, system_name
from distilmos.simulation.draw import generator_of
from distilmos.simulation.listeners import make_listeners, simulate_ratings, true_quality

T = TypeVar("T")

NOTES = "The ratings are simulated."
SEED = 1
TRAINED = ("noise", "babble", "clip", "band", "loss", "quantise", "echo")
OUT_OF_DOMAIN = ("reverb", "warble", "tremolo", "holes")
VOICES = (
    Voice("en-us", 165),
    Voice("en-us+f3", 160),
    Voice("en-us+m3", 175),
    Voice("en-us+Annie", 170),
    Voice("en-us+Michael", 160, 45),
    Voice("en", 170),
    Voice("en+f2", 165, 55),
    Voice("en+steph", 175),
    Voice("en-gb-scotland", 165),
    Voice("en-gb-scotland+f4", 170),
    Voice("en-gb-x-rp+m7", 160, 55),
    Voice("en-gb-x-rp+f1", 175),
)
LISTENERS = 24
RATINGS = 8  # of each utterance
FLOOR = 10 ** (-75 / 20)  # root mean square of added noise, because eSpeak NG's pauses are digital silence
SENTENCES = Path(__file__).with_name("sentences.txt")


@dataclass(frozen=True)
class System:
    """A type of degradation at one strength."""

    kind: str
    strength: float

    @property
    def name(self) -> str:
        """Name of the system, for example noise_040, or `clean`."""
        return system_name(self.kind, self.strength)


@dataclass(frozen=True)
class Subset:
    """The plan of one set.

    Attributes:
        name: name of the data directory.
        systems: its systems.
        repeats: utterances of each system.
        sentences: number of different sentences.
    """

    name: str
    systems: tuple[System, ...]
    repeats: int
    sentences: int


@dataclass(frozen=True)
class Item:
    """One utterance before it is spoken."""

    id: str
    system: System
    sentence: str
    voice: Voice


def grid(kinds: Sequence[str], strengths: Sequence[float]) -> tuple[System, ...]:
    """Return every type at every strength."""
    return tuple(System(kind, strength) for kind in kinds for strength in strengths)


CLEAN = grid(("clean",), (0.0,))
KNOWN = CLEAN + grid(TRAINED, (0.1, 0.4, 0.7, 1.0))
KNOWN_SMALL = CLEAN + grid(TRAINED, (0.1, 1.0))
# test has systems of train, and strengths between those of train.
DESIGNS = {
    "full": (
        Subset("train", KNOWN, 8, 56),
        Subset("dev", KNOWN, 2, 14),
        Subset("test", CLEAN + grid(TRAINED, (0.25, 0.4, 0.85, 1.0)), 3, 20),
        Subset("test_ood", grid(OUT_OF_DOMAIN, (0.1, 0.4, 0.7, 1.0)), 4, 16),
    ),
    "small": (
        Subset("train", KNOWN_SMALL, 3, 16),
        Subset("dev", KNOWN_SMALL, 2, 6),
        Subset("test", grid(TRAINED, (0.4, 1.0)), 2, 8),
        Subset("test_ood", grid(OUT_OF_DOMAIN, (0.1, 1.0)), 2, 6),
    ),
}


def main() -> None:
    """Read the command line and make the corpus."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datadir", type=Path, default=Path("data"), help="default: %(default)s")
    parser.add_argument("--size", choices=sorted(DESIGNS), default="full", help="small, for tests, is about a fourth")
    args = parser.parse_args()

    plan = draw_items(DESIGNS[args.size])
    audio, quality = record([item for items in plan.values() for item in items])
    write_audio(args.datadir / "wav", {name: [(i.id, audio[i.id]) for i in items] for name, items in plan.items()})
    listeners = make_listeners(LISTENERS, random_for("listeners"))
    for name, items in plan.items():
        utterances = [
            Utterance(
                id=item.id,
                audio=args.datadir / "wav" / name / f"{item.id}.wav",
                system=item.system.name,
                ratings=simulate_ratings(quality[item.id], listeners, RATINGS, random_for(f"ratings of {item.id}")),
                speaker=item.voice.name,
                text=item.sentence,
                group=item.system.kind,
            )
            for item in items
        ]
        write_data_dir(args.datadir / name, utterances, NOTES)
        minutes = sum(audio[item.id].size for item in items) / SAMPLE_RATE / 60
        systems = len({item.system for item in items})
        print(f"{args.datadir / name}: {len(items)} utterances of {systems} systems, {minutes:.1f} minutes. {NOTES}")


def random_for(purpose: str) -> np.random.Generator:
    """Return a generator whose numbers depend only on SEED and `purpose`."""
    return generator_of(purpose, SEED)


def draw_items(design: Sequence[Subset]) -> dict[str, list[Item]]:
    """Assign a sentence and a voice to each utterance of each system; no sentence is in two sets."""
    wanted = sum(subset.sentences for subset in design)
    shortest = sorted(read_lines(SENTENCES), key=lambda sentence: (len(sentence), sentence))[:wanted]
    pool = deal(shortest, wanted, random_for("sentences"))
    plan = {}
    for subset in design:
        mine, pool = pool[: subset.sentences], pool[subset.sentences :]
        count = subset.repeats * len(subset.systems)
        sentences = deal(mine, count, random_for(f"sentences of {subset.name}"))
        voices = deal(VOICES, count, random_for(f"voices of {subset.name}"))
        plan[subset.name] = [
            Item(f"{subset.name}-{system.name}-{repeat + 1}", system, sentences.pop(), voices.pop())
            for repeat in range(subset.repeats)
            for system in subset.systems
        ]
    return plan


def deal(things: Sequence[T], count: int, rng: np.random.Generator) -> list[T]:
    """Return `count` of the things in random order, each equally often, some once more."""
    dealt: list[T] = []
    while len(dealt) < count:
        dealt += [things[n] for n in rng.permutation(len(things))]
    return dealt[:count]


def record(items: Sequence[Item]) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Speak and degrade the items.

    Returns:
        utterance id -> 16 kHz float32 samples, and utterance id -> true quality.
    """
    audio: dict[str, np.ndarray] = {}
    snr: dict[str, float] = {}
    snr_of_system: dict[System, list[float]] = defaultdict(list)
    for item, speech in zip(items, synthesise_all([(item.sentence, item.voice) for item in items]), strict=True):
        rng = random_for(f"audio of {item.id}")
        reference = at_level(speech) + rng.normal(0, FLOOR, speech.size).astype(np.float32)
        degraded = DEGRADATIONS[item.system.kind](reference, item.system.strength, rng)
        snr[item.id] = segmental_snr(reference, degraded)
        snr_of_system[item.system].append(snr[item.id])
        # All systems are equally loud, so that loudness does not reveal the quality.
        audio[item.id] = at_level(degraded)
    quality = {
        item.id: true_quality(
            item.system.kind, item.system.strength, snr[item.id] - float(np.mean(snr_of_system[item.system]))
        )
        for item in items
    }
    return audio, quality


def write_audio(directory: Path, sets: dict[str, list[tuple[str, np.ndarray]]]) -> None:
    """Write `directory`/SET/UTTERANCE.wav (16 bits); the new directory replaces an older one."""
    with replaced_directory(directory) as new:
        for name, recordings in sets.items():
            (new / name).mkdir(parents=True)
            for utterance, samples in recordings:
                soundfile.write(new / name / f"{utterance}.wav", samples, SAMPLE_RATE, subtype="PCM_16")


if __name__ == "__main__":
    run_main(main)
