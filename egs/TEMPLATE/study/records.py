"""Read and write the study's records: models.yaml and the three result files. No other code knows their formats.

    models.yaml         protocols, models and pages
    trainings.jsonl.xz  one line for each run: protocol, model, seed, config, start event, dev events, last train event,
                        end event, analysis ({} without one), refit (set -> utterance LCC; absent without one),
                        confidence (set -> what `distilmos confidence` writes; absent without one)
    predictions.tsv.xz  protocol, model, seed, set, utterance, predicted; the seed of a published model is empty
    ratings.tsv         set, utterance, system, group, mos, system_mos

A run is kept when trainings.jsonl.xz has its line. Numbers are written so that they read back exactly.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from distilmos.analysis.confidence import ENTROPY, signals_of
from distilmos.analysis.generalisation import SET
from distilmos.analysis.result import RESULT, read_analysis
from distilmos.data.datadir import read_data_dir
from distilmos.data.sets import RecipeSet, RecipeSets
from distilmos.data.tables import finite_number, read_json, read_lines, read_yaml
from distilmos.errors import InputError, raise_faults
from distilmos.files import atomic_path, exclusive, write_text
from distilmos.report.experiment import Experiment, read_experiment
from distilmos.scoring.results import METRICS_FILE, Scored, read_scored
from distilmos.training.config import TrainConfig, load_config

MODELS = "models.yaml"
TRAININGS, PREDICTIONS, RATINGS = "trainings.jsonl.xz", "predictions.tsv.xz", "ratings.tsv"
CONTENT = ("config", "start", "dev", "train", "end", "analysis")  # fields of Experiment that are kept
PREDICTION = ("protocol", "model", "seed", "set", "utterance", "predicted")
RATING = ("set", "utterance", "system", "group", "mos", "system_mos")
TRAIN, TEST = "train", "test"  # sets of the recipe
REFIT = "refit"  # in the directory of a run, the analysis of its fine-tuned encoder alone
CONFIDENCE = "confidence"  # in the directory of a run, with suffix .json: its signals of doubt
ENDED = ".ended"  # written by ../TEMPLATE/sweep.sh after the last stage of a run
# The key has the seed, workers do not change a result, and the resolved precision is compared between runs.
FREE = {"seed", "num_workers", "precision"}

Key = tuple[str, str, int | None]  # protocol, model, seed; a published model has no seed


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Protocol(_Section):
    """Data on which models are trained and scored.

    Attributes:
        options: of run.sh, separated by spaces; `{seed}` stands for the seed of a run.
        train: further training sets, CORPUS/SET.
        held_out: the type of degradation that only the test set has; None if all sets have all types.
        sets: further test sets, CORPUS/SET -> its targets besides utt2mos. The scores of a target are kept as those of
            a set SET.TARGET.
        refit: whether a ridge regression is fitted to the layers of each fine-tuned encoder, on the training set of the
            recipe itself, and predicts the test sets: apart from the head of the run, it shows what the encoder still
            knows.
        confidence: whether signals of doubt of each run are compared with its errors on the test sets.
    """

    options: str
    train: tuple[str, ...] = ()
    held_out: str | None = None
    sets: dict[str, tuple[str, ...]] = {}
    refit: bool = False
    confidence: bool = False

    @property
    def data_by_seed(self) -> bool:
        """Whether each seed has its own data, and so its own k-means."""
        return "{seed}" in self.options


class Model(_Section):
    """A configuration and its changes.

    Attributes:
        conf: name of a file in conf/, without `.yaml`.
        overrides: settings `key=value` that replace those of the file.
        options: options `clusters=N` or `teacher=SSL` of run.sh.
    """

    conf: str
    overrides: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @property
    def spec(self) -> str:
        """`CONF[+key=value][@option=value]...`, as ../TEMPLATE/sweep.sh accepts it and pages show it."""
        return self.conf + "".join(f"+{o}" for o in self.overrides) + "".join(f"@{o}" for o in self.options)


class Page(_Section):
    """The runs that a page compares: each model with each seed in each protocol, and published models.

    Attributes:
        published: models of `distilmos predict-published`, or names for `distilmos predict --model`.
        dev: whether the page shows the dev set alone; then the test sets are not scored for it.
    """

    protocols: tuple[str, ...]
    models: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    published: tuple[str, ...] = ()
    dev: bool = False

    @property
    def runs(self) -> list[tuple[str, str, int]]:
        """Protocol, model and seed of every run, in the order of the page."""
        return list(product(self.protocols, self.models, self.seeds))

    @property
    def scores(self) -> list[Key]:
        """The keys of all predictions: those of the runs and of the published models."""
        return [*self.runs, *((protocol, name, None) for protocol in self.protocols for name in self.published)]


class Study(_Section):
    """All of models.yaml.

    Attributes:
        title: name of the corpus, for the titles of pages.
        about: what readers of every page must know of the protocols.
        types: groups that pages score apart, such as types of degradation. The systems of any other group are copies of
            one condition. Empty if groups say nothing about systems.
    """

    title: str
    about: str
    types: tuple[str, ...] = ()
    protocols: dict[str, Protocol]
    models: dict[str, Model]
    pages: dict[str, Page]

    @model_validator(mode="after")
    def _names_are_defined(self) -> Study:
        faults = [
            f"page {title}: {name!r} is not defined"
            for title, page in self.pages.items()
            for name in ({*page.protocols} - {*self.protocols}) | ({*page.models} - {*self.models})
        ]
        faults += [
            f"page {title}: with `dev: true`, a page has one protocol and no published models"
            for title, page in self.pages.items()
            if page.dev and (len(page.protocols) > 1 or page.published)
        ]
        faults += [
            f"page {title}: needs models with seeds, or published models"
            for title, page in self.pages.items()
            if bool(page.models) != bool(page.seeds) or not (page.models or page.published)
        ]
        for title, page in self.pages.items():
            sets = [name for each in page.protocols if each in self.protocols for name in self.protocols[each].sets]
            faults += [
                f"page {title}: more than one of its protocols has the test set {name}"
                for name in {*sets}
                if sets.count(name) > 1
            ]
        if faults:
            raise ValueError("; ".join(sorted(faults)))
        return self

    def page(self, name: str) -> Page:
        """Return a page by its name.

        Raises:
            InputError: if models.yaml has no such page.
        """
        if name not in self.pages:
            raise InputError(f"{MODELS}: no page {name!r}; choose one of {', '.join(self.pages)}")
        return self.pages[name]

    def condition(self, row: Scored) -> str:
        """Return the condition of an utterance of the recipe's own sets."""
        return row.group if self.types and row.group not in self.types else row.system

    def place(self, protocol: str, seed: int | None = None) -> str:
        """Return the directory of a protocol's data and runs, below data/study, dump/study and exp/study."""
        return f"{protocol}/{seed}" if self.protocols[protocol].data_by_seed else protocol

    def test_sets(self, protocol: str, dump: Path) -> list[RecipeSet]:
        """Return the test sets of a protocol whose data are in `dump`, that of the recipe first.

        Raises:
            InputError: if a set is of no recipe.
        """
        found = RecipeSets(Path.cwd().name, dump, {})
        return [found.find(word) for word in (TEST, *self.protocols[protocol].sets)]

    def targets(self, protocol: str, dump: Path) -> dict[str, tuple[RecipeSet, str]]:
        """Return SET.TARGET -> set and target, for the further targets of the test sets of a protocol.

        Raises:
            InputError: if a set is of no recipe.
        """
        further = zip(self.test_sets(protocol, dump)[1:], self.protocols[protocol].sets.values(), strict=True)
        return {f"{each.name}.{target}": (each, target) for each, targets in further for target in targets}

    def further(self, protocol: str) -> list[str]:
        """Return the names of the further test sets of a protocol, and of their targets.

        Raises:
            InputError: if a set is of no recipe.
        """
        dump = Path("dump")
        return [each.name for each in self.test_sets(protocol, dump)[1:]] + [*self.targets(protocol, dump)]

    def run_directory(self, exp: Path, key: Key) -> Path:
        """Return the experiment directory of a run, or the directory of a published model's results."""
        protocol, name, seed = key
        of_run = name if seed is None else f"{self.models[name].spec}_seed{seed}"
        return exp / self.place(protocol, seed) / of_run


