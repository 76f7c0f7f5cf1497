"""Prediction of many files: whether speed and memory stay those of a hundred.

The speed is that of `model.stream` in one process, from the first file to the last score, with the model loaded. The
memory is the peak of `distilmos predict LIST --out scores.csv`. All files are different, and short, so that reading and
bookkeeping count.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

from corpus import make_corpus
from harness import Goal, Report, Side, parser, run_process

import distilmos
from distilmos.devices import cores

FEW, BASE = 100, 1000  # files that the speed and the memory of many are compared with
MOST = 100_000
MANY = (FEW, BASE, 10_000, MOST)
LENGTH = 0.25  # seconds of a file
LEAST_SECONDS = 5.0  # a small list is scored again until it has taken so long


def main() -> None:
    """Measure and report."""
    args = parser(__doc__, repeats=3).parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        audio = make_corpus(work / "wav", [LENGTH] * MOST, args.speech)
        paths = sorted((work / "wav").iterdir())
        model = distilmos.load(runtime="onnx")
        report = Report(
            name="predict_scale",
            title="Prediction of many files",
            work=f"{audio}; the default model of the package, onnxruntime, {cores()} cores.",
        )

        def score(count: int) -> dict[str, float]:
            listed = work / f"{count}.lst"
            listed.write_text("".join(f"{path}\n" for path in paths[:count]), encoding="utf-8")
            times: list[float] = []
            while not times or sum(times) < LEAST_SECONDS:
                began = time.perf_counter()
                assert all(not one.error for one in model.stream([listed]))
                times.append(time.perf_counter() - began)
            seconds = median(times)
            out = work / f"{count}.csv"
            peak = run_process(["distilmos", "predict", listed, "--runtime", "onnx", "--out", out])["peak_mb"]
            out.unlink()
            return {"seconds": seconds, "files_per_second_and_core": count / seconds / cores(), "peak_mb": peak}

        sides = [Side(f"{count} files", f"the first {count}", partial(score, count)) for count in MANY]
        report.measure(sides, args.repeats)
        rates, peaks = (
            {count: median(run[figure] for run in report.runs[f"{count} files"]) for count in MANY}
            for figure in ("files_per_second_and_core", "peak_mb")
        )
        speed, memory = rates[MOST] / rates[FEW], peaks[MOST] / peaks[BASE]
        report.goals = [
            Goal(f"{MOST} files as fast as {FEW}, within 10 %", f"{speed:.2f} times", speed >= 0.9),
            Goal(f"memory of {MOST} files that of {BASE}, within 5 %", f"{memory:.2f} times", memory <= 1.05),
        ]
        report.finish()


if __name__ == "__main__":
    main()
