"""Speak the sentences of a Kaldi text file with the voices of eSpeak NG and flite: synthetic speech for `--wide true`.

Each sentence is spoken once, by a voice that its utterance id decides: OUT/synthetic/VOICE/UTTERANCE.wav. Both programs
must be installed.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
from pathlib import Path

from distilmos.data.tables import read_table
from distilmos.errors import FailedError, InputError, run_main
from distilmos.files import replaced_directory
from distilmos.simulation.draw import generator_of

FLITE = ("awb", "kal", "kal16", "rms", "slt")
ESPEAK = ("en-us", "en-us+f2", "en-gb+m3", "en-gb-scotland+f4", "en-029+m5", "en-us+klatt2")
SYNTHETIC = "synthetic"  # folder of synthetic voices
SEED = 1


def main() -> None:
    """Read the command line and speak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="utterance ids and sentences")
    parser.add_argument("--out", type=Path, required=True, metavar="OUT", help="directory of the new folder synthetic")
    args = parser.parse_args()
    missing = [program for program in ("espeak-ng", "flite") if not shutil.which(program)]
    if missing:
        raise InputError(f"not installed: {', '.join(missing)}")
    folder = args.out / SYNTHETIC
    if folder.exists():
        raise InputError(f"{folder}: exists; remove it first")
    sentences = read_table(args.text)
    for utterance in sentences:
        if "/" in utterance:
            raise InputError(f"{args.text}: {utterance}: no file can have this name")
    args.out.mkdir(parents=True, exist_ok=True)
    with replaced_directory(folder) as new:
        for utterance, sentence in sentences.items():
            rng = generator_of(utterance, SEED)
            voice = str(rng.choice(FLITE + ESPEAK))
            path = new / voice / f"{utterance}.wav"
            path.parent.mkdir(exist_ok=True)
            stretch = rng.uniform(0.8, 1.2)  # of the duration
            words = sentence.lower()
            if voice in FLITE:
                command = ["flite", "-voice", voice, "--setf", f"duration_stretch={stretch:.3f}", "-t", words]
                command += ["-o", str(path)]
            else:
                command = ["espeak-ng", "-v", voice, "-s", f"{160 / stretch:.0f}", "-w", str(path), "--", words]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode or not path.exists():  # flite returns 0 in any case
                raise FailedError(f"{' '.join(command)}: {done.stderr.strip()}")


if __name__ == "__main__":
    run_main(main)
