"""Gather what a study has kept of its trainings into one page: scores, bootstraps, learning curves, forgetting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import nan
from pathlib import Path
from statistics import fmean, median
from typing import Any
from zlib import crc32

import numpy as np
from records import PREDICTIONS, TEST, Kept, Page, Study, run_name

from distilmos.analysis.result import AFTER, BEFORE
from distilmos.data.tables import read_lines
from distilmos.errors import InputError, raise_faults
from distilmos.files import write_text
from distilmos.markdown import bounds, markdown_table, mean_text, number
from distilmos.metrics import LEVELS, agreement
from distilmos.report import figures
from distilmos.report.experiment import Experiment, series
from distilmos.report.figures import PALETTE, Line
from distilmos.report.sweep import METRICS, dev_tables, pairs, training_facts
from distilmos.scoring.bootstrap import SAMPLES, interval, two_sided_p
from distilmos.scoring.results import Scored, level_arrays, resample_levels

IN_DOMAIN = "conditions"
TOGETHER = "held-out types"
CORRELATIONS = ("LCC", "SRCC")  # whose differences are shown
CONF = Path("conf")
DEV_METRIC = "LCC"  # of utterances, by which models are chosen on dev
MIN_PAIRS = 5  # of trainings, for a ratio of their times

Arrays = dict[str, tuple[np.ndarray, np.ndarray]]  # level -> rated and predicted scores


@dataclass(frozen=True)
class Comparison:
    """The kept runs and scores that a page compares.

    Attributes:
        protocols: in the order of the columns.
        held_out: those of them that hold out a type of degradation.
        types: all types that a protocol of the study holds out.
        models: their specs, in the order of the rows.
        confs: their configurations.
        seeds: of each model.
        published: names of published models.
        trained: (protocol, model) -> runs in the order of the seeds.
        rows: (protocol, model or published model) -> for each seed, the utterances of the test set and their scores.
    """

    protocols: list[str]
    held_out: list[str]
    types: frozenset[str]
    models: list[str]
    confs: list[str]
    seeds: list[int]
    published: list[str]
    trained: dict[tuple[str, str], list[Experiment]]
    rows: dict[tuple[str, str], list[list[Scored]]]

    @cached_property
    def scored(self) -> dict[tuple[str, str], list[Arrays]]:
        """What (protocol, model or reference) was rated and predicted on the test set, for each seed.

        Raises:
            InputError: if it is missing, or trainings of a protocol were not scored on the same ratings.
        """
        found = {key: [level_arrays(rows) for rows in seeds] for key, seeds in self.rows.items()}
        for (protocol, model), seeds in found.items():
            for level in LEVELS:
                rated = found[protocol, self.models[0]][0][level][0]
                if any(not np.array_equal(rated, arrays[level][0]) for arrays in seeds):
                    raise InputError(f"{protocol}: {model} and {self.models[0]}: scored on different ratings")
        return found

    @cached_property
    def agreements(self) -> dict[tuple[str, str], list[dict[str, dict[str, float]]]]:
        """Level -> metric -> value of (protocol, model or reference), for each seed."""
        return {
            key: [{level: agreement(*arrays[level]) for level in LEVELS} for arrays in seeds]
            for key, seeds in self.scored.items()
        }

    @cached_property
    def resampled(self) -> dict[tuple[str, str], dict[str, dict[str, np.ndarray]]]:
        """Level -> metric -> mean over seeds of every resample, (SAMPLES,), of (protocol, model or reference).

        A resample draws conditions, with all recordings of each, and seeds. The conditions drawn are the same for both
        levels and for all models of a protocol. Seeds are drawn for each model by itself, as trainings of two models
        with the same seed have nothing in common but the order of their data. One seed less is drawn than there are,
        so that a mean over few seeds varies as it should and not less (P. McCarthy and C. Snowden, "The bootstrap and
        finite population sampling", 1985).
        """
        found: dict[tuple[str, str], dict[str, dict[str, np.ndarray]]] = {}
        for (protocol, model), scored in self.scored.items():
            generator = np.random.default_rng((2, crc32(f"{protocol} {model}".encode())))
            drawn_seeds = generator.integers(len(scored), size=(SAMPLES, max(1, len(scored) - 1)))
            rows = self.rows[protocol, model][0]
            # MNRU speech, of which each type has a copy that is a system, is one condition; so is what is undegraded.
            conditions = {row.system: row.system if row.group in self.types else row.group for row in rows}
            drawn = resample_levels(scored, rows, SAMPLES, (1, crc32(protocol.encode())), CORRELATIONS, conditions)
            found[protocol, model] = {
                level: {name: np.take_along_axis(values, drawn_seeds, 1).mean(1) for name, values in of_level.items()}
                for level, of_level in drawn.items()
            }
        return found


def select(study: Study, page: Page, kept: Kept) -> Comparison:
    """Return the runs and scores of a page. Of a protocol that holds out a type, only utterances of this type count.

    Raises:
        InputError: naming the runs and published models of which no scores are kept.
    """
    raise_faults(
        [f"{run_name(key)}: no scores of {TEST}" for key in page.scores if TEST not in kept.scored.get(key, {})],
        f"{kept.folder / PREDICTIONS}",
    )
    held_out = {name: study.protocols[name].held_out for name in page.protocols}
    models = {name: study.models[name] for name in page.models}

    def rows(protocol: str, name: str, seed: int | None) -> list[Scored]:
        # The undegraded and MNRU conditions, which every type repeats, are not new where a type is held out.
        found = kept.scored[protocol, name, seed][TEST]
        return [row for row in found if held_out[protocol] in (None, row.group)]

    both = [(protocol, name) for protocol in page.protocols for name in models]
    return Comparison(
        protocols=list(page.protocols),
        held_out=[protocol for protocol, group in held_out.items() if group],
        types=frozenset(protocol.held_out for protocol in study.protocols.values() if protocol.held_out),
        models=[model.spec for model in models.values()],
        confs=[model.conf for model in models.values()],
        seeds=list(page.seeds),
        published=list(page.published),
        trained={(p, models[m].spec): [kept.runs[p, m, s] for s in page.seeds] for p, m in both},
        rows={(p, models[m].spec): [rows(p, m, s) for s in page.seeds] for p, m in both}
        | {(p, name): [rows(p, name, None)] for p in page.protocols for name in page.published},
    )


def dev_text(study: Study, page: Page, kept: Kept, command: str) -> str:
    """Return the page of a protocol that scores the dev set alone, in Markdown."""
    (protocol,) = page.protocols
    seeds = [str(seed) for seed in page.seeds]
    runs = {(study.models[m].spec, str(s)): kept.runs[protocol, m, s] for m in page.models for s in page.seeds}
    return (
        "# TCD-VoIP: candidates for settings, on dev\n\n"
        f"Made by `{command}`.\n"
        "The training with seed N has fold N of dev: 20 conditions, fold 4 the last 11. Means are over the folds. No "
        "test set\nwas scored.\n\n" + dev_tables(runs, [study.models[name].spec for name in page.models], seeds)
    )


def page_text(compared: Comparison, command: str, folder: Path) -> str:
    """Return the page in Markdown; its figures are written to `folder`, beside the page.

    Raises:
        InputError: if a training is not kept, or not as it should be.
    """
    parts = [
        "# TCD-VoIP: models compared\n",
        f"Made by `{command}` from what it keeps of every training (`study`). `conditions` is in domain: unseen "
        "conditions of known types of degradation; under every other name that type is in the test set alone, and only "
        "its own conditions are scored here. A system is such a condition. Figures are means over seeds, with the "
        "standard deviation where there are several. What they say, and how sure it is: "
        "[README.md](README.md).\n",
        _facts(compared),
    ]
    if compared.published:
        parts.append(f"{', '.join(compared.published)}: published models as they are, which never saw this corpus.\n")
    for level in LEVELS:
        parts.append(f"## Scores of {level}s\n")
        parts += [f"{level} {metric}:\n\n{_scores(compared, level, metric)}" for metric in METRICS]
    if IN_DOMAIN in compared.protocols:
        parts += ["## Types of degradation\n", *_types(compared)]
    if len(compared.models) + len(compared.published) > 1:
        parts += ["## Differences\n", *_differences(compared)]
    parts += ["## Learning curves\n", *_curves(compared, folder)]
    parts += _layers(compared, folder)
    parts += _times(compared)
    text = "What these files do not say is as in `../../conf/distilmos.yaml`.\n"
    parts += ["## Settings\n", text, *_settings(compared.confs)]
    return "\n".join(parts)


def _facts(compared: Comparison) -> str:
    counts = []
    for protocol in compared.protocols:
        recordings, conditions = (compared.scored[protocol, compared.models[0]][0][level][0].size for level in LEVELS)
        counts.append(f"{protocol} {recordings} recordings of {conditions} conditions")
    return f"- seeds: {', '.join(map(str, compared.seeds))}\n- test: {', '.join(counts)}\n" + training_facts(
        experiment for experiments in compared.trained.values() for experiment in experiments
    )


def _scores(compared: Comparison, level: str, metric: str) -> str:
    """Return one measure: a row for each model, a column for each protocol and one for the held-out types together."""
    rows = []
    for model in [*compared.models, *compared.published]:
        values = {
            protocol: [seed[level][metric] for seed in compared.agreements[protocol, model]]
            for protocol in compared.protocols
        }
        together = [
            fmean(of_seed) for of_seed in zip(*(values[protocol] for protocol in compared.held_out), strict=True)
        ]
        rows.append([model, *(mean_text(values[protocol]) for protocol in compared.protocols)])
        if len(compared.held_out) > 1:
            rows[-1].append(mean_text(together))
    header = ["model", *compared.protocols, *([f"{TOGETHER}, mean"] if len(compared.held_out) > 1 else [])]
    return markdown_table(header, rows)


def _types(compared: Comparison) -> list[str]:
    """Return, for the protocol in which all types are known, how well each is scored by itself."""
    found = {
        model: [_by_type(rows) for rows in compared.rows[IN_DOMAIN, model]]
        for model in [*compared.models, *compared.published]
    }
    types = list(found[compared.models[0]][0])
    parts = []
    for title, place in (("utterance LCC", 0), ("predicted - rated", 1)):
        rows = [
            [model, *(mean_text([seed[t][place] for seed in seeds], 2) for t in types)]
            for model, seeds in found.items()
        ]
        parts += [f"{IN_DOMAIN}, {title} within a type:\n", markdown_table(["model", *types], rows)]
    return parts


def _by_type(rows: list[Scored]) -> dict[str, tuple[float, float]]:
    """Return utterance LCC and mean error of each type, by name."""
    arrays = {t: level_arrays([r for r in rows if r.group == t])[LEVELS[0]] for t in sorted({r.group for r in rows})}
    return {t: (agreement(*found)["LCC"], float(np.mean(found[1] - found[0]))) for t, found in arrays.items()}


def _differences(compared: Comparison) -> list[str]:
    """Return a paragraph and a table for each pair of models."""
    parts = [
        "Of the means over seeds, with 95 % intervals and p values of a bootstrap over conditions with all recordings "
        f"of each, the same ones for both models, and over the seeds of each ({SAMPLES} resamples). They say how sure "
        "a difference is for other conditions of the kind and, where there are several seeds, for other trainings. "
        "MNRU speech, which is a system of each type, counts as one condition. Each interval is by itself: of twenty, "
        "one misses the true difference by chance."
        + (f" {TOGETHER.capitalize()} are the mean over types." if len(compared.held_out) > 1 else "")
        + "\n"
    ]
    columns = [(level, metric) for level in LEVELS for metric in CORRELATIONS]
    for model, other in [
        *pairs(compared.models),
        *((compared.models[0], reference) for reference in compared.published),
    ]:
        found: dict[str, dict[tuple[str, str], tuple[float, np.ndarray]]] = {}
        for protocol in compared.protocols:
            ours, others = (protocol, model), (protocol, other)
            found[protocol] = {
                (level, metric): (
                    fmean(seed[level][metric] for seed in compared.agreements[ours])
                    - fmean(seed[level][metric] for seed in compared.agreements[others]),
                    compared.resampled[ours][level][metric] - compared.resampled[others][level][metric],
                )
                for level, metric in columns
            }
        if len(compared.held_out) > 1:
            of_types = [found[protocol] for protocol in compared.held_out]
            found[TOGETHER] = {
                key: (fmean(v[key][0] for v in of_types), np.mean([v[key][1] for v in of_types], axis=0))
                for key in columns
            }
        rows = []
        for protocol, values in found.items():
            cells = [protocol]
            for key in columns:
                difference, resampled = values[key]
                low, high, undefined = interval(resampled)
                cells.append(number(difference, sign=True))
                if undefined < resampled.size:
                    spread = bounds({"low": low, "high": high}, sign=True)
                    cells[-1] += f" {spread} p {number(two_sided_p(resampled))}"
            rows.append(cells)
        header = ["test", *(f"{level} {metric}" for level, metric in columns)]
        parts += [f"{model} - {other}:\n", markdown_table(header, rows)]
    return parts


def _curves(compared: Comparison, folder: Path) -> list[str]:
    """Return a figure for each protocol, and how much of the best dev score is lost until the end."""
    parts = [
        f"Utterance {DEV_METRIC} on dev in the course of training, mean over seeds; a bar is a standard deviation long "
        "on either side. A type that is held out is not in dev.\n"
    ]
    for protocol in compared.protocols:
        lines = []
        for model in compared.models:
            events = [experiment.dev for experiment in compared.trained[protocol, model]]
            values = np.array([series(dev, "utterance", DEV_METRIC) for dev in _shortest(events)])
            lines.append(_line(compared, model, series(min(events, key=len), "step"), values))
        name = protocol if protocol == IN_DOMAIN else f"{protocol} held out"
        figure = figures.curves(f"dev-{protocol}", f"{name}: utterance {DEV_METRIC} on dev", lines)
        if figure is not None:
            write_text(folder / f"dev_{protocol}.svg", figures.as_file(figure))
            parts.append(f"![{figure.title}]({folder.name}/dev_{protocol}.svg)\n")
    parts.append(
        "Over all seeds, and over types where they are held out (means and deviations are of both): what is lost of "
        "the best dev score until the last step, and the regression loss on training and dev recordings at the end. "
        "Their gap grows with overfitting and with the difficulty of a dev set; it is negative where dropout, which "
        "only training has, weighs more.\n"
    )
    if IN_DOMAIN in compared.protocols:
        parts += [f"{IN_DOMAIN}:\n", _overfitting(compared, [IN_DOMAIN])]
    if compared.held_out:
        parts += [f"{TOGETHER}:\n", _overfitting(compared, compared.held_out)]
    return parts


def _overfitting(compared: Comparison, protocols: Sequence[str]) -> str:
    """Return what is lost on dev until the end of training, over protocols and seeds."""
    rows = []
    for model in compared.models:
        experiments = [e for protocol in protocols for e in compared.trained[protocol, model]]
        best = [max(series(e.dev, "utterance", DEV_METRIC)) for e in experiments]
        last = [series(e.dev, "utterance", DEV_METRIC)[-1] for e in experiments]
        train_loss = [e.train[-1]["regression"] if e.train else nan for e in experiments]  # shorter than log_every
        if any(e.config.get("listener_offsets") for e in experiments):
            train_loss = []  # of single ratings, and no mean scores
        dev_loss = [e.dev[-1]["regression"] for e in experiments]
        gaps = [d - t for d, t in zip(dev_loss, train_loss, strict=True)] if train_loss else []
        lost = [b - x for b, x in zip(best, last, strict=True)]
        rows.append([model, *map(mean_text, (best, last, lost, train_loss, dev_loss, gaps))])
    header = ["model", f"best dev {DEV_METRIC}", "at the end", "lost", "loss, train", "loss, dev", "gap"]
    return markdown_table(header, rows)


def _line(compared: Comparison, model: str, x: Sequence[float], values: np.ndarray) -> Line:
    """Return the mean of curves (S, N) of a model, which looks the same in all figures, with their deviation."""
    place = compared.models.index(model)
    spread = values.std(0, ddof=1).tolist() if len(values) > 1 else None
    colour, dashed = PALETTE[place % len(PALETTE)], place >= len(PALETTE)
    return Line(model, x, values.mean(0).tolist(), colour, dashed, spread)


def _shortest(events: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
    """Cut the evaluations of all seeds to the number of the one that stopped first."""
    length = min(map(len, events))
    return [of_seed[:length] for of_seed in events]


def _layers(compared: Comparison, folder: Path) -> list[str]:
    """Return what fine-tuning has left of the layers, for models that were analysed."""
    analyses = {
        model: [e.analysis for p in compared.protocols for e in compared.trained[p, model] if e.analysis]
        for model in compared.models
    }
    analyses = {model: found for model, found in analyses.items() if found}
    if not analyses:
        return []
    first = next(iter(analyses))
    analysed = [p for p in compared.protocols if any(e.analysis for e in compared.trained[p, first])]
    layers = range(1, len(analyses[first][0]["similarity"]) + 1)
    frozen = _reads(analyses[first], BEFORE)
    lines, rows = [], []
    for model in analyses:
        kept = np.array([np.diag(np.array(a["similarity"], dtype=float)) for a in analyses[model]])
        lines.append(_line(compared, model, layers, kept))
        reads = _reads(analyses[model], AFTER)
        rows.append([model, *map(mean_text, [*kept.T.tolist(), *(reads.get(name, []) for name in frozen)])])
    figure = figures.layer_lines("cka", "Linear CKA with the frozen layer", lines, zoom=True)
    write_text(folder / "cka.svg", figures.as_file(figure))
    header = ["model", *(f"CKA {layer}" for layer in layers), *(f"{name} read" for name in frozen)]
    chance = {task["name"]: task["chance"] for task in analyses[first][0]["probes"] if task["chance"]}
    before = [
        f"{name} {mean_text(values)}" + (f" (by chance {number(chance[name])})" if name in chance else "")
        for name, values in frozen.items()
    ]
    before += [  # other clusters are another task
        f"of {model} {name} {mean_text(values)}"
        for model in analyses
        for name, values in _reads(analyses[model], BEFORE).items()
        if name in frozen and mean_text(values) != mean_text(frozen[name])
    ]
    return [
        "## What is left of the pretrained layers\n",
        "Linear CKA of each layer with the frozen one (1: nothing has changed), and what linear readers find in it, "
        "means over layers: the token ids of the frozen layer, which tokens in the training are made to keep, and "
        "labels, that is how often they are right, or the LCC of MOS, of recordings that they have not learned from. "
        f"In the frozen layers: {', '.join(before)}. Over all seeds of {', '.join(analysed)}, on dev and test "
        "recordings.\n",
        f"![{figure.title}]({folder.name}/cka.svg)\n",
        markdown_table(header, rows),
    ]


def _reads(analyses: list[dict[str, Any]], when: str) -> dict[str, list[float]]:
    """Return what is read from layers -> how well, the mean over layers of every analysis."""
    found: dict[str, list[float]] = {}
    for analysis in analyses:
        if analysis["tokens"]:
            found.setdefault("tokens", []).append(fmean(row[when]["probe"] for row in analysis["tokens"]))
        for task in analysis["probes"]:
            measure = "LCC" if task["classes"] is None else "accuracy"
            found.setdefault(task["name"], []).append(fmean(row[when][measure] for row in task["layers"]))
    return found


def _times(compared: Comparison) -> list[str]:
    """Return minutes of a training and their ratio to those of the first model, where trainings can be compared."""
    first, *others = compared.models
    paired = {
        model: [
            (_minutes(ours), _minutes(theirs))
            for protocol in compared.protocols
            for ours, theirs in zip(compared.trained[protocol, model], compared.trained[protocol, first], strict=True)
            if all(ours.start[key] == theirs.start[key] for key in ("commit", "hardware"))
        ]
        for model in others
    }
    paired = {model: times for model, times in paired.items() if len(times) >= MIN_PAIRS}
    if not paired:
        return []
    rows = [[first, f"{min(of_first for times in paired.values() for _, of_first in times):.1f}", "1", ""]]
    for model, times in paired.items():
        ratio = median(minutes / of_first for minutes, of_first in times)
        rows.append([model, f"{min(minutes for minutes, _ in times):.1f}", f"{ratio:.2f}", str(len(times))])
    return [
        "## Training time\n",
        "On another machine, or beside other work, a training takes another time. So what is compared are pairs with "
        "the same protocol, seed, commit and kind of CPU: minutes are those of the shortest, a ratio is the median. "
        f"Models with fewer than {MIN_PAIRS} pairs are left out.\n",
        markdown_table(["model", "minutes", f"of {first}'s", "pairs"], rows),
    ]


def _minutes(training: Experiment) -> float:
    return float(training.end["elapsed_seconds"]) / 60


def _settings(confs: Sequence[str]) -> list[str]:
    """Return the files of the models' settings, those that they are based on first."""
    files: list[str] = []
    for conf in confs:
        chain = [f"{conf}.yaml"]
        while base := next((line for line in read_lines(CONF / chain[0]) if line.startswith("base: ")), ""):
            chain.insert(0, base.removeprefix("base: "))
        files += chain
    shown = {file: "\n".join(read_lines(CONF / file)) for file in files}
    return [f"`conf/{file}`:\n\n```yaml\n{text}\n```\n" for file, text in shown.items()]
