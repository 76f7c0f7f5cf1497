"""`distilmos plan` against the planned stages: time, memory and disk, for two sizes of a corpus.

The stages run as in the recipes: stages 2 to 4 with two parallel jobs of one thread, stages 5 and 6 with two threads.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
from checkpoints import write_hubert
from corpus import make_corpus, mixed_lengths, pack_audio
from harness import HERE, Goal, Report, Side, parser, run_plan, run_process, size_of
from tokens import JOBS, token_stages

from distilmos.data.datadir import Utterance
from distilmos.tokens.kmeans import CLUSTERS

THREADS = 2
TOLERANCE = 0.2
MEMORY_BOUND = 2.5  # the plan gives an upper bound of memory, at most this many times the real one
STEPS_PER_SECOND = 0.02  # training steps per second of audio
SHARES = {"train": 0.8, "dev": 0.1, "test": 0.1}


def main() -> None:
    """Measure and report."""
    options = parser(__doc__, repeats=1)
    options.add_argument("--size", choices=("base", "tiny"), default="tiny", help="size of the encoder (default: tiny)")
    options.add_argument(
        "--seconds", type=float, nargs=2, default=(900.0, 3600.0), help="seconds of audio (default: 900 and 3600)"
    )
    args = options.parse_args()
    for seconds in args.seconds:
        with tempfile.TemporaryDirectory() as scratch:
            _compare(args, Path(scratch), seconds)


def _compare(args: argparse.Namespace, work: Path, seconds: float) -> None:
    encoder = write_hubert(work / "encoder.pt", base=args.size == "base")
    audio = make_corpus(work / "wav", mixed_lengths(seconds), args.speech)
    scores = np.random.default_rng(0)
    paths = sorted((work / "wav").iterdir())
    rated = [Utterance(p.stem, p, f"system{n % 7}", float(scores.uniform(1, 5))) for n, p in enumerate(paths)]
    ends = [round(len(rated) * share) for share in np.cumsum([0.0, *SHARES.values()])]
    for name, first, last in zip(SHARES, ends, ends[1:], strict=False):
        pack_audio(rated[first:last], work / name)
    steps = max(4, round(STEPS_PER_SECOND * seconds))
    settings: list[str | Path] = ["--config", HERE.parents[1] / "conf" / "distilmos.yaml", "--device", "cpu"]
    for pair in (
        f"ssl_model={work / 'encoder.pt'}",
        f"max_steps={steps}",
        "warmup_steps=1",
        f"eval_every={steps // 2}",
    ):
        settings += ["--set", pair]
    report = Report(
        f"plan_{args.size}_{seconds:g}s",
        "`distilmos plan` and the planned stages",
        f"{audio}: 80 % for training, 10 % each for dev and test; {encoder}; {steps} training steps.",
    )
    planned = _planned(work, settings)

    def stages() -> dict[str, float]:
        figures = _run(work, settings)
        for name, value in figures.items():
            report.facts[f"{name}: plan / real"] = f"{planned[name] / value:.2f} ({planned[name]:.4g} / {value:.4g})"
        return {"seconds": figures["seconds"]}

    report.measure([Side("stages", "stages 2 to 6, one after the other", stages)], args.repeats)
    ratios = {name: float(text.split()[0]) for name, text in report.facts.items()}
    chosen = [ratio for name, ratio in ratios.items() if name.partition(":")[0].endswith("mb")]
    held = all(1 <= ratio <= MEMORY_BOUND for ratio in chosen)
    text = f"memory of each stage at most that of the plan, and at least 1/{MEMORY_BOUND:g} of it"
    report.goals.append(Goal(text, f"plan / real {min(chosen):.2f} to {max(chosen):.2f}", held))
    disk = [ratio for name, ratio in ratios.items() if name.partition(":")[0].endswith("disk")]
    for text, chosen in (("total time", [ratios["seconds: plan / real"]]), ("disk of each stage", disk)):
        worst = max(chosen, key=lambda ratio: abs(np.log(ratio)))
        report.goals.append(Goal(f"{text} within 20 %", f"{worst:.2f} times", abs(worst - 1) <= TOLERANCE))
    report.finish()


def _planned(work: Path, settings: list[str | Path]) -> dict[str, float]:
    sets: list[str | Path] = ["--train", work / "train", "--dev", work / "dev", "--test", work / "test"]
    plan = run_plan([*settings, *sets, "--clusters", str(CLUSTERS)], JOBS, THREADS, work / "plan.json")
    figures: dict[str, float] = {}
    for full_name, stage in plan.items():
        name = full_name.partition(" ")[2]
        if stage["seconds"] is not None:
            figures[f"{name} seconds"] = stage["seconds"]
        if stage["memory"] is not None:
            figures[f"{name} mb"] = stage["memory"] / 1e6
        figures[f"{name} disk"] = stage["disk"] / 1e6
    figures["seconds"] = sum(value for name, value in figures.items() if name.endswith(" seconds"))
    return figures


def _run(work: Path, settings: list[str | Path]) -> dict[str, float]:
    """Run stages 2 to 6; return their figures, with the names of `_planned`."""
    done = token_stages(work / "train", work / "encoder.pt", work / "tokens", others=[work / "dev"])
    figures = {}
    for stage, steps in {
        "features": ("feats",),
        "k-means": ("kmeans",),
        "tokens": ("tokens train", "tokens dev"),
    }.items():
        figures[f"{stage} seconds"] = sum(done[step]["seconds"] for step in steps)
        figures[f"{stage} mb"] = max(done[step]["peak_mb"] for step in steps)
    figures["features disk"] = size_of(work / "tokens" / "feats") / 1e6
    figures["tokens disk"] = sum(size_of(work / "tokens" / f"tokens_{name}") for name in ("train", "dev")) / 1e6
    out = work / "exp"
    shutil.rmtree(out, ignore_errors=True)
    sets: list[str | Path] = []
    for name in ("train", "dev"):
        sets += [f"--{name}", work / name, f"--{name}-tokens", work / "tokens" / f"tokens_{name}"]
    threads = ["distilmos", "run", "--num-threads", str(THREADS)]
    train = run_process([*threads, work / "train.log", "distilmos", "train", *settings, *sets, "--out", out])
    predict: list[str | Path] = ["distilmos", "predict", work / "test", "--model", out / "final"]
    test = run_process([*threads, work / "predict.log", *predict, "--out", work / "utt2mos"])
    for name, step in (("training", train), ("prediction", test)):
        figures[f"{name} seconds"], figures[f"{name} mb"] = step["seconds"], step["peak_mb"]
    figures["training disk"] = (size_of(out / "checkpoints") + size_of(out / "final")) / 1e6
    figures["audio disk"] = sum((work / name / "wav.ark").stat().st_size for name in SHARES) / 1e6
    figures["seconds"] = sum(value for name, value in figures.items() if name.endswith(" seconds"))
    return figures


if __name__ == "__main__":
    main()
