"""Run a recipe on a generated corpus of the published size, and compare it with `distilmos plan`.

The corpus has the layout and the numbers of BVCC or SOMOS, with durations of 1 to 7 s (4 s in the mean). The encoder is
a HuBERT Base written by fairseq, or a WavLM Base+ written by transformers, with random weights. The test sets of the
other recipes are there, too. Stage 5 has the configuration of the encoder as it stands, but 20 steps; it is stopped
after some by SIGTERM, and goes on. `joint` trains on both corpora, and is not compared with a plan.

WORK keeps everything, so the same command continues an interrupted rehearsal. The result is in tools/bench/results.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "tools" / "bench"), str(ROOT / "tests")]

from checkpoints import write_hubert  # noqa: E402
from harness import Goal, Report, run_plan, run_process, size_of  # noqa: E402
from helpers.corpora import (  # noqa: E402
    FULL_BVCC,
    FULL_SOMOS,
    write_bvcc,
    write_hablamos,
    write_nisqa,
    write_somos,
    write_ttsds2,
)
from session import processes_of  # noqa: E402

from distilmos.errors import PREEMPTED  # noqa: E402
from distilmos.files import replaced_directory, write_json  # noqa: E402
from distilmos.model.directory import LOG  # noqa: E402
from distilmos.runner.log import End, read_end  # noqa: E402

STEPS = 20
# The rest is as in the configuration, but for what would not happen in 20 steps.
SETTINGS = (f"max_steps={STEPS}", "warmup_steps=2", "eval_every=10", "checkpoint_every=5", "log_every=1")
TOLERANCE = 0.25
RECIPES = {"bvcc": (FULL_BVCC, write_bvcc), "somos": (FULL_SOMOS, write_somos)}
# Test sets of other recipes: their layout matters here, not their size.
FOREIGN = {
    "nisqa": (write_nisqa, ("nisqa_for", "nisqa_p501", "nisqa_livetalk")),
    "hablamos": (write_hablamos, ("hablamos",)),
    "ttsds2": (write_ttsds2, ("ttsds2",)),
}
CONF = {"hubert": "hubert_base", "wavlm": "wavlm_base_plus"}  # encoder -> configuration
# Part of the plan -> logs of its jobs, and directories of its output; None if they hold other things, too.
PARTS: dict[str, tuple[str, tuple[str, ...] | None]] = {
    "2 features": ("dump/feats/log/dump_feats.*.log", ("dump/feats",)),
    "3 k-means": ("exp/kmeans*/log/learn_kmeans.*.log", None),
    "4 tokens": ("dump/*_*/*/log/dump_[tp]o*.*.log", ("dump/tokens_*", "dump/pooled_*")),
    "5 training": ("exp/rehearsal/log/train.log", ("exp/rehearsal/checkpoints", "exp/rehearsal/final")),
    "6 prediction": ("exp/rehearsal/results/*/log/predict.log", None),
}


def main() -> None:
    """Rehearse and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, metavar="WORK", help="directory of the corpora and all output")
    parser.add_argument("recipe", choices=(*RECIPES, "joint"))
    parser.add_argument("--encoder", choices=tuple(CONF), default="hubert", help="default: hubert")
    parser.add_argument("--share", type=float, default=1.0, metavar="S", help="of the utterances (default: 1)")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="parallel jobs, and CPU threads (default: 2)")
    parser.add_argument("--stop_stage", type=int, default=8, metavar="N", help="last stage (default: 8)")
    args = parser.parse_args()
    Rehearsal(args.work.resolve(), args.recipe, args.encoder, args.share, args.jobs).run(args.stop_stage)


