"""Gather the scores of several models, seeds and protocols into one RESULTS.md."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from distilmos.data.tables import read_lines
from distilmos.errors import run_main
from distilmos.files import write_text
from distilmos.metrics import LEVELS
from distilmos.scoring.compare import compare_results
from distilmos.scoring.results import Scored, count_line, read_metrics, read_scored, score_levels
from distilmos.scoring.tables import bounds, markdown_table, number, with_interval

METRICS = ("LCC", "SRCC", "MSE")
TITLES = {"conditions": "In domain: unseen conditions of known degradation types"}


def experiment(protocol: str, model: str, seed: str) -> Path:
    """Return exp/<tag> of one training."""
    root = Path("exp") if protocol == "conditions" else Path("exp") / f"leave_{protocol}_out"
    return root / f"{model}_seed{seed}"


def gather(protocols: list[str], models: list[str], seeds: list[str]) -> str:
    """Return the page.

    Raises:
        InputError: if a training has not been scored.
    """
    command = (
        f'./study.sh --protocols "{" ".join(protocols)}" --models "{" ".join(models)}" --seeds "{" ".join(seeds)}"'
    )
    parts = [
        "# TCD-VoIP: DistilMOS and plain fine-tuning\n",
        f"Made by `{command}`; each training's own report is `exp/.../report.html`. In brackets: 95 % bootstrap "
        "intervals over utterances or systems of the test set. `mean` is the mean over seeds and their standard "
        "deviation. `distilmos` is the full model, `sslmos` the mean of the last layer with a linear output.\n",
        _how([experiment(p, m, s) for p in protocols for m in models for s in seeds]),
    ]
    for protocol in protocols:
        parts += _protocol(protocol, models, seeds)
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


def _protocol(protocol: str, models: list[str], seeds: list[str]) -> list[str]:
    """Return the section of one protocol."""
    title = TITLES.get(protocol, f"Out of domain: {protocol} held out")
    parts = [f"## {title}\n"]
    results = {(m, s): experiment(protocol, m, s) / "results" / "test" for m in models for s in seeds}
    parts.append(count_line(read_metrics(results[models[0], seeds[0]])) + "\n")
    parts.append(_score_table({key: read_metrics(path) for key, path in results.items()}, models, seeds))
    if protocol != "conditions":
        own = {
            key: score_levels([row for row in read_scored(path) if row.group == protocol])
            for key, path in results.items()
        }
        example = _of_group(results[models[0], seeds[0]], protocol)
        parts.append(
            f"Of these the {len(example)} utterances ({len({r.system for r in example})} conditions) with {protocol} "
            "itself: the undegraded and MNRU conditions that every type repeats are left out here.\n"
        )
        parts.append(_score_table(own, models, seeds))
    for first, other in _pairs(models):
        parts.append(f"Difference {first} - {other}, paired bootstrap:\n")
        parts.append(_difference_table(results, first, other, seeds))
    elapsed = {m: fmean(_elapsed(experiment(protocol, m, s)) for s in seeds) for m in models}
    parts.append("Training time: " + ", ".join(f"{m} {seconds / 60:.1f} min" for m, seconds in elapsed.items()) + ".\n")
    return parts


def _conf(model: str) -> str:
    """Return the configuration's name of CONF[+key=value]..."""
    return model.partition("+")[0]


def _pairs(models: list[str]) -> list[tuple[str, str]]:
    """Return which models to compare: what changes another one with that, and the first with all others."""
    pairs = []
    for i, model in enumerate(models[1:], start=1):
        changed = [other for other in models[:i] if model.startswith(f"{other}+")]
        pairs.append((model, max(changed, key=len)) if changed else (models[0], model))
    return pairs


def _of_group(path: Path, group: str) -> list[Scored]:
    return [row for row in read_scored(path) if row.group == group]


def _elapsed(path: Path) -> float:
    return float(next(event["elapsed_seconds"] for event in reversed(_events(path)) if event["event"] == "end"))


def _score_table(scores: dict[tuple[str, str], dict[str, Any]], models: list[str], seeds: list[str]) -> str:
    columns = [(level, name) for level in LEVELS for name in METRICS]
    rows = []
    for model in models:
        for seed in seeds:
            rows.append([model, seed, *(with_interval(scores[model, seed][level][name]) for level, name in columns)])
        if len(seeds) > 1:
            values = [[scores[model, seed][level][name]["value"] for seed in seeds] for level, name in columns]
            rows.append([f"**{model}**", "mean", *map(_mean, values)])
    return markdown_table(["model", "seed", *(f"{level} {name}" for level, name in columns)], rows, left=2)


def _mean(values: list[float | None]) -> str:
    """Return mean and standard deviation over seeds; a dash where a correlation is not defined for one of them."""
    defined = [value for value in values if value is not None]
    return f"{fmean(defined):.3f} ± {stdev(defined):.3f}" if len(defined) == len(values) else "-"


def _difference_table(results: dict[tuple[str, str], Path], first: str, other: str, seeds: list[str]) -> str:
    rows = []
    for seed in seeds:
        comparison = compare_results(results[other, seed], results[first, seed])
        for level in LEVELS:
            for name in ("LCC", "SRCC"):
                entry = comparison[level][name]
                difference = number(entry["difference"], sign=True)
                rows.append([seed, level, name, difference, bounds(entry, sign=True), number(entry["p"])])
    return markdown_table(["seed", "level", "metric", "difference", "95 % interval", "p"], rows, left=3)


def _settings(conf: str) -> str:
    path = Path("conf") / f"{conf}.yaml"
    text = "\n".join(read_lines(path))
    return f"`{path}`, the rest as in `../../conf/distilmos.yaml`:\n\n```yaml\n{text}\n```\n"


def main() -> None:
    """Read the arguments and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--protocols", "--models", "--seeds"):
        parser.add_argument(name, required=True, type=str.split)
    parser.add_argument("--out", required=True, metavar="FILE")
    args = parser.parse_args()
    write_text(args.out, gather(args.protocols, args.models, args.seeds))
    print(args.out)


if __name__ == "__main__":
    run_main(main)
