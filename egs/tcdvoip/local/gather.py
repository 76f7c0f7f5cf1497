"""Gather the scores of several models, seeds and protocols into one RESULTS.md."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from statistics import fmean
from typing import Any

from distilmos.data.tables import read_lines
from distilmos.errors import run_main
from distilmos.files import write_text
from distilmos.report.sweep import differences, score_table
from distilmos.scoring.results import Scored, count_line, read_metrics, read_scored, score_levels

TITLES = {"conditions": "In domain: unseen conditions of known degradation types"}


def root_of(protocol: str) -> Path:
    """Return the directory of a protocol's experiments."""
    return Path("exp") if protocol == "conditions" else Path("exp") / f"leave_{protocol}_out"


def experiment(protocol: str, model: str, seed: str) -> Path:
    """Return exp/<tag> of one training."""
    return root_of(protocol) / f"{model}_seed{seed}"


def gather(protocols: list[str], models: list[str], seeds: list[str], references: list[str]) -> str:
    """Return the page.

    Raises:
        InputError: if a training has not been scored.
    """
    command = (
        f'./study.sh --protocols "{" ".join(protocols)}" --models "{" ".join(models)}" --seeds "{" ".join(seeds)}"'
        + (f' --references "{" ".join(references)}"' if references else "")
    )
    parts = [
        "# TCD-VoIP: DistilMOS and plain fine-tuning\n",
        f"Made by `{command}`; each training's own report is `exp/.../report.html`. In brackets: 95 % bootstrap "
        "intervals over utterances or systems of the test set. `mean` is the mean over seeds and their standard "
        "deviation. `distilmos` is the full model, `sslmos` the mean of the last layer with a linear output.\n",
        _how([experiment(p, m, s) for p in protocols for m in models for s in seeds]),
    ]
    for protocol in protocols:
        parts += _protocol(protocol, models, seeds, references)
    parts += ["## Settings\n", *(_settings(conf) for conf in dict.fromkeys(map(_conf, models)))]
    return "\n".join(parts)


def _how(experiments: list[Path]) -> str:
    starts = [event for path in experiments for event in _events(path) if event["event"] == "start"]
    commits = sorted({f"`{start['commit']}`" for start in starts})
    times = [start["time"] for start in starts]
    hardware = starts[0]["hardware"]
    return (
        f"- commit: {', '.join(commits)}\n"
        f"- hardware: {hardware['gpu'] or 'no GPU'}; {hardware['cpu']}, {hardware['threads']} thread(s) a training; "
        f"PyTorch {hardware['torch']}, Python {hardware['python']}\n"
        f"- trainings started: {min(times)} to {max(times)}\n"
    )


def _events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in read_lines(path / "log.jsonl")]


def _protocol(protocol: str, models: list[str], seeds: list[str], references: list[str]) -> list[str]:
    """Return the section of one protocol."""
    title = TITLES.get(protocol, f"Out of domain: {protocol} held out")
    parts = [f"## {title}\n"]
    results = {(m, s): experiment(protocol, m, s) / "results" / "test" for m in models for s in seeds}
    parts.append(count_line(read_metrics(results[models[0], seeds[0]])) + "\n")
    parts.append(score_table({key: read_metrics(path) for key, path in results.items()}, models, seeds))
    published = {(name, "-"): root_of(protocol) / "zero_shot" / name / "results" / "test" for name in references}
    if published:
        parts.append("Published models as they are (zero-shot):\n")
        parts.append(score_table({key: read_metrics(path) for key, path in published.items()}, references, ["-"]))
    if protocol != "conditions":
        own = {
            key: score_levels([row for row in read_scored(path) if row.group == protocol])
            for key, path in (results | published).items()
        }
        example = _of_group(results[models[0], seeds[0]], protocol)
        parts.append(
            f"Of these the {len(example)} utterances ({len({r.system for r in example})} conditions) with {protocol} "
            "itself: the undegraded and MNRU conditions that every type repeats are left out here.\n"
        )
        parts.append(score_table(own, models, seeds))
        if published:
            parts.append(score_table(own, references, ["-"]))
    parts += differences(results, models, seeds)
    elapsed = {m: fmean(_elapsed(experiment(protocol, m, s)) for s in seeds) for m in models}
    parts.append("Training time: " + ", ".join(f"{m} {seconds / 60:.1f} min" for m, seconds in elapsed.items()) + ".\n")
    return parts


def _conf(model: str) -> str:
    """Return the configuration's name of CONF[+key=value][@option=value]..."""
    return re.split("[+@]", model)[0]


def _of_group(path: Path, group: str) -> list[Scored]:
    return [row for row in read_scored(path) if row.group == group]


def _elapsed(path: Path) -> float:
    return float(next(event["elapsed_seconds"] for event in reversed(_events(path)) if event["event"] == "end"))


def _settings(conf: str) -> str:
    path = Path("conf") / f"{conf}.yaml"
    text = "\n".join(read_lines(path))
    return f"`{path}`, the rest as in `../../conf/distilmos.yaml`:\n\n```yaml\n{text}\n```\n"


def main() -> None:
    """Read the arguments and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--protocols", "--models", "--seeds"):
        parser.add_argument(name, required=True, type=str.split)
    parser.add_argument("--references", type=str.split, default=[])
    parser.add_argument("--out", required=True, metavar="FILE")
    args = parser.parse_args()
    write_text(args.out, gather(args.protocols, args.models, args.seeds, args.references))
    print(args.out)


if __name__ == "__main__":
    run_main(main)
