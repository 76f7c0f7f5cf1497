"""Make the data directories train, dev and test of degraded plain speech, with the audio in DATADIR/wav.

Every copy of a recording is degraded once, by one of KINDS at one of STRENGTHS: its system. The ratings are simulated.

With --wide true, codecs, vocoders and noise suppression are among the degradations, and Distill-MOS rates, too. A
rating is then the mean of both; that of Distill-MOS alone after these three degradations, and for synthetic voices:
the recordings in a folder `synthetic`.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import joblib
import numpy as np
import soundfile
from voices import SYNTHETIC

from distilmos.commands.options import positive_int
from distilmos.data.audio import SAMPLE_RATE, read_audio, stream_audio
from distilmos.data.datadir import Utterance
from distilmos.data.plain import PlainRecording, find_plain_speech
from distilmos.data.prepare import Preparation, boolean, corpus_parser
from distilmos.errors import InputError, run_main
from distilmos.files import replaced_directory
from distilmos.references.published import load_published
from distilmos.simulation.degrade import DEGRADATIONS, TALKER, add_talker, at_level, system_name
from distilmos.simulation.draw import Ring, generator_of
from distilmos.simulation.listeners import QUALITY_LOSS, true_quality
from distilmos.simulation.processing import PROCESSING, check_codecs

NOTES = "The ratings are simulated."
WIDE_NOTES = "The ratings are means of simulated ratings and those of Distill-MOS, or of Distill-MOS alone."
SEED = 1
# Without `warble`, which a small model does not learn to hear, so that its ratings would be noise. Kinds that the model
# is slow to learn, and clean speech, are four times as frequent as the others. With --wide true, Distill-MOS tells how
# much of `warble` a model hears.
EVEN = (TALKER, *(kind for kind in DEGRADATIONS if kind != "warble"))
KINDS = EVEN + 3 * (TALKER, "mnru", "loss", "stutter", "skip", "clean")
WIDE_KINDS = (*KINDS, *PROCESSING, "warble", "suppress", "vocode")
STRENGTHS = tuple(tenth / 10 for tenth in range(11))
HELD_OUT = 50  # one recording in HELD_OUT is in dev, another one in test
LONGEST = 15.0  # seconds; the rest of a longer recording is not used
BAND_LIMITED = 1 / 3  # share of recordings with an upper limit below 8 kHz, as after many converters and codecs
LOWEST_LIMIT = 6500.0  # Hz
RATER = "distillmos"  # with --wide true
PADDED = 1 / 3  # with --wide true, share of recordings with silence at both ends; it does not change the rating
LONGEST_PAD = 1.0  # seconds of silence at one end


@dataclass(frozen=True)
class Copy:
    """A recording that is degraded in one way.

    Attributes:
        recording: the recording.
        id: utterance id; that of the recording for its first copy.
        wide: whether it may be degraded by PROCESSING, and is rated by Distill-MOS, too.
    """

    recording: PlainRecording
    id: str
    wide: bool

    @property
    def synthetic(self) -> bool:
        """Whether it is treated as a synthetic voice."""
        return self.wide and self.recording.folder == SYNTHETIC

    def draw(self) -> tuple[str, float, np.random.Generator]:
        """Draw the degradation: kind, strength, and a generator for its other random numbers."""
        rng = generator_of(self.id, SEED)
        kinds = WIDE_KINDS if self.wide else KINDS
        if self.synthetic:
            kinds += len(kinds) * ("clean",)  # half of the synthetic voices are not degraded
        kind = str(rng.choice(kinds))
        strength = float(rng.choice(STRENGTHS))
        return kind, 0.0 if kind == "clean" else strength, rng

    def rated(self) -> Utterance:
        """Return the utterance after its degradation, with its simulated rating, if it has one."""
        kind, strength, _ = self.draw()
        mos = true_quality(kind, strength, 0.0) if kind in QUALITY_LOSS and not self.synthetic else None
        return Utterance(self.id, self.recording.path, system_name(kind, strength), mos, group=kind)


def main() -> None:
    """Read the command line and make the corpus."""
    parser = corpus_parser(__doc__, "directory of recordings")
    parser.add_argument(
        "--copies", type=positive_int, required=True, metavar="N", help="times to degrade each recording"
    )
    parser.add_argument("--wide", type=boolean, required=True, metavar="true|false", help="more kinds; see above")
    parser.add_argument("--jobs", type=positive_int, required=True, metavar="N", help="parallel processes")
    args = parser.parse_args()
    source, wav = args.db_root.resolve(), (args.datadir / "wav").resolve()
    if source in (wav, *wav.parents) or wav in source.parents:
        raise InputError(f"{args.db_root}: must not contain, or be in, {wav}, which this script replaces")

    preparation = Preparation(f"degraded speech of {args.db_root}", args.datadir, allow_partial=args.allow_partial)
    for name in ("train", "dev", "test"):
        preparation.begin(name)
    recordings: dict[str, PlainRecording] = {}
    copies: dict[str, Copy] = {}
    for recording in find_plain_speech(args.db_root):
        recordings[recording.id] = recording
        for number in range(1, args.copies + 1):
            copy = Copy(recording, recording.id if number == 1 else f"{recording.id}-copy{number}", args.wide)
            preparation.add(set_of(recording), copy.rated(), str(recording.path))
            copies[copy.id] = copy
    preparation.check()
    if args.wide:
        check_codecs()
        load_published(RATER)  # its package may be missing
    ring = Ring(recordings)
    with replaced_directory(wav) as new:
        for members in preparation.sets.values():
            utterances = list(members.values())
            made = joblib.Parallel(args.jobs, return_as="generator")(
                joblib.delayed(make)(copies[u.id], next_talkers(ring, recordings, copies[u.id]), new / f"{u.id}.wav")
                for u in utterances
            )
            for utterance, (seconds, other, fault) in zip(utterances, made, strict=True):
                if fault:
                    preparation.gaps.append(fault)
                    del members[utterance.id]
                    continue
                mos = float(np.mean([rating for rating in (utterance.mos, other) if rating is not None]))
                audio = wav / f"{utterance.id}.wav"
                members[utterance.id] = replace(utterance, audio=audio, seconds=seconds, mos=mos)
        preparation.check()
    preparation.write(WIDE_NOTES if args.wide else NOTES)


def set_of(recording: PlainRecording) -> str:
    """Return the set of a recording."""
    if recording.one_in(HELD_OUT):
        return "dev"
    return "test" if recording.one_in(HELD_OUT, 1) else "train"


def next_talkers(ring: Ring, recordings: dict[str, PlainRecording], copy: Copy) -> list[Path]:
    """Return recordings of other talkers for `copy`, if one degrades it: several, because some may be silent."""
    if copy.draw()[0] != TALKER:
        return []
    others = (name for name in ring.after(copy.id, SEED) if name != copy.recording.id)
    return [recordings[name].path for name in islice(others, 10)]


def make(copy: Copy, others: list[Path], path: Path) -> tuple[float, float | None, str]:
    """Write a degraded recording to `path`, at the level of all others.

    Returns:
        its seconds, its rating by Distill-MOS if `copy.wide`, and its fault or "".
    """
    recording = copy.recording
    kind, strength, rng = copy.draw()
    try:
        samples = at_level(read_beginning(recording.path))
        if not samples.any():
            raise InputError(f"{recording.path}: silent")
        if kind == TALKER:
            samples = add_talker(samples, first_sounding(others), strength, rng)
        else:
            samples = (DEGRADATIONS | PROCESSING)[kind](samples, strength, rng)
        if not samples.any():
            raise InputError(f"{recording.path}: silent after {kind}: it has too little sound")
    except InputError as error:
        return 0.0, None, str(error)
    if rng.random() < BAND_LIMITED:
        samples = low_pass(samples, rng.uniform(LOWEST_LIMIT, SAMPLE_RATE / 2))
    soundfile.write(path, at_level(samples), SAMPLE_RATE, subtype="PCM_16")
    rating = None
    if copy.wide:
        samples = read_audio(path)  # Distill-MOS may hear whether silence is digital
        rating = round(load_published(RATER)(samples), 3)  # further digits depend on the number of threads
        if rng.random() < PADDED:
            samples = np.pad(samples, rng.integers(round(LONGEST_PAD * SAMPLE_RATE), size=2))
            soundfile.write(path, samples, SAMPLE_RATE, subtype="PCM_16")
    return samples.size / SAMPLE_RATE, rating, ""


def low_pass(samples: np.ndarray, limit: float) -> np.ndarray:
    """Remove frequencies above `limit` Hz. Hardly audible, so the rating does not change."""
    spectrum = np.fft.rfft(samples)
    spectrum[np.fft.rfftfreq(samples.size, 1 / SAMPLE_RATE) > limit] = 0
    return np.fft.irfft(spectrum, samples.size).astype(np.float32)


def first_sounding(paths: list[Path]) -> np.ndarray:
    """Return the first recording that can be read and is not silent.

    Raises:
        InputError: if there is none.
    """
    for path in paths:
        with suppress(InputError):
            samples = read_beginning(path)
            if samples.any():
                return samples
    raise InputError(f"{', '.join(map(str, paths))}: silent or unreadable, but needed as another talker")


def read_beginning(path: Path) -> np.ndarray:
    """Read about the first LONGEST seconds of a recording."""
    return next(stream_audio(path, LONGEST))


if __name__ == "__main__":
    run_main(main)
