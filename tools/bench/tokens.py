"""Tokens of all layers: stages 2 to 4 of the recipes against fairseq's simple_kmeans, layer by layer.

The reference runs fairseq's own scripts for each layer: dump_hubert_feature.py (one utterance at a time, all frames in
float32), learn_kmeans.py (MiniBatchKMeans, the defaults of the script) and dump_km_label.py. With --reference-layers
its time for the other layers is interpolated: the time of the dump grows linearly with the layer number, and that of
k-means and labels does not depend on it.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import joblib
import numpy as np
import soundfile
import torch
from checkpoints import write_hubert
from corpus import make_corpus, mixed_lengths, pack_audio
from harness import HERE, Goal, Report, Side, parser, run_process, size_of

from distilmos.data.archive import load_array, read_scp
from distilmos.data.datadir import Utterance
from distilmos.ssl.load import load_ssl
from distilmos.tokens.info import TokenInfo
from distilmos.tokens.kmeans import CLUSTERS, load_centroids
from distilmos.tokens.labels import nearest

JOBS = 2  # of one thread each, as in the recipes
OUR_STEPS = {"feats": "feats", "kmeans": "kmeans", "tokens": "tokens raw"}  # figure -> step of `token_stages`


def main() -> None:
    """Measure and report."""
    options = parser(__doc__, repeats=1)
    options.add_argument("--size", choices=("base", "tiny"), default="base", help="size of the encoder (default: base)")
    options.add_argument("--checkpoint", type=Path, help="fairseq checkpoint to use instead of random weights")
    options.add_argument("--seconds", type=float, default=1200.0, help="seconds of audio (default: 1200)")
    options.add_argument(
        "--reference-layers", type=int, nargs="+", help="layers to run the reference for (default: all)"
    )
    options.add_argument(
        "--growth",
        type=int,
        nargs="*",
        default=(),
        metavar="N",
        help="also run ours on N times the audio, to show the growth of memory and disk",
    )
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        _compare(args, Path(scratch))


def _compare(args: argparse.Namespace, work: Path) -> None:
    checkpoint = work / "encoder.pt"
    if args.checkpoint:
        shutil.copyfile(args.checkpoint, checkpoint)
        encoder = f"{args.checkpoint.name} ({args.size})"
    else:
        encoder = write_hubert(checkpoint, base=args.size == "base")
    layers = load_ssl(checkpoint).config.num_layers
    chosen = args.reference_layers or list(range(1, layers + 1))
    audio = _prepare(work / "x1", mixed_lengths(args.seconds), args.speech)
    report = Report(
        name=f"tokens_{args.size}",
        title=f"Tokens of all {layers} layers",
        work=f"{audio}; {encoder}, K = {CLUSTERS}. Audio is 16 kHz, 16 bits on both sides; ours is in the "
        "archive of stage 1, which is not timed.",
    )

    def reference() -> dict[str, float]:
        each = {layer: _reference(work, checkpoint, layer) for layer in chosen}
        figures = {
            "seconds": float(np.interp(range(1, layers + 1), chosen, [e["seconds"] for e in each.values()]).sum()),
            "peak_mb": max(e["peak_mb"] for e in each.values()),
            "disk_mb": layers * each[chosen[0]]["disk_mb"],
        }
        for step in ("dump", "kmeans", "label"):
            figures[step] = float(np.interp(range(1, layers + 1), chosen, [e[step] for e in each.values()]).sum())
        return figures

    sides = [
        Side(
            "simple_kmeans",
            "fairseq's examples/hubert/simple_kmeans for each layer: dump_hubert_feature.py, learn_kmeans.py and "
            "dump_km_label.py with their defaults, one shard, torch's default number of threads; run for layers "
            + ", ".join(map(str, chosen)),
            reference,
        ),
        Side(
            "distilmos",
            f"`distilmos dump-feats`, `learn-kmeans` and `dump-tokens` as stages 2 to 4 run them: {JOBS} jobs of one "
            "thread; 40,000 frames of each layer for k-means",
            lambda: _ours(work / "x1", checkpoint),
        ),
    ]
    report.measure(sides, args.repeats)
    agreement, inertia = _quality(work, layers, chosen)
    speed = median(report.ratio("distilmos"))
    disk = 1 / median(report.ratio("distilmos", "disk_mb"))
    report.facts = {
        "agreement of tokens given our centroids": ", ".join(f"layer {n} {a:.5f}" for n, a in agreement.items()),
        "inertia, ours / reference, over all frames": ", ".join(f"layer {n} {r:.4f}" for n, r in inertia.items()),
    }
    left = median(run["disk_mb"] for run in report.runs["simple_kmeans"])
    for times in args.growth:
        _prepare(work / f"x{times}", mixed_lengths(times * args.seconds, seed=times), args.speech)
        figures = _ours(work / f"x{times}", checkpoint)
        shutil.rmtree(work / f"x{times}")
        # The dump of the reference grows with the audio.
        disk = figures["disk_mb"] / left / times
        grown = figures["peak_mb"] / median(run["peak_mb"] for run in report.runs["distilmos"])
        shown = [f"{name} {value:.4g}" for name, value in figures.items()]
        report.facts[f"{times} times the audio"] = ", ".join([*shown, f"disk {100 * disk:.1f} % of the reference"])
    at = f", at {args.growth[-1]} times the audio" if args.growth else ""
    report.goals = [
        Goal("at least 8 times less wall time", f"{speed:.2f} times", speed >= 8),
        Goal(f"at most 2 % of the disk{at}", f"{100 * disk:.1f} %", disk <= 0.02),
        Goal("99.9 % of tokens agree", f"{100 * min(agreement.values()):.3f} %", min(agreement.values()) >= 0.999),
        Goal("inertia no worse in any layer", f"{max(inertia.values()):.4f} times", max(inertia.values()) <= 1),
    ]
    if args.growth:
        report.goals.append(Goal(f"memory does not grow{at}", f"{grown:.2f} times", grown < 1.1))
    report.finish()


def _prepare(directory: Path, lengths: list[float], speech: Path | None) -> str:
    """Write recordings, fairseq's list of them, and the data directory of stage 1 with the packed audio."""
    audio = make_corpus(directory / "wav", lengths, speech)
    paths = sorted((directory / "wav").iterdir())
    rows = [f"{path.name}\t{soundfile.info(path).frames}\n" for path in paths]
    (directory / "train.tsv").write_text(f"{directory / 'wav'}\n" + "".join(rows), encoding="utf-8")
    pack_audio([Utterance(path.stem, path, "system") for path in paths], directory / "raw")
    return audio