def read_study(folder: Path) -> Study:
    """Read models.yaml in `folder`.

    Raises:
        InputError: if the file is missing, is not YAML, or has an unknown or missing entry.
    """
    path = folder / MODELS
    try:
        return Study.model_validate(read_yaml(path))
    except ValidationError as error:
        faults = [f"{path}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        raise_faults(faults, f"{path}: study")
        raise


@dataclass
class Kept:
    """The content of the three result files.

    Attributes:
        folder: where they are.
        runs: key -> run, without its scored sets.
        scored: key -> set -> utterances in the order of `distilmos score`.
        refits: key -> set -> utterance LCC of the ridge regression on the fine-tuned encoder.
        confidences: key -> set -> what `distilmos confidence` says of it.
        lines: key -> line of trainings.jsonl.xz, from 1.
    """

    folder: Path
    runs: dict[Key, Experiment] = field(default_factory=dict)
    scored: dict[Key, dict[str, list[Scored]]] = field(default_factory=dict)
    refits: dict[Key, dict[str, float]] = field(default_factory=dict)
    confidences: dict[Key, dict[str, Any]] = field(default_factory=dict)
    lines: dict[Key, int] = field(default_factory=dict)

    def where(self, key: Key) -> str:
        """Return `file:line: protocol/model, seed N` of a run."""
        return f"{self.folder / TRAININGS}:{self.lines[key]}: {run_name(key)}"


def run_name(key: Key) -> str:
    """Return the name of a run or of a published model for messages."""
    return f"{key[0]}/{key[1]}" + ("" if key[2] is None else f", seed {key[2]}")


def read_kept(folder: Path) -> Kept:
    """Read the three result files; without trainings.jsonl.xz and predictions.tsv.xz nothing is kept.

    Raises:
        InputError: if one of them is damaged, or a prediction has no rating, with file and line.
    """
    kept = Kept(folder)
    path = folder / TRAININGS
    for number, line in enumerate(_read_xz(path), start=1):
        try:
            content = json.loads(line)
            key: Key = (content["protocol"], content["model"], int(content["seed"]))
            run = Experiment(Path(run_name(key)), **{name: content[name] for name in CONTENT})
        except (ValueError, KeyError, TypeError) as error:
            raise InputError.at(path, number, f"not a run ({error!r})") from None
        if key in kept.runs:
            raise InputError.at(path, number, f"{run_name(key)} is already in line {kept.lines[key]}")
        kept.runs[key], kept.lines[key] = run, number
        kept.refits[key] = content.get(REFIT, {})
        kept.confidences[key] = content.get(CONFIDENCE, {})

    path = folder / PREDICTIONS
    lines = _read_xz(path)
    if not lines:
        return kept
    ratings = {(fields[0], fields[1]): fields[2:] for _, fields in _rows(folder / RATINGS, RATING)}
    utterances: set[tuple[Key, str, str]] = set()
    for number, (protocol, model, seed, name, utterance, predicted) in _rows(path, PREDICTION, lines):
        try:
            key = (protocol, model, int(seed) if seed else None)
            system, group, mos, system_mos = ratings[name, utterance]
            true_mos = finite_number(system_mos) if system_mos else None
            row = Scored(utterance, system, group, finite_number(mos), finite_number(predicted), true_mos)
        except KeyError:
            raise InputError.at(path, number, f"{utterance} of {name} has no rating in {folder / RATINGS}") from None
        except (ValueError, InputError) as error:
            raise InputError.at(path, number, f"{utterance}: {error}") from None
        if (key, name, utterance) in utterances:
            raise InputError.at(path, number, f"{run_name(key)}: {utterance} of {name} is given twice")
        utterances.add((key, name, utterance))
        kept.scored.setdefault(key, {}).setdefault(name, []).append(row)
    return kept


def _read_xz(path: Path) -> list[str]:
    """Return the lines of a compressed file; none if it does not exist."""
    try:
        with lzma.open(path, "rt", encoding="utf-8") as stream:
            return stream.read().split("\n")[:-1]  # not splitlines(): see distilmos.data.tables
    except FileNotFoundError:
        return []
    except (lzma.LZMAError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not an xz file of UTF-8 text: {error}") from None


def _rows(path: Path, header: tuple[str, ...], lines: list[str] | None = None) -> Iterator[tuple[int, list[str]]]:
    """Give line number and fields of each line after the header of a tab-separated file."""
    for number, line in enumerate(read_lines(path) if lines is None else lines, start=1):
        fields = line.split("\t")
        if len(fields) != len(header) or (number == 1 and fields != list(header)):
            raise InputError.at(path, number, f"expected the tab-separated columns {', '.join(header)}")
        if number > 1:
            yield number, fields


def write_kept(kept: Kept) -> None:
    """Write the three result files, each as a whole. Runs come last, so that each kept run has its predictions.

    Raises:
        InputError: if two runs were scored with different ratings of an utterance.
    """
    ratings: dict[tuple[str, str], tuple[Any, ...]] = {}
    predictions = ["\t".join(PREDICTION)]
    for (protocol, model, seed), sets in kept.scored.items():
        of_run = f"{protocol}\t{model}\t{'' if seed is None else seed}"
        for name, rows in sets.items():
            for row in rows:
                rating = (row.system, row.group, row.mos, row.system_mos)
                known = ratings.setdefault((name, row.utterance), rating)
                if known != rating:
                    run = run_name((protocol, model, seed))
                    raise InputError(f"{run}: {name} {row.utterance}: rated {rating}, but {known} for other runs")
                predictions.append(f"{of_run}\t{name}\t{row.utterance}\t{row.predicted}")
    lines = ["\t".join(RATING)]
    for (name, utterance), (system, group, mos, system_mos) in sorted(ratings.items()):
        lines.append(f"{name}\t{utterance}\t{system}\t{group}\t{mos}\t{'' if system_mos is None else system_mos}")
    runs = [
        json.dumps(
            {"protocol": protocol, "model": model, "seed": seed}
            | {name: getattr(run, name) for name in CONTENT}
            | ({REFIT: refit} if (refit := kept.refits.get((protocol, model, seed))) else {})
            | ({CONFIDENCE: found} if (found := kept.confidences.get((protocol, model, seed))) else {})
        )
        for (protocol, model, seed), run in kept.runs.items()
    ]
    write_text(kept.folder / RATINGS, "\n".join(lines) + "\n")
    _write_xz(kept.folder / PREDICTIONS, predictions)
    _write_xz(kept.folder / TRAININGS, runs)


def _write_xz(path: Path, lines: list[str]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(lzma.compress("".join(f"{line}\n" for line in lines).encode()))


def missing(study: Study, page: Page, kept: Kept) -> list[Key]:
    """Return the runs and the published models of a page that are not kept, or not with the scores that it needs."""
    if page.dev:
        return [key for key in page.scores if key not in kept.runs]
    needed = {protocol: {TEST, *study.further(protocol)} for protocol in page.protocols}
    return [key for key in page.scores if not needed[key[0]] <= kept.scored.get(key, {}).keys()]


def keep(study: Study, page: Page, folder: Path, exp: Path) -> str:
    """Add the finished runs of a page to the result files, all in one step.

    Args:
        study: of models.yaml.
        page: whose runs are added; a run that is kept already is skipped.
        folder: of the result files.
        exp: with the experiment directories, exp/study.

    Returns:
        one line that counts the runs that were added, kept before, and not finished.

    Raises:
        InputError: if a finished run is damaged, or was scored with other ratings; then nothing is written.
    """
    with exclusive(folder / TRAININGS):
        kept = read_kept(folder)
        lacking = missing(study, page, kept)
        added = 0
        for key in lacking:
            directory = study.run_directory(exp, key)
            sets = study.test_sets(key[0], Path("dump"))
            if key[2] is None:
                results = {each.name: directory / "results" / each.name for each in sets}
                if not all((path / METRICS_FILE).exists() for path in results.values()):
                    continue
                kept.scored[key] = {name: read_scored(path) for name, path in results.items()}
            elif not (directory / ENDED).exists():
                continue
            else:
                run, protocol = read_experiment(directory), study.protocols[key[0]]
                refit = protocol.refit and not page.dev
                doubts = protocol.confidence and not page.dev and has_signals(TrainConfig.model_validate(run.config))
                if not (page.dev or {each.name for each in sets} <= {scored.name for scored in run.sets}):
                    continue
                refits = _refit_scores(directory / REFIT) if refit else {}
                signals = _signals(directory / f"{CONFIDENCE}.json") if doubts else {}
                names = {each.raw.name for each in sets}
                if (refit and not names <= refits.keys()) or (doubts and not names <= signals.keys()):
                    continue
                if doubts:
                    kept.confidences[key] = {each.name: signals[each.raw.name] for each in sets}
                if refit:
                    kept.refits[key] = refits
                run.train = run.train[-1:]
                kept.runs[key] = run
                if run.sets:
                    kept.scored[key] = {scored.name: scored.rows for scored in run.sets}
            scored = kept.scored.get(key, {})  # none of a run for a dev page
            for name, (each, target) in study.targets(key[0], Path("dump")).items() if scored else ():
                scored[name] = _rows_of_target(scored[each.name], each, target)
            added += 1
        if added:
            write_kept(kept)
    return f"kept {added}; kept before: {len(page.scores) - len(lacking)}; not finished: {len(lacking) - added}"


def has_signals(config: TrainConfig) -> bool:
    """Return whether trained networks have signals of doubt; token predictors of weight 0 are not trained."""
    return any(config.distils or name != ENTROPY for name in signals_of(config))


def _signals(path: Path) -> dict[str, Any]:
    """Return name of a test set -> what `distilmos confidence` says of it; empty if there is no such file."""
    return {Path(row["path"]).name: row for row in read_json(path, list[dict[str, Any]])} if path.exists() else {}


def _refit_scores(directory: Path) -> dict[str, float]:
    """Return name of a test set -> utterance LCC of the ridge regression on all layers; empty without one."""
    if not (directory / RESULT).exists():
        return {}
    tests = [row for row in read_analysis(directory)["generalisation"] if row["kind"] == SET]
    return {Path(row["name"]).name: row["all"]["LCC"]["value"] for row in tests}


def _rows_of_target(rows: list[Scored], of: RecipeSet, target: str) -> list[Scored]:
    """Return the same predictions with the ratings of another target of the set.

    Raises:
        InputError: if the set lacks this target for an utterance.
    """
    rated = read_data_dir(of.raw, rated=False).target(target)[1]
    raise_faults([f"{of.raw}: {r.utterance} has no {target}" for r in rows if r.utterance not in rated], str(of.raw))
    return [replace(row, mos=rated[row.utterance], system_mos=None) for row in rows]


def check(study: Study, page: Page, kept: Kept, conf: Path) -> None:
    """Compare the kept runs of a page with the settings that conf/ has now, and with each other.

    Settings do not name everything that made a run. These must be equal: the precision in all runs of the page, the
    weights that an encoder's name stands for, the initial model in all runs of a model, and the k-means in all runs of
    a model on the same data. A run that is not kept is passed over.

    Raises:
        InputError: naming each run with other settings, and each value that should be equal and is not.
    """
    faults = []
    first: dict[tuple[str, ...], dict[str, Key]] = {}  # what must be equal -> value -> the first run with it
    for key in page.runs:
        protocol, name, seed = key
        if key not in kept.runs:
            continue
        model, run = study.models[name], kept.runs[key]
        wanted = load_config(conf / f"{model.conf}.yaml", model.overrides).model_dump(exclude=FREE)
        try:
            config = TrainConfig.model_validate(run.config)
        except ValidationError as error:
            faults.append(f"{kept.where(key)}: bad settings: {error}")
            continue
        found = config.model_dump(exclude=FREE)
        faults += [
            f"{kept.where(key)}: {setting} was {found[setting]!r} and is {wanted[setting]!r} in {conf} now"
            for setting in wanted
            if wanted[setting] != found[setting]
        ]
        # Logs of earlier versions lack these values. They do not say what `precision: auto` resolved to.
        start = {"precision": config.precision if config.precision != "auto" else None} | run.start
        for entry, scope in (
            ("precision", ()),
            ("encoder", (config.ssl_model,)),
            ("initial_model", (name,)),
            ("kmeans", (name, study.place(protocol, seed))),
        ):
            if start.get(entry):
                first.setdefault((entry, *scope), {}).setdefault(start[entry], key)
    for (entry, *_), values in first.items():
        if len(values) > 1:
            faults += [f"{kept.where(key)}: {entry} is {value}; other runs differ" for value, key in values.items()]
    raise_faults(faults, "kept runs with other settings")
