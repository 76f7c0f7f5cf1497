"""Make the data directories train, dev and test of degraded plain speech, the audio in DATADIR/wav.

Every recording is degraded once, by one of KINDS at one of STRENGTHS, which are its system. The ratings are simulated.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile

from distilmos.data.audio import SAMPLE_RATE, read_audio
from distilmos.data.datadir import MOS_RANGE, Utterance
from distilmos.data.plain import PlainRecording, find_plain_speech
from distilmos.data.prepare import Preparation, corpus_parser
from distilmos.errors import InputError, raise_faults, run_main
from distilmos.simulation.degrade import DEGRADATIONS, TALKER, add_talker, at_level
from distilmos.simulation.listeners import true_quality

NOTES = "The ratings are simulated."
SEED = 1
KINDS = (TALKER, *DEGRADATIONS)
STRENGTHS = tuple(tenth / 10 for tenth in range(11))
HELD_OUT = 50  # one recording of so many is in dev, another one in test
LONGEST = 15.0  # seconds of a recording that are used


def main() -> None:
    """Read the command line and make the corpus."""
    args = corpus_parser(__doc__, "directory of recordings").parse_args()
    preparation = Preparation(f"degraded speech of {args.db_root}", args.datadir, allow_partial=args.allow_partial)
    for name in ("train", "dev", "test"):
        preparation.begin(name)
    recordings = list(find_plain_speech(args.db_root))
    args.datadir.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".wav.", dir=args.datadir) as temporary:
        made: list[tuple[str, Utterance, str]] = []
        new, final = Path(temporary) / "new", args.datadir / "wav"
        new.mkdir()
        for recording in recordings:
            rng = np.random.default_rng([SEED, zlib.crc32(recording.id.encode())])
            kind = str(rng.choice(KINDS))
            strength = float(rng.choice(STRENGTHS)) if kind != "clean" else 0.0
            try:
                samples = degrade(recording, kind, strength, recordings, rng)
            except InputError as error:
                preparation.gaps.append(f"{recording.path}: {error}")
                continue
            soundfile.write(new / f"{recording.id}.wav", samples, SAMPLE_RATE, subtype="PCM_16")
            made.append((set_of(recording), rated(recording, kind, strength, final), str(recording.path)))
        if not args.allow_partial:
            raise_faults(preparation.gaps, f"degrading {args.db_root} (--allow_partial true prepares the rest)")
        if final.exists():
            final.rename(Path(temporary) / "old")
        new.rename(final)
    for name, utterance, where in made:
        preparation.add(name, utterance, where)
    preparation.write(NOTES)


def set_of(recording: PlainRecording) -> str:
    """Return the set that a recording is in."""
    if recording.one_in(HELD_OUT):
        return "dev"
    return "test" if recording.one_in(HELD_OUT, 1) else "train"


def degrade(
    recording: PlainRecording, kind: str, strength: float, others: list[PlainRecording], rng: np.random.Generator
) -> np.ndarray:
    """Return a recording, degraded, at the same level as all others: 16 kHz, float32, shape (N,).

    Raises:
        InputError: if it, or the other talker that is heard with it, cannot be read, or is silent.
    """
    samples = read_audio(recording.path)[: round(LONGEST * SAMPLE_RATE)]
    if not samples.any():
        raise InputError("silent")
    samples = at_level(samples)
    if kind == TALKER:
        degraded = add_talker(samples, read_audio(others[rng.integers(len(others))].path), strength, rng)
    else:
        degraded = DEGRADATIONS[kind](samples, strength, rng)
    return at_level(degraded) if degraded.any() else degraded


def rated(recording: PlainRecording, kind: str, strength: float, directory: Path) -> Utterance:
    """Describe the degraded recording, which is in `directory`, and rate it."""
    return Utterance(
        id=recording.id,
        audio=directory / f"{recording.id}.wav",
        system=f"{kind}_{round(100 * strength):03d}",
        mos=float(np.clip(true_quality(kind, strength, 0.0), *MOS_RANGE)),
        group=kind,
    )


if __name__ == "__main__":
    run_main(main)