def _reference(work: Path, checkpoint: Path, layer: int) -> dict[str, float]:
    """Run the three scripts for one layer; keep features and labels for `_quality`."""
    source, feats, labels = work / "x1", work / f"feats{layer}", work / f"labels{layer}"
    model = work / f"km{layer}"
    for directory in (feats, labels):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
    steps = {
        "dump": ["dump_hubert_feature", source, "train", checkpoint, layer, 1, 0, feats],
        "kmeans": ["learn_kmeans", feats, "train", 1, model, CLUSTERS],
        "label": ["dump_km_label", feats, "train", model, 1, 0, labels],
    }
    # The scripts of fairseq need torch.load without its restriction to weights.
    unrestricted = {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    done = {
        name: run_process([sys.executable, HERE / "simple_kmeans.py", *map(str, words)], **unrestricted)
        for name, words in steps.items()
    }
    return {
        "seconds": sum(step["seconds"] for step in done.values()),
        "peak_mb": max(step["peak_mb"] for step in done.values()),
        "disk_mb": sum(path.stat().st_size for where in (feats, labels) for path in where.iterdir()) / 1e6,
        **{name: step["seconds"] for name, step in done.items()},
    }


def token_stages(raw: Path, checkpoint: Path, out: Path, others: Sequence[Path] = ()) -> dict[str, dict[str, float]]:
    """Run stages 2 to 4 as the recipes do, with JOBS parallel jobs of one thread.

    Args:
        raw: data directory of stage 1.
        checkpoint: checkpoint of the encoder.
        out: directory for feats, kmeans and tokens_SET.
        others: further data directories to write tokens for.

    Returns:
        step -> "seconds" and "peak_mb".
    """
    feats, kmeans = out / "feats", out / "kmeans"
    shutil.rmtree(out, ignore_errors=True)
    shared = ["--ssl", checkpoint, "--job", "JOB", "--jobs", JOBS]
    learn = ["learn-kmeans", "--feats", feats, "--layer", "JOB", "--clusters", CLUSTERS, "--out", kmeans]
    steps: dict[str, tuple[int, list[object]]] = {
        "feats": (JOBS, ["dump-feats", *shared, "--data", raw, "--out", feats]),
        "merge": (0, ["merge-archives", feats, "--jobs", JOBS]),
        "kmeans": (load_ssl(checkpoint).config.num_layers, learn),
        "table": (0, ["kmeans-table", kmeans]),
    }
    for data in (raw, *others):
        tokens = out / f"tokens_{data.name}"
        dump = ["dump-tokens", *shared, "--data", data, "--kmeans", kmeans, "--out", tokens]
        steps[f"tokens {data.name}"] = (JOBS, dump)
        steps[f"merge {data.name}"] = (0, ["merge-archives", tokens, "--jobs", JOBS])
    done = {}
    for name, (count, words) in steps.items():
        log = out / "log" / f"{name.replace(' ', '_')}.JOB.log"
        array: list[str | Path] = ["--max-jobs-run", str(JOBS), f"JOB=1:{count or 1}", log]
        done[name] = run_process(["distilmos", "run", *array, "distilmos", *map(str, words)])
    return done


def _ours(directory: Path, checkpoint: Path) -> dict[str, float]:
    done = token_stages(directory / "raw", checkpoint, directory / "ours")
    return {
        "seconds": sum(step["seconds"] for step in done.values()),
        "peak_mb": max(step["peak_mb"] for step in done.values()),
        "disk_mb": size_of(directory / "ours") / 1e6,
        **{name: done[step]["seconds"] for name, step in OUR_STEPS.items()},
    }


def _quality(work: Path, layers: int, chosen: list[int]) -> tuple[dict[int, float], dict[int, float]]:
    """Compare with the reference on the frames that fairseq dumped.

    Returns:
        layer -> share of our tokens that equal those of our centroids for fairseq's frames, and
        layer -> ratio of the inertia of our centroids to that of the reference, over all of these frames.
    """
    ours = work / "x1" / "ours"
    centroids = load_centroids(ours / "kmeans", TokenInfo.read(ours / "kmeans"))
    assert len(centroids) == layers
    agreement, inertia = {}, {}
    for layer in chosen:
        frames = torch.from_numpy(np.load(work / f"feats{layer}" / "train_0_1.npy"))
        centres = torch.from_numpy(centroids[layer - 1])
        locations = read_scp(ours / "tokens_raw" / f"layer{layer}.scp")
        tokens = np.concatenate([load_array(location) for _, location in sorted(locations.items())])
        agreement[layer] = float((nearest(frames, centres).numpy() == tokens).mean())
        theirs = torch.from_numpy(joblib.load(work / f"km{layer}").cluster_centers_).float()
        inertia[layer] = _inertia(frames, centres) / _inertia(frames, theirs)
    return agreement, inertia


def _inertia(frames: torch.Tensor, centroids: torch.Tensor) -> float:
    parts = [(part - centroids[nearest(part, centroids)]).double().square().sum() for part in frames.split(10000)]
    return float(sum(parts)) / len(frames)


if __name__ == "__main__":
    main()
