"""Prediction of many files: whether speed and memory stay those of a hundred.

`distilmos predict LIST --out scores.csv` scores lists of different lengths. Its speed is without the time that the
command takes for a single file. All files are different, and short, so that reading and bookkeeping count.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from statistics import median

from corpus import make_corpus
from harness import Goal, Report, Side, parser, run_process

from distilmos.devices import cores

FEW, BASE = 100, 1000  # files that the speed and the memory of many are compared with
MOST = 100_000
LENGTH = 0.25  # seconds of a file


def main() -> None:
    """Measure and report."""
    args = parser(__doc__, repeats=7).parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        audio = make_corpus(work / "wav", [LENGTH] * MOST, args.speech)
        paths = sorted((work / "wav").iterdir())
        report = Report(
            name="predict_scale",
            title="Prediction of many files",
            work=f"{audio}; the default model of the package, onnxruntime, {cores()} cores.",
        )

        def score(count: int) -> dict[str, float]:
            listed, out = work / "speech.lst", work / "scores.csv"
            listed.write_text("".join(f"{path}\n" for path in paths[:count]), encoding="utf-8")
            figures = run_process(["distilmos", "predict", listed, "--runtime", "onnx", "--out", out])
            out.unlink()
            return figures

        def side(count: int) -> Side:
            return Side(str(count), f"the first {count}", partial(score, count))

        report.measure([side(1), side(FEW), side(BASE)], args.repeats)
        report.measure([side(10_000), side(MOST)], 1)
        found = {
            int(name): {figure: median(run[figure] for run in runs) for figure in runs[0]}
            for name, runs in report.runs.items()
        }
        rates = {n: n / (figures["seconds"] - found[1]["seconds"]) for n, figures in found.items() if n > 1}
        for count, rate in rates.items():
            report.facts[f"{count} files: files a second on each core, without the start"] = f"{rate / cores():.1f}"
        speed, memory = rates[MOST] / rates[FEW], found[MOST]["peak_mb"] / found[BASE]["peak_mb"]
        report.goals = [
            Goal(f"{MOST} files as fast as {FEW}, within 10 %", f"{speed:.2f} times", speed >= 0.9),
            Goal(f"memory of {MOST} files that of {BASE}, within 5 %", f"{memory:.2f} times", memory <= 1.05),
        ]
        report.finish()


if __name__ == "__main__":
    main()
