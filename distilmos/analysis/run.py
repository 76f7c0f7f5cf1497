"""One analysis from its inputs to analysis.json."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distilmos.analysis.material import MOS, Material, read_material
from distilmos.analysis.probes import FOLDS, Pooling, Task, chance, label_task, mos_task, probe
from distilmos.analysis.result import AFTER, BEFORE, DIRECTORY, RESULT
from distilmos.analysis.sample import Sample, States
from distilmos.analysis.similarity import LayerSimilarity, columns_at_once
from distilmos.analysis.tokens import LayerTokens
from distilmos.data.tables import read_lines
from distilmos.errors import InputError
from distilmos.files import without_nan, write_json
from distilmos.model.networks import DistilMOS, EncoderNetwork, MOSNetwork
from distilmos.model.package import load_model_dir
from distilmos.provenance import commit, machine, now
from distilmos.ssl.encoder import SSLEncoder
from distilmos.ssl.forward import choose_device
from distilmos.ssl.load import load_ssl
from distilmos.tokens.forward import BATCH_SECONDS
from distilmos.tokens.info import INFO, TokenInfo
from distilmos.tokens.kmeans import hash_centroids, load_centroids
from distilmos.training.config import load_config


@dataclass(frozen=True)
class AnalysisOptions:
    """What to analyse, on what.

    Attributes:
        experiment: exp/<tag>, trained; or None.
        ssl: in place of an experiment, name or path of an encoder, which is analysed alone.
        out: where the analysis goes; None takes experiment/analysis.
        data: data directories of stage 1; none takes the dev set of the experiment.
        labels: name -> table of labels to be probed, besides those of the data directories.
        kmeans: directory of stage 3; None takes the one beside the experiment that made its tokens.
        max_frames: frames to look at, of as many utterances as hold ten times so many.
        seed: of what is drawn.
        device: where to compute, as `choose_device` takes it.
        batch_seconds: padded seconds in one forward pass.
    """

    experiment: Path | None
    ssl: str | None
    out: Path | None
    data: tuple[Path, ...]
    labels: dict[str, Path]
    kmeans: Path | None
    max_frames: int = 20000
    seed: int = 1
    device: str = "auto"
    batch_seconds: float = BATCH_SECONDS


@dataclass(frozen=True)
class _Subject:
    """The encoders, the frozen one first, and the centroids of its layers, (K, D) each; none without k-means."""

    ssl: str
    encoders: list[SSLEncoder]
    model: str | None
    kmeans: Path | None
    centroids: list[np.ndarray]


def analyze(options: AnalysisOptions) -> Path:
    """Analyse an experiment, or an encoder alone, and write analysis.json.

    Returns:
        the directory that it is in.

    Raises:
        InputError: if options are missing; or the experiment, an encoder, a k-means, a data directory or a table is
            missing, faulty or of something else.
    """
    _check(options)
    device = choose_device(options.device)
    subject = _read_subject(options)
    material = read_material(_data_dirs(options), options.labels)
    for encoder in subject.encoders:
        encoder.to(device)
    sample = Sample(material, subject.encoders, device, options.batch_seconds, options.max_frames, options.seed)
    tasks, left_out = _tasks(material, sample, options.seed)
    if not subject.centroids:
        left_out.insert(0, "tokens: no k-means of this encoder's layers is named, or beside the experiment")
    centroids = [torch.from_numpy(array).to(device) for array in subject.centroids]
    layers = [LayerTokens(array, len(subject.encoders)) for array in centroids]
    pooling = Pooling()
    similarity = _listen(sample, subject.encoders, layers, pooling, device)
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
        "notes": material.notes,
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
    }
    out = options.out or Path(options.experiment or "") / DIRECTORY
    write_json(out / RESULT, without_nan(result))
    return out


def _check(options: AnalysisOptions) -> None:
    if (options.experiment is None) == (options.ssl is None):
        raise InputError("name an experiment directory, or an encoder with --ssl")
    if options.ssl is not None and (options.out is None or not options.data):
        raise InputError("--ssl needs --data and --out")
    if options.experiment is not None and not options.experiment.is_dir():
        raise InputError(f"{options.experiment}: no such directory")


def _read_subject(options: AnalysisOptions) -> _Subject:
    if options.ssl is not None:
        before = load_ssl(options.ssl)
        centroids = _centroids(options.kmeans, before) if options.kmeans else []
        return _Subject(options.ssl, [before], None, options.kmeans, centroids)
    experiment = Path(options.experiment or "")
    ssl = load_config(experiment / "config.yaml").ssl_model
    before, model = load_ssl(ssl), _fine_tuned(experiment)
    if not isinstance(model, EncoderNetwork):
        raise InputError(f"{experiment}: a network of spectra alone has no layers")
    ours, theirs = before.config, model.encoder_config
    for name in ("num_layers", "embed_dim", "conv_layers"):
        if getattr(ours, name) != getattr(theirs, name):
            raise InputError(
                f"{experiment}: its encoder has {name} {getattr(theirs, name)}, {ssl} {getattr(ours, name)}: it was "
                "not made of that"
            )
    kmeans = options.kmeans or _kmeans_of(experiment, model, before)
    centroids = _centroids(kmeans, before) if kmeans else []
    return _Subject(ssl, [before, model.encoder], model.config.model, kmeans, centroids)


def _fine_tuned(experiment: Path) -> MOSNetwork:
    for name in ("final", "model"):
        if (experiment / name).is_dir():
            return load_model_dir(experiment / name)
    raise InputError(f"{experiment}: has neither final/ nor model/: the training has not finished")


def _centroids(directory: Path, encoder: SSLEncoder) -> list[np.ndarray]:
    info = TokenInfo.read(directory)
    info.require_encoder(encoder.fingerprint(), directory)
    return load_centroids(directory, info)


def _kmeans_of(experiment: Path, model: MOSNetwork, encoder: SSLEncoder) -> Path | None:
    """Return the k-means beside an experiment that its tokens are of; None without one, or if of another encoder."""
    if not isinstance(model, DistilMOS) or not model.kmeans:
        return None
    beside = Path(os.path.relpath(experiment.resolve().parent))
    for path in sorted(beside.glob(f"kmeans_*/{INFO}")):
        info = TokenInfo.read(path.parent)
        fits = (info.fingerprint, info.clusters) == (encoder.fingerprint(), model.clusters)
        if fits and hash_centroids(load_centroids(path.parent, info)) == model.kmeans:
            return path.parent
    return None


def _data_dirs(options: AnalysisOptions) -> list[Path]:
    """Return the data directories that were asked for, or the dev set, as the experiment's log names it."""
    if options.data:
        return list(options.data)
    path = Path(options.experiment or "") / "log.jsonl"
    try:
        found = Path(json.loads(read_lines(path)[0])["data"]["dev"]["dir"])
    except (InputError, ValueError, KeyError, TypeError, IndexError):
        raise InputError(f"{path}: does not say on what the experiment was evaluated: name data directories") from None
    if not found.is_dir():
        raise InputError(f"{path}: names {found}, which is not here: name data directories")
    return [found]


