"""Pages of the study, made from its kept runs: scores, bootstraps, learning curves, forgetting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import nan
from pathlib import Path
from statistics import fmean, median
from typing import Any
from zlib import crc32

import numpy as np
from records import PREDICTIONS, TEST, Kept, Model, Page, Study, run_name

from distilmos.analysis.result import AFTER, BEFORE
from distilmos.data.tables import read_lines
from distilmos.errors import InputError, raise_faults
from distilmos.files import write_text
from distilmos.markdown import bounds, markdown_table, mean_text, number, p_value
from distilmos.metrics import LEVELS, agreement
from distilmos.report import figures
from distilmos.report.experiment import Experiment, series
from distilmos.report.figures import PALETTE, Line, Point
from distilmos.report.sweep import METRICS, dev_tables, pairs, run_facts
from distilmos.scoring.bootstrap import SAMPLES, holm, interval, two_sided_p
from distilmos.scoring.results import Scored, level_arrays, resample_levels

TOGETHER = "held-out types"
CORRELATIONS = ("LCC", "SRCC")  # measures with a table of differences
CONF = Path("conf")
DEV_METRIC = "LCC"  # of utterances; it chooses checkpoints and settings on dev
MIN_PAIRS = 5  # of runs, for a ratio of their times

Arrays = dict[str, tuple[np.ndarray, np.ndarray]]  # level -> rated and predicted scores


@dataclass(frozen=True)
class Comparison:
    """The kept runs and scores that a page compares.

    Attributes:
        study: the study, for what it says about its corpus.
        protocols: of the runs.
        columns: what is scored: each protocol, then further test sets and their targets.
        held_out: the protocols that hold out a type of degradation.
        models: name -> definition, in the order of the rows.
        seeds: of each model.
        published: names of published models.
        trained: (protocol, model) -> runs in the order of the seeds.
        rows: (column, model or published model) -> for each seed, the utterances of the test set and their scores.
        refits: (column, model) -> for each seed, the utterance LCC of a ridge regression on the fine-tuned encoder;
            for protocols with `refit` alone.
        signals: (column, model) -> signal of doubt -> for each seed, its rank correlation with the absolute error; for
            protocols with `confidence` alone.
    """

    study: Study
    protocols: list[str]
    columns: list[str]
    held_out: list[str]
    models: dict[str, Model]
    seeds: list[int]
    published: list[str]
    trained: dict[tuple[str, str], list[Experiment]]
    rows: dict[tuple[str, str], list[list[Scored]]]
    refits: dict[tuple[str, str], list[float]]
    signals: dict[tuple[str, str], dict[str, list[float]]]

    @property
    def in_domain(self) -> str | None:
        """The first protocol that holds out no type."""
        return next((protocol for protocol in self.protocols if protocol not in self.held_out), None)

    @property
    def first(self) -> str:
        """The model that others are compared with."""
        return self.names[0]

    @property
    def names(self) -> list[str]:
        """The models and the published models, in the order of the rows."""
        return [*self.models, *self.published]

    @cached_property
    def scored(self) -> dict[tuple[str, str], list[Arrays]]:
        """(column, model or published model) -> for each seed, rated and predicted scores on the test set.

        Raises:
            InputError: if the runs of a column have different test sets.
        """
        found = {key: [level_arrays(rows) for rows in seeds] for key, seeds in self.rows.items()}
        for (column, model), seeds in found.items():
            for level in LEVELS:
                rated = found[column, self.first][0][level][0]
                if any(not np.array_equal(rated, arrays[level][0]) for arrays in seeds):
                    raise InputError(f"{column}: {model} and {self.first}: different test sets")
        return found

    @cached_property
    def agreements(self) -> dict[tuple[str, str], list[dict[str, dict[str, float]]]]:
        """(column, model or published model) -> for each seed, level -> metric -> value."""
        return {
            key: [{level: agreement(*arrays[level]) for level in LEVELS} for arrays in seeds]
            for key, seeds in self.scored.items()
        }

    @cached_property
    def resampled(self) -> dict[tuple[str, str], dict[str, dict[str, np.ndarray]]]:
        """(column, model or published model) -> level -> metric -> mean over seeds of each resample, (SAMPLES,).

        A resample draws conditions, with all recordings of each, and seeds. Both levels and all models of a column
        have the same drawn conditions. Each model has its own drawn seeds, because runs of two models with the same
        seed share only the order of their data. Of N seeds, N - 1 are drawn: with N, the mean over few seeds would
        vary too little (P. McCarthy and C. Snowden, "The bootstrap and finite population sampling", 1985).
        """
        found: dict[tuple[str, str], dict[str, dict[str, np.ndarray]]] = {}
        for (column, model), scored in self.scored.items():
            generator = np.random.default_rng((2, crc32(f"{column} {model}".encode())))
            drawn_seeds = generator.integers(len(scored), size=(SAMPLES, max(1, len(scored) - 1)))
            rows = self.rows[column, model][0]
            own = column in self.protocols
            conditions = {row.system: self.study.condition(row) if own else row.system for row in rows}
            drawn = resample_levels(scored, rows, SAMPLES, (1, crc32(column.encode())), CORRELATIONS, conditions)
            found[column, model] = {
                level: {name: np.take_along_axis(values, drawn_seeds, 1).mean(1) for name, values in of_level.items()}
                for level, of_level in drawn.items()
            }
        return found

    def mean(self, column: str, model: str, level: str, metric: str) -> float:
        """Return the mean over seeds of one measure of a model or a published model."""
        return fmean(seed[level][metric] for seed in self.agreements[column, model])

    def difference(self, column: str, model: str, other: str, level: str, metric: str) -> tuple[float, np.ndarray]:
        """Return the difference `model` - `other` of the means over seeds, and that of each resample, (SAMPLES,)."""
        means = [self.mean(column, name, level, metric) for name in (model, other)]
        ours, theirs = (self.resampled[column, name][level][metric] for name in (model, other))
        return means[0] - means[1], ours - theirs


def select(study: Study, page: Page, kept: Kept) -> Comparison:
    """Return the runs and scores of a page. A protocol that holds out a type counts only the utterances of this type.

    Raises:
        InputError: naming the runs and published models of which no scores are kept.
    """
    sets = {protocol: (protocol, TEST) for protocol in page.protocols}  # column -> protocol and set
    for protocol in page.protocols:
        sets |= {name: (protocol, name) for name in study.further(protocol)}
    raise_faults(
        [
            f"{run_name(key)}: no scores of {name}"
            for key in page.scores
            for protocol, name in sets.values()
            if key[0] == protocol and name not in kept.scored.get(key, {})
        ],
        f"{kept.folder / PREDICTIONS}",
    )
    held_out = {name: study.protocols[name].held_out for name in page.protocols}
    models = {name: study.models[name] for name in page.models}

    def rows(column: str, model: str, seed: int | None) -> list[Scored]:
        protocol, name = sets[column]
        # Every type repeats the undegraded and MNRU conditions, so these are not new to a model.
        found = kept.scored[protocol, model, seed][name]
        return [row for row in found if name != TEST or held_out[protocol] in (None, row.group)]

    return Comparison(
        study=study,
        protocols=list(page.protocols),
        columns=list(sets),
        held_out=[protocol for protocol, group in held_out.items() if group],
        models=models,
        seeds=list(page.seeds),
        published=list(page.published),
        trained={(p, m): [kept.runs[p, m, s] for s in page.seeds] for p in page.protocols for m in models},
        rows={(c, m): [rows(c, m, s) for s in page.seeds] for c in sets for m in models}
        | {(c, name): [rows(c, name, None)] for c in sets for name in page.published},
        refits={
            (column, m): [kept.refits[protocol, m, s][name] for s in page.seeds]
            for column, (protocol, name) in sets.items()
            for m in models
            if all(name in kept.refits[protocol, m, s] for s in page.seeds)
        },
        signals={
            (column, m): {
                signal: [kept.confidences[protocol, m, s][name]["signals"][signal]["SRCC"]["value"] for s in page.seeds]
                for signal in kept.confidences[protocol, m, page.seeds[0]][name]["signals"]
            }
            for column, (protocol, name) in sets.items()
            for m in models
            if all(name in kept.confidences[protocol, m, s] for s in page.seeds)
        },
    )


def dev_text(study: Study, page: Page, kept: Kept, command: str) -> str:
    """Return the page of a protocol that scores the dev set alone, in Markdown."""
    (protocol,) = page.protocols
    seeds = [str(seed) for seed in page.seeds]
    runs = {(m, str(s)): kept.runs[protocol, m, s] for m in page.models for s in page.seeds}
    own = study.protocols[protocol]
    folds = f"Seed N has data of its own (`{own.options.format(seed='N')}`). " if own.data_by_seed else ""
    models = {name: study.models[name] for name in page.models}
    parts = [
        f"# {study.title}: candidates for settings, on dev\n",
        f"Made by `{command}`. {folds}No test set was scored.\n",
        dev_tables(runs, page.models, seeds),
        "## Settings\n",
        *_settings(models),
    ]
    return "\n".join(parts)


def page_text(compared: Comparison, command: str, folder: Path) -> str:
    """Return the page in Markdown, and write its figures to `folder`, next to the page.

    Raises:
        InputError: if the runs of a protocol have different test sets.
    """
    parts = [
        f"# {compared.study.title}: models compared\n",
        f"Made by `{command}` from the kept runs. {compared.study.about.strip()} Numbers are means over seeds, with "
        "the standard deviation if there are several. [README.md](README.md) discusses them.\n",
        _facts(compared),
    ]
    if compared.published:
        parts.append(f"{', '.join(compared.published)}: finished models, scored unchanged.\n")
    for level in LEVELS:
        parts.append(f"## Scores of {level}s\n")
        parts += [f"{level} {metric}:\n\n{_scores(compared, level, metric)}" for metric in METRICS]
    if compared.in_domain and compared.study.types:
        parts += ["## Types\n", *_types(compared, compared.in_domain)]
    if len(compared.names) > 1:
        parts += ["## Differences\n", *_differences(compared)]
    parts += _domains(compared, folder)
    if compared.models:
        parts += _refits(compared)
        parts += _confidence(compared)
        parts += ["## Learning curves\n", *_curves(compared, folder)]
        parts += _layers(compared, folder)
        parts += _times(compared)
        text = "The recipe's files; `conf/distilmos.yaml` of the repository has the other settings.\n"
        parts += ["## Settings\n", text, *_settings(compared.models)]
    return "\n".join(parts)


def _facts(compared: Comparison) -> str:
    counts = []
    for column in compared.columns:
        recordings, conditions = (compared.scored[column, compared.first][0][level][0].size for level in LEVELS)
        counts.append(f"{column} {recordings} recordings of {conditions} conditions")
    seeds = f"- seeds: {', '.join(map(str, compared.seeds))}\n" * bool(compared.seeds)
    return f"{seeds}- test: {', '.join(counts)}\n" + run_facts(
        experiment for experiments in compared.trained.values() for experiment in experiments
    )


def _scores(compared: Comparison, level: str, metric: str) -> str:
    """Return a table of one measure: a row for each model; all columns, and one for the held-out types together."""
    rows = []
    for model in compared.names:
        values = {
            column: [seed[level][metric] for seed in compared.agreements[column, model]] for column in compared.columns
        }
        together = [
            fmean(of_seed) for of_seed in zip(*(values[protocol] for protocol in compared.held_out), strict=True)
        ]
        rows.append([model, *(mean_text(values[column]) for column in compared.columns)])
        if len(compared.held_out) > 1:
            rows[-1].append(mean_text(together))
    header = ["model", *compared.columns, *([f"{TOGETHER}, mean"] if len(compared.held_out) > 1 else [])]
    return markdown_table(header, rows)


def _types(compared: Comparison, protocol: str) -> list[str]:
    """Return the scores of each type in a protocol without a held-out type."""
    found = {model: [_by_type(rows) for rows in compared.rows[protocol, model]] for model in compared.names}
    types = list(found[compared.first][0])
    parts = []
    for title, place in (("utterance LCC", 0), ("predicted - rated", 1)):
        rows = [
            [model, *(mean_text([seed[t][place] for seed in seeds], 2) for t in types)]
            for model, seeds in found.items()
        ]
        parts += [f"{protocol}, {title} within a type:\n", markdown_table(["model", *types], rows)]
    return parts


def _by_type(rows: list[Scored]) -> dict[str, tuple[float, float]]:
    """Return utterance LCC and mean error of each type, by name."""
    arrays = {t: level_arrays([r for r in rows if r.group == t])[LEVELS[0]] for t in sorted({r.group for r in rows})}
    return {t: (agreement(*found)["LCC"], float(np.mean(found[1] - found[0]))) for t, found in arrays.items()}


def _differences(compared: Comparison) -> list[str]:
    """Return a paragraph and a table for each pair of models."""
    parts = [
        "Differences of the means over seeds, with 95 % intervals and p values. The bootstrap draws conditions with "
        f"all their recordings, the same for both models, and the seeds of each model ({SAMPLES} resamples). So an "
        "interval covers other conditions of the kind and, with several seeds, other runs. "
        + "The copies of a condition, a system of each type, count as one condition. " * bool(compared.study.types)
        + "Intervals are not corrected for multiple comparisons: one of twenty misses the true difference by chance."
        + (f" {TOGETHER.capitalize()}: the mean over types." if len(compared.held_out) > 1 else "")
        + "\n"
    ]
    columns = [(level, metric) for level in LEVELS for metric in CORRELATIONS]
    names = {model.spec: name for name, model in compared.models.items()}
    for model, other in [
        *((names[one], names[another]) for one, another in pairs([*names])),
        *((compared.first, reference) for reference in compared.published if reference != compared.first),
    ]:
        found: dict[str, dict[tuple[str, str], tuple[float, np.ndarray]]] = {}
        for column in compared.columns:
            found[column] = {key: compared.difference(column, model, other, *key) for key in columns}
        if len(compared.held_out) > 1:
            of_types = [found[protocol] for protocol in compared.held_out]
            found[TOGETHER] = {
                key: (fmean(v[key][0] for v in of_types), np.mean([v[key][1] for v in of_types], axis=0))
                for key in columns
            }
        rows = []
        for column, values in found.items():
            cells = [column]
            for key in columns:
                difference, resampled = values[key]
                low, high, undefined = interval(resampled)
                cells.append(number(difference, sign=True))
                if undefined < resampled.size:
                    spread = bounds({"low": low, "high": high}, sign=True)
                    cells[-1] += f" {spread} p {p_value(two_sided_p(resampled))}"
            rows.append(cells)
        header = ["test", *(f"{level} {metric}" for level, metric in columns)]
        parts += [f"{model} - {other}:\n", markdown_table(header, rows)]
    return parts


def _domains(compared: Comparison, folder: Path) -> list[str]:
    """Return a figure of the scores in domain and on further test sets, and corrected differences of them.

    Empty without further test sets.
    """
    further = [column for column in compared.columns if column not in compared.protocols]
    inside = compared.in_domain
    if not further or inside is None:
        return []
    level, metric = LEVELS[0], CORRELATIONS[0]
    models = compared.names

    def point(model: str) -> Point:
        x, y = (compared.mean(column, model, level, metric) for column in (inside, further[0]))
        ends = (interval(compared.resampled[c, model][level][metric])[:2] for c in (inside, further[0]))
        return Point(_without_rate(model, compared.models), x, y, *ends)

    title = f"{level.capitalize()} {metric} in and out of domain"
    figure = figures.plane("domains", title, [point(model) for model in models], inside, further[0])
    write_text(folder / "domains.svg", figures.as_file(figure))
    first, *others = models
    parts = [
        f"## In and out of domain\n\n{level.capitalize()} {metric}, means over seeds with 95 % intervals over "
        f"conditions and seeds:\n\n![{title}]({folder.name}/domains.svg)\n",
        f"Differences of each model to {first}, with the p values of the bootstrap, also corrected for all comparisons "
        "of a table (Holm):\n" * bool(others),
    ]
    for column in (inside, *further) if others else ():
        rows, values = [], []
        for other in others:
            difference, resampled = compared.difference(column, other, first, level, metric)
            low, high, _ = interval(resampled)
            values.append(two_sided_p(resampled))
            rows.append([other, number(difference, sign=True), bounds({"low": low, "high": high}, sign=True)])
        for row, value, corrected in zip(rows, values, holm(values), strict=True):
            row += [p_value(value), p_value(corrected)]
        header = ["model", f"{level} {metric}", "95 % interval", "p", "p, Holm"]
        parts += [f"{column}:\n", markdown_table(header, rows)]
    return parts


def _without_rate(name: str, models: Mapping[str, Model]) -> str:
    """Return the name that a model shares with those that differ from it in their learning rate alone."""
    overrides = models[name].overrides if name in models else ()
    for override in overrides:
        setting, _, value = override.partition("=")
        if setting in ("encoder_lr", "head_lr"):
            name = name.removesuffix(f"_{value}")
    return name


def _refits(compared: Comparison) -> list[str]:
    """Return a table of the networks beside ridge regressions on their encoders; empty without these."""
    level, metric = LEVELS[0], CORRELATIONS[0]
    refitted = [
        column for column in compared.columns if all((column, model) in compared.refits for model in compared.models)
    ]
    if not refitted:
        return []
    rows = []
    for model in compared.models:
        rows.append([model])
        for column in refitted:
            networks = [seed[level][metric] for seed in compared.agreements[column, model]]
            rows[-1] += [mean_text(networks), mean_text(compared.refits[column, model])]
    header = ["model", *(name for column in refitted for name in (column, f"{column}, ridge"))]
    text = (
        f"{level.capitalize()} {metric} of the models, and of ridge regressions on mean and deviation of all layers of "
        "their encoders, fitted to the same training set. The latter do not depend on the head of a model:\n"
    )
    return ["### Ridge regressions on the encoders\n", text, markdown_table(header, rows)]


def _confidence(compared: Comparison) -> list[str]:
    """Return a table of how signals of doubt rank the errors of the models; empty without them."""
    if not compared.signals:
        return []
    columns = [column for column in compared.columns if (column, compared.first) in compared.signals]
    names = list(dict.fromkeys(name for of_model in compared.signals.values() for name in of_model))
    rows = []
    for model in compared.models:
        for column in columns:
            own = compared.signals.get((column, model), {})
            rows.append([model, column, *(mean_text(own[name]) if name in own else "" for name in names)])
            rows[-1].append(number(_spread(compared.scored[column, model])))
    text = (
        "Does a model know when it does not know? Rank correlation (SRCC) of signals of doubt with the absolute error "
        "of an utterance, mean over seeds; `distilmos confidence --help` explains the signals. `spread over seeds` is "
        "the standard deviation of the scores over seeds, against the error of their mean.\n"
    )
    return ["## Confidence\n", text, markdown_table(["model", "test", *names, "spread over seeds"], rows)]


def _spread(seeds: Sequence[Arrays]) -> float:
    """Return the SRCC of the deviation of the scores over seeds with the absolute error of their mean."""
    if len(seeds) < 2:
        return nan
    predicted = np.stack([arrays[LEVELS[0]][1] for arrays in seeds])
    return agreement(np.abs(predicted.mean(0) - seeds[0][LEVELS[0]][0]), predicted.std(0))["SRCC"]


def _curves(compared: Comparison, folder: Path) -> list[str]:
    """Return a figure of the dev scores for each protocol, and tables of their drop until the end of training."""
    parts = [
        f"Utterance {DEV_METRIC} on dev during training, mean over seeds; bars show one standard deviation on either "
        f"side.{' A held-out type is not in dev.' * bool(compared.held_out)}\n"
    ]
    for protocol in compared.protocols:
        lines = []
        for model in compared.models:
            events = [experiment.dev for experiment in compared.trained[protocol, model]]
            values = np.array([series(dev, "utterance", DEV_METRIC) for dev in _shortest(events)])
            lines.append(_line(compared, model, series(min(events, key=len), "step"), values))
        name = f"{protocol} held out" if protocol in compared.held_out else protocol
        figure = figures.curves(f"dev-{protocol}", f"{name}: utterance {DEV_METRIC} on dev", lines)
        if figure is not None:
            write_text(folder / f"dev_{protocol}.svg", figures.as_file(figure))
            parts.append(f"![{figure.title}]({folder.name}/dev_{protocol}.svg)\n")
    parts.append(
        "Means and standard deviations over seeds, and over held-out types: `lost` is the best dev score minus the one "
        "at the last step; the regression losses on training and dev recordings are those at the end. Their gap grows "
        "with overfitting and with the difficulty of the dev set. It is negative if dropout, which only the training "
        "loss has, outweighs both.\n"
    )
    for protocol in compared.protocols:
        if protocol not in compared.held_out:
            parts += [f"{protocol}:\n", _overfitting(compared, [protocol])]
    if compared.held_out:
        parts += [f"{TOGETHER}:\n", _overfitting(compared, compared.held_out)]
    return parts


def _overfitting(compared: Comparison, protocols: Sequence[str]) -> str:
    """Return a table of the drop of the dev score until the end of training, and of the final losses."""
    rows = []
    for model in compared.models:
        experiments = [e for protocol in protocols for e in compared.trained[protocol, model]]
        best = [max(series(e.dev, "utterance", DEV_METRIC)) for e in experiments]
        last = [series(e.dev, "utterance", DEV_METRIC)[-1] for e in experiments]
        # A run shorter than log_every has no train event.
        train_loss = [e.train[-1]["regression"] if e.train else nan for e in experiments]
        if any(e.config.get("listener_offsets") for e in experiments):
            train_loss = []  # of single ratings, which the dev loss is not
        dev_loss = [e.dev[-1]["regression"] for e in experiments]
        gaps = [d - t for d, t in zip(dev_loss, train_loss, strict=True)] if train_loss else []
        lost = [b - x for b, x in zip(best, last, strict=True)]
        rows.append([model, *map(mean_text, (best, last, lost, train_loss, dev_loss, gaps))])
    header = ["model", f"best dev {DEV_METRIC}", "at the end", "lost", "loss, train", "loss, dev", "gap"]
    return markdown_table(header, rows)


def _line(compared: Comparison, model: str, x: Sequence[float], values: np.ndarray) -> Line:
    """Return the mean of curves (S, N) with their deviation; a model has the same style in all figures."""
    place = [*compared.models].index(model)
    spread = values.std(0, ddof=1).tolist() if len(values) > 1 else None
    colour, dashed = PALETTE[place % len(PALETTE)], place >= len(PALETTE)
    return Line(model, x, values.mean(0).tolist(), colour, dashed, spread)


def _shortest(events: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
    """Cut the evaluations of all seeds to the length of the shortest run."""
    length = min(map(len, events))
    return [of_seed[:length] for of_seed in events]


def _layers(compared: Comparison, folder: Path) -> list[str]:
    """Return how near each layer stays to the pretrained one and what probes read from it; empty without analyses."""
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
    before += [  # models with other clusters have another task
        f"of {model} {name} {mean_text(values)}"
        for model in analyses
        for name, values in _reads(analyses[model], BEFORE).items()
        if name in frozen and mean_text(values) != mean_text(frozen[name])
    ]
    return [
        "## The layers after fine-tuning\n",
        "Linear CKA of each layer with the frozen one (1: unchanged), and what linear probes read from the layers, as "
        "means over layers, on recordings that the probes did not learn from: the token ids of the frozen layer, which "
        "tokens in training preserve, and labels (accuracy; LCC for MOS). "
        f"In the frozen layers: {', '.join(before)}. All seeds of {', '.join(analysed)}, on dev and test "
        "recordings.\n",
        f"![{figure.title}]({folder.name}/cka.svg)\n",
        markdown_table(header, rows),
    ]


def _reads(analyses: list[dict[str, Any]], when: str) -> dict[str, list[float]]:
    """Return probed name -> accuracy, or LCC for MOS, of each analysis, as mean over layers."""
    found: dict[str, list[float]] = {}
    for analysis in analyses:
        if analysis["tokens"]:
            found.setdefault("tokens", []).append(fmean(row[when]["probe"] for row in analysis["tokens"]))
        for task in analysis["probes"]:
            measure = "LCC" if task["classes"] is None else "accuracy"
            found.setdefault(task["name"], []).append(fmean(row[when][measure] for row in task["layers"]))
    return found


def _times(compared: Comparison) -> list[str]:
    """Return the minutes of a run and their ratio to the first model, from pairs of comparable runs."""
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
        "The time of a run depends on the machine and on its load. So this table compares pairs of runs with the same "
        "protocol, seed, commit and kind of CPU: the minutes of the shortest run, and the median ratio. "
        f"It omits models with fewer than {MIN_PAIRS} pairs.\n",
        markdown_table(["model", "minutes", f"of {first}'s", "pairs"], rows),
    ]


def _minutes(run: Experiment) -> float:
    return float(run.end["elapsed_seconds"]) / 60


def _settings(models: Mapping[str, Model]) -> list[str]:
    """Return a table of the models that change a file of conf/, and these files, each after its base."""
    rows = [[name, f"`{model.spec}`"] for name, model in models.items() if model.spec != name]
    files: list[str] = []
    for model in models.values():
        chain = [f"{model.conf}.yaml"]
        while base := next((line for line in read_lines(CONF / chain[0]) if line.startswith("base: ")), ""):
            chain.insert(0, base.removeprefix("base: "))
        files += chain
    shown = {file: "\n".join(read_lines(CONF / file)) for file in files}
    return [
        *([markdown_table(["model", "configuration and changes"], rows, left=2)] if rows else []),
        *(f"`conf/{file}`:\n\n```yaml\n{text}\n```\n" for file, text in shown.items()),
    ]
