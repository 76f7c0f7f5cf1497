"""Training steps: DistilMOS against plain fine-tuning with the same code, and against SHEET's SSL-MOS trainer.

SHEET has no Whisper. With whisper_tiny_en the sides are precisions, and one or two runs at a time.

Rates are seconds of audio per second after the first steps, without padding; they include reading audio.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean, median

import numpy as np
from checkpoints import write_hubert
from corpus import make_corpus, mixed_lengths, pack_audio
from harness import HERE, Goal, Report, Side, parser, run_text

from distilmos.data.archive import open_archive
from distilmos.data.audio import SAMPLE_RATE, audio_seconds
from distilmos.data.datadir import Utterance
from distilmos.ssl.load import load_ssl
from distilmos.tokens.info import TokenInfo
from distilmos.tokens.kmeans import CLUSTERS
from distilmos.training.batching import BatchOrder

WHISPER = "whisper_tiny_en"
BATCH_SECONDS = 60.0  # of the runs with Whisper
CONF = HERE.parents[1] / "conf"
BVCC_SECONDS = 24000.0  # about the size of the training set; padding depends on the number of lengths
BATCH = 16  # utterances in a batch of SHEET's SSL-MOS


def main() -> None:
    """Measure and report."""
    options = parser(__doc__, repeats=3)
    sizes = ("base", "tiny", WHISPER)
    options.add_argument("--size", choices=sizes, default="base", help="HuBERT's size, or an encoder (default: base)")
    options.add_argument("--seconds", type=float, default=320.0, help="seconds of audio in the corpus (default: 320)")
    options.add_argument("--steps", type=int, default=4, help="measured steps per run (default: 4)")
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        (_compare_precisions if args.size == WHISPER else _compare)(args, Path(scratch))


def _compare(args: argparse.Namespace, work: Path) -> None:
    encoder = write_hubert(work / "encoder.pt", base=args.size == "base")
    lengths = mixed_lengths(args.seconds)
    audio = make_corpus(work / "wav", lengths, args.speech)
    _prepare(work, str(work / "encoder.pt"))
    width = load_ssl(work / "encoder.pt").config.embed_dim
    budget = BATCH * fmean(
        lengths
    )  # padded seconds in our batches; as many as the seconds of SHEET's batches without padding
    many = [round(length * SAMPLE_RATE) for length in mixed_lengths(BVCC_SECONDS)]
    order = BatchOrder(many, round(budget * SAMPLE_RATE), seed=1)
    waste = fmean(_waste(order, epoch) for epoch in range(5))
    report = Report(
        name=f"training_{args.size}",
        title="Training steps",
        work=f"{audio}; {encoder}; front end frozen, float32; {args.steps} steps per run after the first two (SHEET: "
        f"after the first). Batches: SHEET {BATCH} utterances in random order, ours {budget:.0f} padded seconds with "
        "utterances of similar length.",
    )
    shares: list[float] = []

    def ours(model: str) -> dict[str, float]:
        figures, share = _train(work, model, str(work / "encoder.pt"), budget, args.steps)
        shares.append(share)
        return figures

    sides = [
        Side(
            "SHEET SSL-MOS",
            "tools/bench/sheet_steps.py: the trainer of sheet-sqa",
            lambda: _sheet(work, args, width),
        ),
        Side("sslmos", "`distilmos train`, conf/sslmos.yaml: plain fine-tuning with our code", lambda: ours("sslmos")),
        Side(
            "distilmos",
            "`distilmos train`, conf/distilmos.yaml: with the token loss of all layers",
            lambda: ours("distilmos"),
        ),
    ]
    report.measure(sides, args.repeats)
    pairs = zip(report.runs["distilmos"], report.runs["sslmos"], strict=True)
    cost = median(ours["seconds"] / plain["seconds"] for ours, plain in pairs) - 1
    speed = median(report.ratio("distilmos"))
    report.facts = {
        "the token loss costs": f"{100 * cost:.1f} % of a step",
        "waiting for the data loader": f"{100 * max(shares):.2f} % of a step at most",
        f"padding of our batches, corpus of {len(many)} recordings": f"{100 * waste:.1f} % of the padded audio",
    }
    if args.size == "base":  # with a small encoder, the heads are half of the network
        report.goals.append(Goal("token loss costs at most 5 %", f"{100 * cost:.1f} %", cost <= 0.05))
    report.goals += [
        Goal("DistilMOS 1.5 times as fast as SHEET's SSL-MOS", f"{speed:.2f} times", speed >= 1.5),
        Goal("padding at most 5 %", f"{100 * waste:.1f} %", waste <= 0.05),
    ]
    report.finish()


def _compare_precisions(args: argparse.Namespace, work: Path) -> None:
    audio = make_corpus(work / "wav", mixed_lengths(args.seconds), args.speech)
    _prepare(work, WHISPER)
    cores = len(os.sched_getaffinity(0))
    report = Report(
        name=f"training_{WHISPER}",
        title="Training steps",
        work=f"{audio}; {WHISPER}, front end frozen; {args.steps} steps of {BATCH_SECONDS:g} padded seconds per run, "
        f"after the first two; {cores} cores.",
    )

    def one(precision: str) -> dict[str, float]:
        return _train(work, "distilmos", WHISPER, BATCH_SECONDS, args.steps, f"precision={precision}")[0]

    def one_per_core() -> dict[str, float]:
        with ThreadPoolExecutor(cores) as pool:
            runs = pool.map(
                lambda core: _train(
                    work, "distilmos", WHISPER, BATCH_SECONDS, args.steps, "precision=bfloat16", core=core
                )[0],
                range(cores),
            )
            pace = sum(run["audio_per_second"] for run in runs)
        return {"seconds": 1 / pace, "audio_per_second": pace}

    sides = [
        Side("float32", f"one `distilmos train` on {cores} cores, precision float32", lambda: one("float32")),
        Side("bfloat16", "the same with precision bfloat16", lambda: one("bfloat16")),
        Side("bfloat16, one run for each core", "runs of one thread at the same time; the sum", one_per_core),
    ]
    report.measure(sides, args.repeats)
    best = max(median(run["audio_per_second"] for run in runs) for runs in report.runs.values())
    report.goals = [Goal("training whisper_tiny_en: at least 40 s of audio per second", f"{best:.0f} s", best >= 40)]
    report.finish()


def _prepare(work: Path, ssl: str) -> None:
    """Write the data directory of stage 1, random tokens for the encoder `ssl`, and SHEET's list."""
    scores = np.random.default_rng(0).uniform(1, 5, 100000)
    paths = sorted((work / "wav").iterdir())
    rated = [Utterance(p.stem, p, f"system{n % 5}", float(scores[n])) for n, p in enumerate(paths)]
    pack_audio(rated, work / "raw")
    # Scoring the dev set at the end is not measured, so the set is small.
    pack_audio(rated[:6], work / "dev")
    encoder = load_ssl(ssl)
    TokenInfo(ssl, encoder.fingerprint(), encoder.config.num_layers, CLUSTERS, "random").write(work / "tokens")
    random = np.random.default_rng(1)
    for layer in range(1, encoder.config.num_layers + 1):
        with open_archive(work / "tokens" / f"layer{layer}") as archive:
            for path in paths:
                frames = encoder.config.num_frames(round(audio_seconds(path) * SAMPLE_RATE))
                archive.write(path.stem, random.integers(0, CLUSTERS, frames).astype(np.int32))
    with (work / "sheet.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["wav_path", "system_id", "sample_id", "score", "listener_id", "listener_idx"])
        for number, (path, utterance) in enumerate(zip(paths, rated, strict=True)):
            writer.writerow([path, utterance.system, path.stem, scores[number], "l0", 0])


def _waste(order: BatchOrder, epoch: int) -> float:
    """Return the share of padding in the padded samples of an epoch."""
    batches = [[order.lengths[member] for member in plan.members] for plan in order.epoch(epoch)]
    return 1 - sum(map(sum, batches)) / sum(max(batch) * len(batch) for batch in batches)


def _sheet(work: Path, args: argparse.Namespace, width: int) -> dict[str, float]:
    command = [sys.executable, HERE / "sheet_steps.py", work / "encoder.pt", work / "sheet.csv", args.steps, width]
    done = json.loads(run_text(command, TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD="1").splitlines()[-1])
    return {"seconds": done["seconds"] / done["audio"], "audio_per_second": done["audio"] / done["seconds"]}


def _train(
    work: Path, model: str, ssl: str, budget: float, steps: int, *overrides: str, core: int | None = None
) -> tuple[dict[str, float], float]:
    """Return the rates of a run, and the share of a step that it waits for the data loader.

    With `core`, the run has one thread, and a directory of its own.
    """
    out = work / f"exp{'' if core is None else core}"
    shutil.rmtree(out, ignore_errors=True)
    settings = {
        "ssl_model": ssl,
        "batch_seconds": budget,
        "max_steps": steps + 2,
        "warmup_steps": 1,
        "log_every": 1,
        "eval_every": steps + 3,
        "checkpoint_every": steps + 3,
    }
    command: list[str | Path | int] = ["distilmos", "train", "--config", CONF / f"{model}.yaml"]
    command += ["--out", out, "--device", "cpu"]
    for name, raw in (("train", "raw"), ("dev", "dev")):
        command += [f"--{name}", work / raw]
        command += [f"--{name}-tokens", work / "tokens"] if model == "distilmos" else []
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    for override in overrides:
        command += ["--set", override]
    run_text(command, **({} if core is None else {"OMP_NUM_THREADS": "1"}))
    events = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [event for event in events if event["event"] == "train"][2:]
    pace = fmean(1 / row["seconds_per_second"] for row in rows)
    return {"seconds": pace, "audio_per_second": 1 / pace}, fmean(row["data_wait"] for row in rows)


if __name__ == "__main__":
    main()