def _tasks(material: Material, sample: Sample, seed: int) -> tuple[list[Task], list[str]]:
    """Return what is probed, and a line for each thing that is not."""
    tasks, left_out = [], []
    used = sample.utterances
    for name, labels in material.labels.items():
        task = label_task(name, labels, used, material.systems, seed)
        if task is not None:
            tasks.append(task)
            continue
        reason = f"{name}: fewer than two labels that several of the {len(used)} utterances have"
        if name in material.demanded:
            raise InputError(f"label {reason}")
        left_out.append(reason)
    task = mos_task(MOS, material.mos, used, material.systems, seed)
    if task is None:
        left_out.append(f"{MOS}: not all data is rated" if not material.mos else f"{MOS}: fewer than three systems")
    else:
        tasks.append(task)
    return tasks, left_out


def _listen(
    sample: Sample, encoders: list[SSLEncoder], layers: list[LayerTokens], pooling: Pooling, device: torch.device
) -> np.ndarray:
    """Run the encoders over the sample; fill `layers` and `pooling`, and return the similarity of layers, (L, L)."""
    config = encoders[0].config
    count, width = config.num_layers, config.embed_dim
    step = columns_at_once(count, width)
    parts = []
    for start in range(0, count, step):
        columns = range(count)[start : start + step]
        similarity = LayerSimilarity(count, len(columns), width, device)
        states = sample.states(sample.utterances)
        if start == 0:
            states = _pooled(pooling, states)
        for block in sample.blocks(states):
            similarity.add(block.states[0], [block.states[-1][column] for column in columns])
            if start == 0 and layers:
                for layer, *frames in zip(layers, *block.states, strict=True):
                    layer.learn(frames, block.held_out)
        parts.append(similarity.cka())
    if layers:
        discriminants = [layer.discriminants() for layer in layers]
        for block in sample.blocks(sample.states(sorted(sample.held_out))):
            for layer, learned, *frames in zip(layers, discriminants, *block.states, strict=True):
                layer.test(frames, learned)
    return np.concatenate(parts, axis=1)


def _pooled(pooling: Pooling, states: Iterable[tuple[str, States]]) -> Iterator[tuple[str, States]]:
    """Pass on what `states` gives, having pooled it."""
    for utterance, encoders in states:
        pooling.add(utterance, encoders)
        yield utterance, encoders


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
