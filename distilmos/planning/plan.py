"""Plan a recipe: the sizes, disk, time and memory of stages 1 to 6.

Time and memory come from short measurements on this machine.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from distilmos.data.audio import SAMPLE_RATE
from distilmos.data.datadir import DataDir, read_data_dir
from distilmos.data.schema import MOS_SCALE, scale_of
from distilmos.errors import InputError
from distilmos.markdown import markdown_table
from distilmos.memory import is_small
from distilmos.model.networks import EncoderNetwork, MOSNetwork, build_model
from distilmos.planning.measure import (
    KMEANS_ITERATIONS,
    cpu_threads,
    measure_forward,
    measure_kmeans,
    measure_prediction,
    measure_training,
    peak_memory,
)
from distilmos.ssl.encoder import SSLEncoder
from distilmos.ssl.load import load_ssl
from distilmos.tokens.features import MAX_FRAMES, SPREAD
from distilmos.tokens.forward import BATCH_SECONDS
from distilmos.tokens.kmeans import CLUSTERS
from distilmos.training.batchnorm import STATISTICS_BATCHES
from distilmos.training.config import TrainConfig
from distilmos.training.inputs import check_metric
from distilmos.training.measure import passes_of
from distilmos.training.optimizer import freeze
from distilmos.training.ratedset import read_rated_set, refuse_long

SAMPLE_BYTES = 2  # stage 1 stores 16 bits
FEATURE_BYTES = 2  # Kaldi's compressed matrix
TOKEN_BYTES = 5  # Kaldi's int32 vector stores the size in front of each number
POOLED_BYTES = 4
WEIGHT_BYTES = 4
ADAM_STATES = 2
# On a CPU, training keeps freed memory of small networks, with gaps that later batches do not fill. Its peak was 1.3
# times the memory of the largest batch after 18 steps of hubert_tiny, and 1.7 to 1.9 times after 72; longer runs were
# not measured. Large networks give memory back: with HuBERT Base and WavLM Base+, 1.3 and 1.4 times after 20 steps and
# the evaluations.
KEPT, KEPT_IF_LARGE = 2.2, 1.6
FORWARD_KEPT = 1.25  # stages 2 and 4: the same factor; it was at most 1.09
PREDICT_KEPT = 1.5  # stage 6: it was at most 1.26
KMEANS_LIBRARIES = 250e6  # bytes of a stage 3 process without frames: measured 190e6, and a margin


@dataclass(frozen=True)
class PlanOptions:
    """How the user will run the stages.

    Attributes:
        clusters: K.
        max_frames: training frames sampled for k-means.
        batch_seconds: padded seconds of a batch in stages 2 and 4.
        jobs: parallel jobs of stages 2 to 4, each with one CPU thread or GPU.
        threads: CPU threads of stages 5 and 6.
    """

    clusters: int = CLUSTERS
    max_frames: int = MAX_FRAMES
    batch_seconds: float = BATCH_SECONDS
    jobs: int = 1
    threads: int = 1

    def sampled(self, frames: int) -> int:
        """Return how many of the `frames` of a training set k-means gets."""
        return min(self.max_frames, frames)


@dataclass(frozen=True)
class Stage:
    """The estimate for one stage.

    Attributes:
        stage: number and name.
        audio: seconds that go through the network; None without a network.
        seconds: wall time; None if negligible.
        memory: upper bound for the largest process, in bytes; None if negligible.
        disk: bytes written.
    """

    stage: str
    audio: float | None = None
    seconds: float | None = None
    memory: float | None = None
    disk: float = 0.0


@dataclass(frozen=True)
class Plan:
    """The plan of a recipe.

    Attributes:
        title: one line about model and data.
        stages: in order.
        notes: how to read the figures.
    """

    title: str
    stages: list[Stage]
    notes: list[str]

    def as_text(self) -> str:
        """Return the plan as Markdown."""
        rows = [
            [
                stage.stage,
                "" if stage.audio is None else f"{stage.audio / 3600:.2f}",
                "" if stage.seconds is None else _duration(stage.seconds),
                "" if stage.memory is None else _bytes(stage.memory),
                _bytes(stage.disk),
            ]
            for stage in self.stages
        ]
        seconds = sum(stage.seconds or 0 for stage in self.stages)
        rows.append(["all", "", _duration(seconds), "", _bytes(sum(stage.disk for stage in self.stages))])
        header = ["stage", "hours of audio", "time", "memory, at most", "disk"]
        return "\n".join([self.title + "\n", markdown_table(header, rows), *(note + "\n" for note in self.notes)])


def make_plan(
    config: TrainConfig,
    train: str | Path,
    dev: str | Path,
    tests: Sequence[str | Path],
    options: PlanOptions,
    device: torch.device,
) -> Plan:
    """Plan stages 1 to 6.

    Args:
        config: the settings of training.
        train: training set, a data directory of stage 1.
        dev: dev set, another one.
        tests: test sets, others.
        options: how the user will run the stages.
        device: where to measure.

    Raises:
        InputError: if a data directory is faulty, a recording of `train` or `dev` is longer than max_seconds, the
            encoder cannot be loaded, the settings do not fit it, or best_metric is undefined on `dev`.
    """
    used = [read_data_dir(path, rated=False) for path in (train, dev)]
    encoder = load_ssl(config.ssl_model).to(device)
    for data in used:
        refuse_long(data, config.max_seconds, encoder.config.max_seconds)
    check_metric(read_rated_set(dev, config.max_seconds, encoder.config.max_seconds, config.targets), config)
    training, held_out, *testing = map(_lengths, [*used, *(read_data_dir(path, rated=False) for path in tests)])
    model = _build(config, encoder, options.clusters).to(device)
    frames = [sum(map(encoder.config.num_frames, samples)) for samples in (training, held_out)]
    measured = _measure(model, encoder, config, training, options.sampled(frames[0]), options, device)
    stages = _stages(model, config, (training, held_out, *testing), frames, options, measured)
    layers, width = encoder.config.num_layers, encoder.config.embed_dim
    on = f" on {config.ssl_model}, {layers} layers of width {width}" * isinstance(model, EncoderNetwork)
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
    return Plan(
        f"Plan for {config.model}{on} ({model.num_parameters / 1e6:.1f} M parameters); frames: train {frames[0]:,}, "
        f"dev {frames[1]:,}",
        stages,
        [
            f"Time: measured on this machine ({machine}), in seconds of audio a second: {measured.forward:.1f} in each "
            f"of {options.jobs} parallel jobs of stages 2 and 4; with {options.threads} CPU threads "
            f"{measured.step:.1f} in training, {measured.evaluate:.1f} in its evaluations and "
            f"{measured.predict:.1f} in prediction. Training without early stopping. Waiting for a "
            "scheduler or a slow file system is not included.",
            f"Memory: of the largest process{', with libraries' if device.type == 'cpu' else ' on the GPU'}. k-means: "
            f"{KMEANS_ITERATIONS} iterations. Stages 2 and 4: the encoder of the model in float32.",
        ],
    )


def _build(config: TrainConfig, encoder: SSLEncoder, clusters: int) -> MOSNetwork:
    """Return the network of the settings, with its untrained parts frozen."""
    scales = tuple(scale_of((), target) for target in config.targets) or (MOS_SCALE,)
    # The teacher of foreign tokens is not known here: it counts as an encoder of this size with all target layers.
    named = config.target_layers if _is_foreign(config) and config.target_layers != "all" else ()
    token_layers = max([encoder.config.num_layers, *named])
    try:
        model = build_model(config, encoder, clusters, scales=scales, token_layers=token_layers)
    except ValueError as error:
        raise InputError(f"settings: {error} ({config.ssl_model})") from None
    freeze(model, config)
    return model


def _is_foreign(config: TrainConfig) -> bool:
    return config.needs_tokens and config.foreign_tokens


@dataclass(frozen=True)
class _Measured:
    """What short measurements have shown.

    Attributes:
        start: seconds that a command takes before its work starts.
        forward, predict, step, evaluate: seconds of audio a second: in a job of stages 2 and 4, in prediction, in
            training, and in its evaluations.
        fit: seconds of k-means for a frame of a layer.
        forward_memory, predict_memory, step_memory: largest process so far, in bytes.
    """

    start: float
    forward: float
    predict: float
    step: float
    evaluate: float
    fit: float
    forward_memory: int
    predict_memory: int
    step_memory: int


def _measure(
    model: MOSNetwork,
    encoder: SSLEncoder,
    config: TrainConfig,
    training: Sequence[int],
    sampled: int,
    options: PlanOptions,
    device: torch.device,
) -> _Measured:
    start = time.process_time()  # of this command
    # From the least memory to the most: on a CPU the peak of a process never falls.
    with cpu_threads(1):
        forward = measure_forward(encoder, training, options.clusters, options.batch_seconds, device)
        forward_memory = peak_memory(device)
        fit = measure_kmeans(encoder.config.embed_dim, options.clusters, sampled)
    with cpu_threads(options.threads):
        predict = measure_prediction(model, training, device)
        predict_memory = peak_memory(device)
        step, evaluate = measure_training(model, config, training, device)
    return _Measured(start, forward, predict, step, evaluate, fit, forward_memory, predict_memory, peak_memory(device))


def _stages(
    model: MOSNetwork,
    config: TrainConfig,
    sets: Sequence[Sequence[int]],
    frames: Sequence[int],
    options: PlanOptions,
    measured: _Measured,
) -> list[Stage]:
    """Return the estimates.

    Args:
        model: the network.
        config: the settings of training.
        sets: lengths of the recordings of the training set, the dev set and test sets.
        frames: numbers of frames of the training set and the dev set.
        options: how the user will run the stages.
        measured: see there.
    """
    shape = model.encoder_config
    layers, jobs, start = shape.num_layers, options.jobs, measured.start
    seconds = [sum(samples) / SAMPLE_RATE for samples in sets]
    stages = [Stage("1 audio", disk=sum(seconds) * SAMPLE_RATE * SAMPLE_BYTES)]
    forward_memory = measured.forward_memory * FORWARD_KEPT
    if config.needs_tokens:
        sampled = options.sampled(frames[0])
        drawn = seconds[0] * min(1.0, SPREAD * options.max_frames / frames[0])
        stages += [
            Stage(
                "2 features",
                audio=drawn,
                seconds=drawn / measured.forward / jobs + start,
                memory=forward_memory,
                disk=sampled * layers * shape.embed_dim * FEATURE_BYTES,
            ),
            Stage(
                "3 k-means",
                seconds=-(-layers // jobs) * (measured.fit * sampled + start),
                memory=KMEANS_LIBRARIES + 1.5 * sampled * shape.embed_dim * WEIGHT_BYTES,
                disk=2 * layers * options.clusters * shape.embed_dim * WEIGHT_BYTES,
            ),
        ]
    if isinstance(model, EncoderNetwork):
        # The pass for the tokens pools the layers, too, but those of the teacher. Dev sets are pooled with their
        # tokens.
        passes = seconds[:2] if config.needs_tokens else []
        passes += seconds[2:] if config.needs_tokens and not _is_foreign(config) else [seconds[0], *seconds[2:]]
        pooled = sum(map(len, sets)) - (0 if config.needs_tokens else len(sets[1]))
        stages.append(
            Stage(
                "4 tokens" if config.needs_tokens else "4 pooled layers",
                audio=sum(passes),
                seconds=sum(passes) / measured.forward / jobs + len(passes) * start,
                memory=forward_memory,
                disk=sum(frames) * layers * TOKEN_BYTES * config.needs_tokens
                + pooled * layers * 2 * shape.embed_dim * POOLED_BYTES,
            )
        )
    batches = -(-seconds[0] // config.batch_seconds)  # of an epoch
    stepped = config.max_steps * config.accumulate * seconds[0] / batches
    evaluated = seconds[1] * (1 + -(-config.max_steps // config.eval_every))
    has_statistics = isinstance(model, EncoderNetwork) and model.statistics is not None
    evaluated += seconds[0] * (has_statistics and config.head_fit)
    # At the end, a part of the training set goes through the model.
    evaluated += passes_of(model) * min(seconds[0], STATISTICS_BATCHES * config.batch_seconds)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    kept = KEPT if is_small(model.num_parameters) else KEPT_IF_LARGE
    if next(model.parameters()).device.type != "cpu":
        kept = 1
    stored = model.num_parameters * (1 + config.n_best + 1) + ADAM_STATES * trained
    return [
        *stages,
        Stage(
            "5 training",
            audio=stepped,
            seconds=stepped / measured.step + evaluated / measured.evaluate + start,
            memory=measured.step_memory * kept,
            disk=WEIGHT_BYTES * stored,
        ),
        Stage(
            "6 prediction",
            audio=sum(seconds[2:]),
            seconds=sum(seconds[2:]) / measured.predict + len(seconds[2:]) * start,
            memory=measured.predict_memory * PREDICT_KEPT,
        ),
    ]


def _lengths(data: DataDir) -> list[int]:
    """Return the number of samples of each utterance."""
    return [round(seconds * SAMPLE_RATE) for seconds in data.durations.values()]


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _bytes(amount: float) -> str:
    return "" if not amount else f"{amount / 1e6:.1f} MB" if amount < 1e9 else f"{amount / 1e9:.2f} GB"
