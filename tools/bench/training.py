"""Training steps: DistilMOS against plain fine-tuning with the same code, and against SHEET's SSL-MOS trainer.

Rates are seconds of audio per second after the first steps, without padding; they include reading audio.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import sys
import tempfile
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
from distilmos.training.batching import BatchOrder

CLUSTERS = 200
CONF = HERE.parents[1] / "conf"
BVCC_SECONDS = 24000.0  # about the size of the training set; padding depends on the number of lengths
BATCH = 16  # utterances in a batch of SHEET's SSL-MOS


def main() -> None:
    """Measure and report."""
    options = parser(__doc__, repeats=3)
    options.add_argument("--size", choices=("base", "tiny"), default="base", help="size of the encoder (default: base)")
    options.add_argument("--seconds", type=float, default=320.0, help="seconds of audio in the corpus (default: 320)")
    options.add_argument("--steps", type=int, default=4, help="measured steps per run (default: 4)")
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        _compare(args, Path(scratch))


def _compare(args: argparse.Namespace, work: Path) -> None:
    encoder = write_hubert(work / "encoder.pt", base=args.size == "base")
    lengths = mixed_lengths(args.seconds)
    audio = make_corpus(work / "wav", lengths, args.speech)
    _prepare(work)
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
        figures, share = _train(work, model, budget, args.steps)
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


def _prepare(work: Path) -> None:
    """Write the data directory of stage 1, random tokens, and SHEET's list."""
    scores = np.random.default_rng(0).uniform(1, 5, 100000)
    paths = sorted((work / "wav").iterdir())
    rated = [Utterance(p.stem, p, f"system{n % 5}", float(scores[n])) for n, p in enumerate(paths)]
    pack_audio(rated, work / "raw")
    # Scoring the dev set at the end is not measured, so the set is small.
    pack_audio(rated[:6], work / "dev")
    encoder = load_ssl(work / "encoder.pt")
    TokenInfo("encoder.pt", encoder.fingerprint(), encoder.config.num_layers, CLUSTERS, "random").write(work / "tokens")
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


def _train(work: Path, model: str, budget: float, steps: int) -> tuple[dict[str, float], float]:
    """Return the rates of a run, and the share of a step that it waits for the data loader."""
    out = work / "exp"
    shutil.rmtree(out, ignore_errors=True)
    settings = {
        "ssl_model": work / "encoder.pt",
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
    run_text(command)
    events = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [event for event in events if event["event"] == "train"][2:]
    pace = fmean(1 / row["seconds_per_second"] for row in rows)
    return {"seconds": pace, "audio_per_second": 1 / pace}, fmean(row["data_wait"] for row in rows)


if __name__ == "__main__":
    main()
