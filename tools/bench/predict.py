"""Prediction for a directory: both runtimes against padded batches of 32 in directory order, and file by file.

The times are those of whole processes, from the start to the last score. Scores must agree to 1e-4.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from corpus import make_corpus
from harness import HERE, Goal, Report, Side, parser, run_process

from distilmos.data.tables import read_floats

FILES = 500
SHORT = 4.0  # seconds of the single file


def main() -> None:
    """Measure and report."""
    args = parser(__doc__, repeats=3).parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        lengths = list(np.random.default_rng(0).uniform(1.0, 15.0, FILES))
        audio = make_corpus(work / "wav", lengths, args.speech)
        report = Report(
            name="predict",
            title="Prediction for a directory of files",
            work=f"{audio}; the default model of the package, float32.",
        )
        scores: dict[str, dict[str, float]] = {}

        def fixed(size: int) -> dict[str, float]:
            out = work / f"fixed{size}"
            figures = run_process([sys.executable, HERE / "directory_order.py", work / "wav", str(size), out])
            scores[f"fixed{size}"] = read_floats(out)
            return with_rate(figures)

        def ours(runtime: str) -> dict[str, float]:
            out = work / f"{runtime}.jsonl"
            options: list[str | Path] = ["--runtime", runtime, "--out", out]
            figures = run_process(["distilmos", "predict", work / "wav", *options])
            found = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
            scores[runtime] = {one["utterance"]: one["mos"] for one in found}
            return with_rate(figures)

        def with_rate(figures: dict[str, float]) -> dict[str, float]:
            return figures | {"audio_per_second": sum(lengths) / figures["seconds"]}

        sides = [
            Side(
                "batches of 32",
                "tools/bench/directory_order.py: 32 files at a time in directory order, zero padded to the longest; "
                "same network and audio reader, torch's defaults",
                lambda: fixed(32),
            ),
            Side("one by one", "the same script with batches of 1", lambda: fixed(1)),
            Side("onnx", "`distilmos predict DIR --runtime onnx --out scores.jsonl`", lambda: ours("onnx")),
            Side("torch", "the same with --runtime torch", lambda: ours("torch")),
        ]
        report.measure(sides, args.repeats)
        worst = max(abs(one[name] - first) for one in scores.values() for name, first in scores["fixed1"].items())
        make_corpus(work / "short", [SHORT], args.speech)
        single = {
            runtime: [
                run_process(["distilmos", "predict", work / "short" / "00000.wav", "--runtime", runtime])
                for _ in range(args.repeats)
            ]
            for runtime in ("onnx", "torch")
        }
        seconds, memory = (median(run[figure] for run in single["onnx"]) for figure in ("seconds", "peak_mb"))
        ratio = median(report.ratio("onnx"))
        # The padding of the reference bounds the gain of any order of the files.
        groups = [lengths[first : first + 32] for first in range(0, FILES, 32)]
        padded = sum(max(group) * len(group) for group in groups)
        report.facts = {
            "audio of the reference with its padding": f"{padded / sum(lengths):.2f} times the recordings",
            "largest difference of a score between any two sides": f"{worst:.1e} MOS",
        }
        for runtime, runs in single.items():
            report.facts[f"one file of {SHORT:g} s, whole process, {runtime}"] = ", ".join(
                f"{run['seconds']:.2f} s and {run['peak_mb']:.0f} MB" for run in runs
            )
        report.goals = [
            Goal("3 times the throughput of batches of 32", f"{ratio:.2f} times", ratio >= 3),
            Goal("scores equal to 1e-4", f"{worst:.1e}", worst <= 1e-4),
            Goal("one short file in under 0.6 s", f"{seconds:.2f} s", seconds < 0.6),
            Goal("one short file in under 250 MB", f"{memory:.0f} MB", memory < 250),
        ]
        report.finish()


if __name__ == "__main__":
    main()
