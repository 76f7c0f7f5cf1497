"""Reading audio: stage 1's packed archive against separate WAV files, cold and warm, in order and shuffled.

Cold means that posix_fadvise drops the files from the page cache before each run. This needs no privileges, but a
network file system or a disk with its own cache may still hold the files.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median

import numpy as np
from corpus import make_corpus, pack_audio
from harness import Goal, Report, Side, parser

from distilmos.data.archive import read_scp
from distilmos.data.audio import read_audio
from distilmos.data.datadir import Utterance

CORPORA = {"small": (3000, 1.0), "large": (60, 50.0)}  # name -> number of recordings, seconds of each


def main() -> None:
    """Measure and report."""
    args = parser(__doc__, repeats=5).parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for name, (count, seconds) in CORPORA.items():
            _compare(Path(scratch) / name, name, [seconds] * count, args.repeats, args.speech)


def _compare(work: Path, name: str, lengths: list[float], repeats: int, speech: Path | None) -> None:
    audio = make_corpus(work / "wav", lengths, speech)
    paths = sorted((work / "wav").iterdir())
    pack_audio([Utterance(path.stem, path, "system") for path in paths], work / "raw")
    files: list[tuple[Path, int | None]] = [(path, None) for path in paths]
    packed = list(read_scp(work / "raw" / "wav.scp").values())
    shuffle = np.random.default_rng(0).permutation(len(files)).tolist()
    report = Report(
        f"ark_{name}", "Reading audio from an archive and from separate files", f"{audio}, 16 kHz, 16 bits."
    )

    def reading(locations: list[tuple[Path, int | None]], cold: bool) -> Callable[[], dict[str, float]]:
        def run() -> dict[str, float]:
            if cold:
                _forget({path for path, _ in locations})
            started = time.perf_counter()
            for location in locations:
                read_audio(*location)
            return {"seconds": time.perf_counter() - started}

        return run

    sides = []
    for cold in (True, False):
        for order in ("in order", "shuffled"):
            for kind, locations in (("files", files), ("archive", packed)):
                chosen = locations if order == "in order" else [locations[index] for index in shuffle]
                state = "cold" if cold else "warm"
                what = f"read_audio of every recording {order}, from {'WAV files' if kind == 'files' else 'wav.ark'}"
                sides.append(Side(f"{kind}, {order}, {state}", f"{what}, {state}", reading(chosen, cold)))
    report.measure(sides, repeats)
    for state in ("cold", "warm"):
        pairs = zip(report.runs[f"files, shuffled, {state}"], report.runs[f"archive, shuffled, {state}"], strict=True)
        ratio = median(one["seconds"] / other["seconds"] for one, other in pairs)
        text = f"the archive is no slower than files, shuffled, {state}, {len(lengths)} x {lengths[0]:g} s"
        report.goals.append(Goal(text, f"{ratio:.2f} times as fast", ratio >= 1))
    report.finish()


def _forget(paths: Iterable[Path]) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # only pages that are on the disk can be dropped
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


if __name__ == "__main__":
    main()