@dataclass(frozen=True)
class Rehearsal:
    """A recipe at a share of its size.

    Attributes:
        work: directory of all files.
        name: a key of RECIPES, or "joint".
        encoder: a key of CONF.
        share: of the utterances.
        jobs: parallel jobs, and CPU threads.
    """

    work: Path
    name: str
    encoder: str
    share: float
    jobs: int

    @property
    def recipe(self) -> str:
        """The recipe that is run."""
        return "bvcc" if self.name == "joint" else self.name

    @property
    def root(self) -> Path:
        """The directory of data, dump and exp."""
        return self.work / f"{self.name}_{self.encoder}_{self.share:g}"

    @property
    def conf(self) -> Path:
        """The configuration of the encoder."""
        return ROOT / "conf" / f"{CONF[self.encoder]}.yaml"

    @property
    def model(self) -> Path:
        """The checkpoint, which is written first if it does not exist."""
        write = write_hubert_base if self.encoder == "hubert" else write_wavlm_base_plus
        directory = once(self.work / self.encoder, write)
        return directory / "model.pt" if self.encoder == "hubert" else directory

    def run(self, stop_stage: int) -> None:
        """Run all stages, each once; compare them with the plan, and write the report."""
        others = [self.prepared(name) for name in FOREIGN]
        if self.name == "joint":
            others.append(self.prepared("somos"))
        command = self.command(self.recipe, self.root)
        command += ["--tag", "rehearsal", "--conf", self.conf]
        command += [word for setting in SETTINGS for word in ("--train_opts", setting)]
        for dump in others:
            command += ["--dumpdir_of", f"{dump.parent.name.partition('_')[0]}={dump}"]
        command += ["--test_sets", " ".join(["test", *(f"{n}/{s}" for n, (_, sets) in FOREIGN.items() for s in sets)])]
        if self.name == "joint":
            command += ["--train_sets", "train somos/train", "--dev_sets", "dev somos/dev"]
        report = Report(
            f"rehearsal_{self.root.name}",
            f"egs/{self.recipe} at {100 * self.share:g} % of the published size, and `distilmos plan`",
            f"{self.name}: generated speech of 1 to 7 s; {self.conf.name} with random weights and "
            f"{', '.join(SETTINGS)}, stopped by SIGTERM on the way; {self.jobs} jobs",
        )
        seconds: dict[str, float] = {}
        plan: dict[str, dict[str, float]] = {}
        kept = self.root / "rehearsal.json"
        if kept.exists():
            seconds, plan = json.loads(kept.read_text(encoding="utf-8"))
        for stage in map(str, range(stop_stage + 1)):
            if stage in seconds:
                continue
            if stage == "2" and self.name != "joint":
                plan = self.plan(others)
            one = [*command, "--stage", stage, "--stop_stage", stage]
            experiment = self.root / "exp" / "rehearsal"
            if stage == "5" and not checkpoints_of(experiment):
                stop_training(one, experiment)
            seconds[stage] = run_process(one)["seconds"]
            write_json(kept, [seconds, plan])
        report.facts = {f"stage {stage}, seconds": f"{value:.1f}" for stage, value in seconds.items()}
        compare(report, {name: part for name, part in plan.items() if name[0] in seconds}, self.root, self.jobs)
        report.finish()

    def corpus(self, name: str) -> Path:
        """Return the directory for --db_root; the corpus is written first if it does not exist."""
        if name in FOREIGN:
            path = once(self.work / "corpora" / name, FOREIGN[name][0])
        else:
            design, write = RECIPES[name]
            design = replace(design.scaled(self.share), seconds=7.0, shortest=1.0)
            path = once(self.work / "corpora" / f"{name}_{self.share:g}", partial(write, design=design))
        inside = list(path.iterdir())
        return inside[0] if len(inside) == 1 else path

    def command(self, recipe: str, root: Path) -> list[str | Path]:
        """Return the command of a recipe, with all output below `root`."""
        return [
            *(ROOT / "egs" / recipe / "run.sh", "--db_root", self.corpus(recipe), "--allow_partial", "true"),
            *("--datadir", root / "data", "--dumpdir", root / "dump", "--expdir", root / "exp"),
            *("--nj", str(self.jobs), "--num_threads", str(self.jobs)),
            *(("--ssl_model", self.model) if recipe in RECIPES else ()),
        ]

    def prepared(self, recipe: str) -> Path:
        """Run stages 0 and 1 of another recipe, unless this has been done; return its dumpdir."""
        root = self.work / (f"{recipe}_{self.share:g}" if recipe in RECIPES else recipe)
        done = root / "prepared"
        if not done.exists():
            run_process([*self.command(recipe, root), "--stop_stage", "1"])
            done.touch()
        return root / "dump"

    def plan(self, others: Sequence[Path]) -> dict[str, dict[str, float]]:
        """Return the plan: stage -> its figures, in seconds and bytes."""
        raw = self.root / "dump" / "raw"
        options: list[str | Path] = ["--config", self.conf, "--set", f"ssl_model={self.model}"]
        options += [word for setting in SETTINGS for word in ("--set", setting)]
        options += ["--train", raw / "train", "--dev", raw / "dev", "--test", raw / "test"]
        for path in sorted(path for dump in others for path in (dump / "raw").iterdir()):
            options += ["--test", path]
        return run_plan(options, self.jobs, self.jobs, self.root / "plan.json")


