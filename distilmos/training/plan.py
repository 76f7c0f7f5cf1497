"""What a recipe will take: frames, disk, forward FLOPs, memory, and time by rates measured on this machine."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from distilmos.data.audio import SAMPLE_RATE
from distilmos.data.datadir import DataDir, read_data_dir
from distilmos.markdown import markdown_table
from distilmos.model.networks import EncoderNetwork, build_model
from distilmos.ssl.load import load_ssl
from distilmos.tokens.features import SPREAD
from distilmos.tokens.forward import BATCH_SECONDS
from distilmos.training.config import TrainConfig
from distilmos.training.dataset import refuse_long
from distilmos.training.optimizer import freeze
from distilmos.training.probe import measure_rates

SAMPLE_BYTES = 2  # stage 1 stores 16 bits
FEATURE_BYTES = 2  # Kaldi's compressed matrix
TOKEN_BYTES = 5  # Kaldi's int32 vector puts the size before each number
WEIGHT_BYTES = 4
ADAM_STATES = 2
# Times the memory of its largest batch: training keeps what it frees on a CPU, in gaps that later batches do not fill.
# It was 1.3 after 18 steps of hubert_tiny and 1.7 to 1.9 after 72.
KEPT = 2.0
KMEANS_LIBRARIES = 190e6  # bytes of a process of stage 3 without frames
KMEANS_ITERATIONS = 80  # with 40,000 frames of hubert_tiny and K = 200 it took 30 to 95


@dataclass(frozen=True)
class PlanOptions:
    """How the stages will be run.

    Attributes:
        clusters: K.
        max_frames: training frames sampled for k-means.
        batch_seconds: padded seconds of a batch in stages 2 and 4.
        jobs: jobs of stages 2 to 4 at a time, each with a CPU thread or GPU of its own.
        threads: CPU threads of stages 5 and 6.
    """

    clusters: int = 200
    max_frames: int = 40000
    batch_seconds: float = BATCH_SECONDS
    jobs: int = 1
    threads: int = 1


@dataclass(frozen=True)
class SetSize:
    """How much audio a data directory has: samples of each utterance, and seconds and encoder frames in all."""

    samples: list[int]
    seconds: float
    frames: int


@dataclass(frozen=True)
class Stage:
    """What a stage will take.

    Attributes:
        stage: number and name.
        audio: seconds that go through the network; None where none do.
        flops: of the forward passes; None where there are none.
        seconds: of wall time; None for what is quick.
        memory: bytes of its largest process, at the most; None where little is needed.
        disk: bytes that it leaves.
    """

    stage: str
    audio: float | None = None
    flops: float | None = None
    seconds: float | None = None
    memory: float | None = None
    disk: float = 0.0


@dataclass(frozen=True)
class Plan:
    """The plan of a recipe.

    Attributes:
        title: one line about model and data.
        stages: in order.
        notes: what the figures mean.
    """

    title: str
    stages: list[Stage]
    notes: list[str]

    def as_text(self) -> str:
        """Return it as Markdown."""
        rows = [
            [
                stage.stage,
                "" if stage.audio is None else f"{stage.audio / 3600:.2f}",
                "" if stage.flops is None else f"{stage.flops:.2e}",
                _duration(stage.seconds),
                _bytes(stage.memory or 0),
                _bytes(stage.disk),
            ]
            for stage in self.stages
        ]
        seconds = sum(stage.seconds or 0 for stage in self.stages)
        rows.append(["all", "", "", _duration(seconds), "", _bytes(sum(stage.disk for stage in self.stages))])
        header = ["stage", "hours of audio", "forward FLOPs", "time", "memory", "disk"]
        return "\n".join([self.title + "\n", markdown_table(header, rows), *(note + "\n" for note in self.notes)])


def measure_set(data: DataDir, frames_of: Callable[[int], int]) -> SetSize:
    """Return the size of a data directory of stage 1.

    Args:
        data: the directory, as it was read.
        frames_of: number of encoder frames of a number of samples.
    """
    samples = [round(seconds * SAMPLE_RATE) for seconds in data.durations.values()]
    return SetSize(samples, sum(samples) / SAMPLE_RATE, sum(map(frames_of, samples)))


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
        train: data directory of stage 1.
        dev: another one.
        tests: others.
        options: how the stages will be run.
        device: where to measure.

    Raises:
        InputError: if a data directory is faulty, train or dev has a recording that training would refuse, or the
            encoder cannot be loaded.
    """
    used = [read_data_dir(path, rated=False) for path in (train, dev)]
    for data in used:
        refuse_long(data, config.max_seconds)
    encoder = load_ssl(config.ssl_model).to(device)
    shape = encoder.config
    model = build_model(config, encoder, options.clusters).to(device)
    freeze(model, config)
    sizes = {name: measure_set(data, shape.num_frames) for name, data in zip(("train", "dev"), used, strict=True)}
    testing = [measure_set(read_data_dir(path, rated=False), shape.num_frames) for path in tests]
    training, held_out = sizes["train"], sizes["dev"]
    parameters = list(model.parameters())
    total = sum(parameter.numel() for parameter in parameters)
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    rates = measure_rates(
        model, encoder, config, training.samples, options.clusters, options.batch_seconds, device, options.threads
    )

    sampled = min(options.max_frames, training.frames)
    drawn = training.seconds * min(1.0, SPREAD * options.max_frames / training.frames)
    tokenised = training.seconds + held_out.seconds
    stepped = config.max_steps * config.accumulate * config.batch_seconds
    evaluated = held_out.seconds * (1 + -(-config.max_steps // config.eval_every))
    predicted = sum(size.seconds for size in testing)
    stored = sum(size.seconds for size in (*sizes.values(), *testing))
    width = shape.embed_dim
    kmeans = sampled * (rates.kmeans_init + KMEANS_ITERATIONS * rates.kmeans_iteration) + rates.start

    def shared(audio: float) -> float:
        """Return the time of a stage of several jobs."""
        return audio / rates.forward / options.jobs + rates.start

    stages = [Stage("1 audio", disk=stored * SAMPLE_RATE * SAMPLE_BYTES)]
    if model.target_layers:
        stages += [
            Stage(
                "2 features",
                drawn,
                drawn * rates.flops,
                shared(drawn),
                rates.forward_memory,
                sampled * shape.num_layers * width * FEATURE_BYTES,
            ),
            Stage(
                "3 k-means",
                seconds=-(-shape.num_layers // options.jobs) * kmeans,
                memory=KMEANS_LIBRARIES + 1.5 * sampled * width * WEIGHT_BYTES,
                disk=2 * shape.num_layers * options.clusters * width * WEIGHT_BYTES,
            ),
            Stage(
                "4 tokens",
                tokenised,
                tokenised * rates.flops,
                shared(training.seconds) + shared(held_out.seconds),
                rates.forward_memory,
                (training.frames + held_out.frames) * shape.num_layers * TOKEN_BYTES,
            ),
        ]
    stages += [
        Stage(
            "5 training",
            stepped,
            stepped * rates.model_flops,
            stepped / rates.step + evaluated / rates.predict + rates.start,
            rates.step_memory * (KEPT if device.type == "cpu" else 1),
            WEIGHT_BYTES * (total * (1 + config.n_best + 1) + ADAM_STATES * trained),
        ),
        Stage(
            "6 prediction",
            predicted,
            predicted * rates.model_flops,
            predicted / rates.predict + len(testing) * rates.start,
            rates.predict_memory,
        ),
    ]
    layers = ""
    if isinstance(model, EncoderNetwork):
        layers = f" on {config.ssl_model}, {shape.num_layers} layers of width {width}"
    frames = ", ".join(f"{name} {size.frames:,}" for name, size in sizes.items())
    return Plan(
        f"Plan for {config.model}{layers} ({total / 1e6:.1f} M parameters); frames: {frames}",
        stages,
        [
            f"Times by what was measured on this machine ({_machine(device)}), in seconds of audio a second: "
            f"{rates.forward:.1f} in a job of stages 2 and 4, {rates.step:.1f} in training and {rates.predict:.1f} in "
            f"prediction with {options.threads} CPU threads. Stages 2 to 4 are of {options.jobs} jobs at a time that "
            "have a core or GPU each. Training counts all of max_steps and the evaluations; waiting for a scheduler or "
            "a slow file system comes on top.",
            "Memory is that of the largest process"
            + (", libraries included." if device.type == "cpu" else " on the GPU.")
            + f" k-means is planned with {KMEANS_ITERATIONS} iterations, by its number of frames, stages 2 and 4 with "
            "the model's encoder in float32.",
        ],
    )


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _bytes(amount: float) -> str:
    return "" if not amount else f"{amount / 1e6:.1f} MB" if amount < 1e9 else f"{amount / 1e9:.2f} GB"
