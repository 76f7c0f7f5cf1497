"""Analyse an experiment or an encoder, and write analysis.json."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distilmos.analysis.generalisation import MIN_CONDITIONS, PooledSet, generalisation
from distilmos.analysis.material import Material, read_material
from distilmos.analysis.probes import Pooling, Task, chance, label_task, mos_task, probe
from distilmos.analysis.result import AFTER, BEFORE, DIRECTORY, RESULT
from distilmos.analysis.sample import Runner, Sample, States
from distilmos.analysis.similarity import LayerSimilarity, columns_at_once
from distilmos.analysis.tokens import LayerTokens
from distilmos.data.tables import parse_json, read_lines
from distilmos.errors import InputError, raise_faults
from distilmos.files import without_nan, write_json
from distilmos.model.directory import CONFIG, EXPORTED, FINAL, LOG
from distilmos.model.networks import DistilMOS, EncoderNetwork
from distilmos.model.package import load_model_dir
from distilmos.provenance import commit, machine, now
from distilmos.ridge import FOLDS
from distilmos.ssl.encoder import SSLEncoder
from distilmos.ssl.forward import choose_device
from distilmos.ssl.load import load_ssl
from distilmos.tokens.forward import BATCH_SECONDS
from distilmos.tokens.info import INFO, TokenInfo
from distilmos.tokens.kmeans import hash_centroids, load_centroids
from distilmos.training.config import load_config


@dataclass(frozen=True)
class AnalysisOptions:
    """Subject, data and settings of an analysis.

    Attributes:
        experiment: trained experiment, exp/<tag>; None if `ssl` is given.
        ssl: encoder to analyse alone, or a model directory for the encoder in it; None if `experiment` is given.
        out: output directory; None means experiment/analysis.
        data: data directories of stage 1; if empty, the dev set of the experiment.
        test_data: rated data directories whose MOS an encoder alone is to predict after a fit to all of `data`.
        labels: name -> table of labels to probe, in addition to those of the data directories.
        kmeans: k-means directory of stage 3; None means the one next to the experiment that made its tokens.
        max_frames: number of sampled frames, see `Sample`.
        seed: seed of the sample and of the folds.
        device: device name, see `choose_device`.
        batch_seconds: padded seconds in one forward pass.
    """

    experiment: Path | None
    ssl: str | None
    out: Path | None
    data: tuple[Path, ...]
    test_data: tuple[Path, ...]
    labels: dict[str, Path]
    kmeans: Path | None
    max_frames: int = 20000
    seed: int = 1
    device: str = "auto"
    batch_seconds: float = BATCH_SECONDS


@dataclass(frozen=True)
class _Subject:
    """The encoders, the frozen one first, and the centroids of its layers, (K, D) each; empty without k-means."""

    ssl: str
    encoders: list[SSLEncoder]
    model: str | None
    kmeans: Path | None
    centroids: list[np.ndarray]


def analyze(options: AnalysisOptions) -> Path:
    """Analyse an experiment, or an encoder alone, and write analysis.json.

    Returns:
        the directory of analysis.json.

    Raises:
        InputError: if options are missing, or if the experiment, an encoder, a k-means, a data directory or a table is
            missing, faulty or does not belong to the others.
    """
    _check(options)
    device = choose_device(options.device)
    subject = _read_subject(options)
    material = read_material(_data_dirs(options), options.labels, rated=bool(options.test_data))
    for encoder in subject.encoders:
        encoder.to(device)
    runner = Runner(subject.encoders, device, options.batch_seconds)
    tests = _read_tests(options.test_data, material, runner)
    sample = Sample(material, runner, options.max_frames, options.seed)
    tasks, left_out = _tasks(material, sample, options.seed)
    if not subject.centroids:
        left_out.insert(0, "tokens: no k-means of this encoder; give one with --kmeans")
    centroids = [torch.from_numpy(array).to(device) for array in subject.centroids]
    layers = [LayerTokens(array, len(subject.encoders)) for array in centroids]
    # An encoder alone is also judged by how well all of its rated utterances predict others.
    everything = runner.readable(material)
    enough = len({material.conditions[u] for u in everything}) >= MIN_CONDITIONS
    judged = options.ssl is not None and bool(material.mos) and enough
    if options.test_data and not judged:
        paths = ", ".join(map(str, material.paths))
        raise InputError(f"{paths}: has fewer than {MIN_CONDITIONS} systems; --test-data needs more to fit to")
    used = everything if judged else sample.utterances
    pooling = Pooling()
    similarity = _measure_layers(material, used, sample, runner, layers, pooling)
    result = {
        "subject": str(options.experiment or options.ssl),
        "ssl": subject.ssl,
        "model": subject.model,
        "time": now(),
        "commit": commit(),
        "hardware": machine(device),
        "fingerprints": [encoder.fingerprint() for encoder in subject.encoders],
        "seed": options.seed,
        "max_frames": options.max_frames,
        "data": [str(path) for path in material.paths],
        "label_tables": {name: str(path) for name, path in options.labels.items()},
        "rated": material.scale.name,
        "notes": " ".join(dict.fromkeys(read.notes for read in (material, *tests) if read.notes)),
        "kmeans": str(subject.kmeans) if subject.kmeans else None,
        "utterances": len(sample.utterances),
        "seconds": sample.seconds,
        "frames": sum(map(len, sample.frames.values())),
        "held_out": len(sample.held_out),
        "folds": FOLDS,
        "left_out": left_out,
        "similarity": similarity.tolist(),
        "tokens": _token_rows(layers),
        "probes": [_probe_rows(task, pooling, subject.encoders) for task in tasks],
        "test_data": [str(path) for path in options.test_data],
        "generalisation": _generalisation(material, tests, pooling, runner, options.seed) if judged else [],
    }
    out = options.out or Path(options.experiment or "") / DIRECTORY
    write_json(out / RESULT, without_nan(result))
    return out


def _check(options: AnalysisOptions) -> None:
    if (options.experiment is None) == (options.ssl is None):
        raise InputError("give either an experiment directory or an encoder with --ssl")
    if options.ssl is not None and (options.out is None or not options.data):
        raise InputError("--ssl needs --data and --out; give both")
    if options.experiment is not None and options.test_data:
        raise InputError("--test-data needs --ssl: it judges an encoder alone")
    if options.experiment is not None and not options.experiment.is_dir():
        raise InputError(f"{options.experiment}: no such directory")


def _read_subject(options: AnalysisOptions) -> _Subject:
    if options.ssl is not None:
        before = _encoder(options.ssl)
        centroids = _centroids(options.kmeans, before) if options.kmeans else []
        return _Subject(options.ssl, [before], None, options.kmeans, centroids)
    experiment = Path(options.experiment or "")
    ssl = load_config(experiment / CONFIG).ssl_model
    before, model = load_ssl(ssl), _fine_tuned(experiment)
    ours, theirs = before.config, model.encoder_config
    for name in ("num_layers", "embed_dim", "hop"):
        if getattr(ours, name) != getattr(theirs, name):
            raise InputError(
                f"{experiment}: its encoder is not a fine-tuned {ssl}: {name} is {getattr(theirs, name)}, not "
                f"{getattr(ours, name)}"
            )
    kmeans = options.kmeans or _kmeans_of(experiment, model, before)
    centroids = _centroids(kmeans, before) if kmeans else []
    return _Subject(ssl, [before, model.encoder], model.config.model, kmeans, centroids)


def _encoder(name: str) -> SSLEncoder:
    return _network(Path(name)).encoder if (Path(name) / CONFIG).exists() else load_ssl(name)


def _network(directory: Path) -> EncoderNetwork:
    model = load_model_dir(directory)
    if not isinstance(model, EncoderNetwork):
        raise InputError(f"{directory}: the model has no encoder whose layers could be analysed")
    return model


def _fine_tuned(experiment: Path) -> EncoderNetwork:
    for name in (FINAL, EXPORTED):
        if (experiment / name).is_dir():
            return _network(experiment / name)
    raise InputError(f"{experiment}: has neither {FINAL}/ nor {EXPORTED}/; finish training first")


def _centroids(directory: Path, encoder: SSLEncoder) -> list[np.ndarray]:
    info = TokenInfo.read(directory)
    info.require_encoder(encoder.fingerprint(), directory)
    return load_centroids(directory, info)


def _kmeans_of(experiment: Path, model: EncoderNetwork, encoder: SSLEncoder) -> Path | None:
    """Find the k-means next to an experiment that made its tokens; return None if no directory matches."""
    if not isinstance(model, DistilMOS) or not model.kmeans:
        return None
    parent = Path(os.path.relpath(experiment.resolve().parent))
    for path in sorted(parent.glob(f"kmeans_*/{INFO}")):
        info = TokenInfo.read(path.parent)
        fits = (info.fingerprint, info.clusters) == (encoder.fingerprint(), model.clusters)
        if fits and hash_centroids(load_centroids(path.parent, info)) == model.kmeans:
            return path.parent
    return None


def _data_dirs(options: AnalysisOptions) -> list[Path]:
    """Return the given data directories, or else the dev set that the log of the experiment names."""
    if options.data:
        return list(options.data)
    path = Path(options.experiment or "") / LOG
    try:
        found = Path(parse_json(read_lines(path)[0], path)["data"]["dev"]["dir"])
    except (InputError, KeyError, TypeError, IndexError):
        raise InputError(f"{path}: does not name the dev set; give data directories with --data") from None
    if not found.is_dir():
        raise InputError(f"{path}: names the dev set {found}, which does not exist; give data directories with --data")
    return [found]


def _read_tests(directories: Sequence[Path], material: Material, runner: Runner) -> list[Material]:
    """Read the test sets; they must share no recording with the data of the fit. Equal ids of others do no harm."""
    fitted = {location: utterance for utterance, location in material.wavs.items()}
    tests = [read_material([directory], {}, rated=True) for directory in dict.fromkeys(directories)]
    for test in tests:
        wavs = test.paths[0] / "wav.scp"
        shared = [
            f"{wavs}: {utterance} is the recording of {fitted[location]} in --data"
            for utterance, location in test.wavs.items()
            if location in fitted
        ]
        raise_faults(shared, "--data and --test-data share recordings")
        if not runner.readable(test):
            raise InputError(f"{wavs}: all utterances are shorter than a frame of the encoder")
    return tests


def _tasks(material: Material, sample: Sample, seed: int) -> tuple[list[Task], list[str]]:
    """Return the tasks to probe, and a line for each label that cannot be probed."""
    tasks, left_out = [], []
    used = sample.utterances
    for name, labels in material.labels.items():
        task = label_task(name, labels, used, material.conditions, seed)
        if task is not None:
            tasks.append(task)
            continue
        reason = f"{name}: fewer than two labels occur in several of the {len(used)} utterances"
        if name in material.requested:
            raise InputError(f"label {reason}")
        left_out.append(reason)
    name = material.scale.name
    task = mos_task(name, material.mos, used, material.conditions, seed)
    if task is None:
        left_out.append(f"{name}: fewer than three systems" if material.mos else f"{name}: not all data is rated")
    else:
        tasks.append(task)
    return tasks, left_out


def _measure_layers(
    material: Material,
    used: Sequence[str],
    sample: Sample,
    runner: Runner,
    layers: list[LayerTokens],
    pooling: Pooling,
) -> np.ndarray:
    """Run the encoders over the sample, fill `layers`, and return the CKA of all layers, (L, L).

    The first pass runs over all utterances of `used`, which include the sample, and fills `pooling`.
    """
    config = runner.encoders[0].config
    count, width = config.num_layers, config.embed_dim
    step = columns_at_once(count, width)
    parts = []
    for start in range(0, count, step):
        columns = range(count)[start : start + step]
        similarity = LayerSimilarity(count, len(columns), width, runner.device)
        states = runner.states(material, used if start == 0 else sample.utterances)
        if start == 0:
            states = _pooled(pooling, states)
        states = (item for item in states if item[0] in sample.frames)
        for block in sample.blocks(states):
            similarity.add(block.states[0], [block.states[-1][column] for column in columns])
            if start == 0 and layers:
                for layer, *frames in zip(layers, *block.states, strict=True):
                    layer.learn(frames, block.held_out)
        parts.append(similarity.cka())
    if layers:
        discriminants = [layer.discriminants() for layer in layers]
        for block in sample.blocks(runner.states(material, sorted(sample.held_out))):
            for layer, learned, *frames in zip(layers, discriminants, *block.states, strict=True):
                layer.test(frames, learned)
    return np.concatenate(parts, axis=1)


def _pooled(pooling: Pooling, states: Iterable[tuple[str, States]]) -> Iterator[tuple[str, States]]:
    """Yield the items of `states` and add each to `pooling`."""
    for utterance, encoders in states:
        pooling.add(utterance, encoders)
        yield utterance, encoders


def _generalisation(
    material: Material, tests: Sequence[Material], pooling: Pooling, runner: Runner, seed: int
) -> list[dict[str, Any]]:
    """Judge the first encoder, whose features of `material` are in `pooling`."""
    sets = []
    for test in tests:
        pooled = Pooling()
        for utterance, encoders in runner.states(test, runner.readable(test)):
            pooled.add(utterance, encoders)
        sets.append(_pooled_set(test, pooled))
    return generalisation(_pooled_set(material, pooling), sets, seed)


def _pooled_set(material: Material, pooling: Pooling) -> PooledSet:
    utterances = sorted(pooling.utterances)
    return PooledSet(
        name=", ".join(map(str, material.paths)),
        mos=np.array([material.mos[u] for u in utterances]),
        conditions=np.array([material.conditions[u] for u in utterances]),
        groups=np.array([material.own_groups.get(u, "") for u in utterances]),
        layers=[pooling.features(0, layer, utterances) for layer in range(pooling.num_layers)],
    )


def _token_rows(layers: list[LayerTokens]) -> list[dict[str, Any]]:
    return [
        {"layer": number, "chance": layer.chance(), **dict(zip((BEFORE, AFTER), layer.result(), strict=False))}
        for number, layer in enumerate(layers, start=1)
    ]


def _probe_rows(task: Task, pooling: Pooling, encoders: list[SSLEncoder]) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    for layer in range(encoders[0].config.num_layers):
        row: dict[str, Any] = {"layer": layer + 1}
        for place, name in enumerate((BEFORE, AFTER)[: len(encoders)]):
            row[name] = probe(task, pooling.features(place, layer, task.utterances))
        rows.append(row)
    return {
        "name": task.name,
        "utterances": len(task.utterances),
        "classes": len(set(task.targets)) if task.labelled else None,
        "chance": chance(task) if task.labelled else None,
        "folds_of": task.units,
        "layers": rows,
    }