def once(path: Path, write: Callable[[Path], object]) -> Path:
    """Write the directory `path` unless it exists; return it."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced_directory(path) as new:
            write(new)
    return path


def write_hubert_base(directory: Path) -> None:
    """Write a fairseq checkpoint of HuBERT Base."""
    write_hubert(directory / "model.pt", base=True)


def write_wavlm_base_plus(directory: Path) -> None:
    """Write a WavLM of the size of Base and Base+ with transformers."""
    import torch
    from transformers import WavLMConfig, WavLMModel

    torch.manual_seed(0)
    WavLMModel(WavLMConfig()).save_pretrained(directory)


def checkpoints_of(experiment: Path) -> list[Path]:
    """Return the checkpoints of a run; with one, it has begun, and goes on from there."""
    return list((experiment / "checkpoints").glob("*.pt"))


def stop_training(command: Sequence[str | Path], experiment: Path) -> None:
    """Start training, and send SIGTERM to it after its first checkpoint; it must end with status 75."""
    process = subprocess.Popen(command, start_new_session=True)
    while process.poll() is None and not checkpoints_of(experiment):
        time.sleep(1)
    for number, words in processes_of(process.pid):
        if b"train" in words and b"run" not in words:
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(number, signal.SIGTERM)
    process.wait()
    log = experiment / "log" / "train.log"
    end = read_end(log)
    if end is None or end.exit_status != PREEMPTED:
        sys.exit(f"{log}: training did not end with status {PREEMPTED}")


def compare(report: Report, plan: Mapping[str, Mapping[str, float]], root: Path, parallel: int) -> None:
    """Add the figures of the plan beside the real ones, and the goals."""
    found: dict[str, list[float]] = {"seconds": [], "disk": [], "memory": []}
    for name, (logs, outputs) in PARTS.items():
        if name not in plan:
            continue
        real = figures_of(root, logs, parallel)
        if name == "5 training":
            end = json.loads((root / "exp" / "rehearsal" / LOG).read_text(encoding="utf-8").splitlines()[-1])
            real["seconds"] = end["elapsed_seconds"]  # with the part before SIGTERM
        if outputs:
            real["disk"] = sum(size_of(path) for pattern in outputs for path in root.glob(pattern))
        for what, value in real.items():
            ratio = plan[name][what] / value
            found[what].append(ratio)
            report.facts[f"stage {name}, {what}: plan / real"] = f"{ratio:.2f} ({plan[name][what]:.4g} / {value:.4g})"
    for what, ratios in found.items():
        if ratios:
            low, high = min(ratios), max(ratios)
            within = low >= 1 - TOLERANCE and high <= 1 + TOLERANCE
            goal, reached = ("never above the plan", low >= 1) if what == "memory" else ("within 25 %", within)
            report.goals.append(Goal(f"{what} of each stage {goal}", f"plan / real {low:.2f} to {high:.2f}", reached))


def figures_of(root: Path, pattern: str, parallel: int) -> dict[str, float]:
    """Return seconds and memory (bytes, of the largest process) of the jobs with these logs.

    Of the jobs of a directory, `parallel` run at a time; directories come one after the other.
    """
    directories: dict[Path, list[End]] = {}
    for path in root.glob(pattern):
        if (end := read_end(path)) is None:
            sys.exit(f"{path}: the job has not ended")
        directories.setdefault(path.parent, []).append(end)
    seconds = [[end.seconds for end in ends] for ends in directories.values()]
    return {
        "seconds": sum(max(sum(jobs) / parallel, *jobs) for jobs in seconds),
        "memory": max(end.peak_bytes for ends in directories.values() for end in ends),
    }


if __name__ == "__main__":
    main()
