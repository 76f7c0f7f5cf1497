"""What a recipe will take: frames, disk, forward FLOPs, memory, and time by the throughput measured on this machine."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from distilmos.data.audio import SAMPLE_RATE
from distilmos.data.datadir import read_data_dir
from distilmos.model.losses import multitask_loss, utterance_pairs
from distilmos.model.networks import MOSNetwork, build_model
from distilmos.scoring.tables import markdown_table
from distilmos.ssl.load import load_ssl
from distilmos.tokens.features import SPREAD
from distilmos.training.config import TrainConfig
from distilmos.training.dataset import refuse_long
from distilmos.training.optimizer import freeze
from distilmos.training.trainer import uses_bfloat16

PROBE_SECONDS = 5.0  # of each of the recordings of the probe
PROBE_BATCH = 2
REPEATS = 3
SAMPLE_BYTES = 2  # stage 1 stores 16 bits
FEATURE_BYTES = 2  # Kaldi's compressed matrix
TOKEN_BYTES = 5  # Kaldi's int32 vector puts the size before each number
WEIGHT_BYTES = 4
ADAM_STATES = 2


@dataclass(frozen=True)
class SetSize:
    """How much audio a data directory has: utterances, seconds, and encoder frames."""

    utterances: int
    seconds: float
    frames: int


@dataclass(frozen=True)
class Throughput:
    """What a probe of PROBE_BATCH recordings of random samples showed.

    Attributes:
        forward: seconds of audio that the encoder takes in a second.
        step: seconds of audio that a training step takes in a second, forward and backward.
        flops: of a forward pass, for each second of audio; a multiplication and an addition are two.
        saved_bytes: kept for the backward pass, for each second of audio.
    """

    forward: float
    step: float
    flops: float
    saved_bytes: float


def measure_set(directory: str | Path, frames_of: Callable[[int], int]) -> SetSize:
    """Return the size of a data directory of stage 1.

    Args:
        directory: its path.
        frames_of: number of encoder frames of a number of samples.

    Raises:
        InputError: if the directory is faulty.
    """
    durations = read_data_dir(directory, rated=False).durations.values()
    samples = [round(seconds * SAMPLE_RATE) for seconds in durations]
    return SetSize(len(samples), sum(samples) / SAMPLE_RATE, sum(map(frames_of, samples)))


def probe(model: MOSNetwork, config: TrainConfig, device: torch.device) -> Throughput:
    """Measure a forward pass of the encoder and a training step of the whole network, after one run to warm up."""
    audio = torch.randn(PROBE_BATCH, round(PROBE_SECONDS * SAMPLE_RATE), device=device)
    num_samples = torch.full((PROBE_BATCH,), audio.shape[1], device=device)
    seconds = PROBE_BATCH * PROBE_SECONDS

    @torch.inference_mode()
    def forward() -> None:
        model.encoder.eval()(audio, num_samples)

    def step() -> None:
        model.train()
        with torch.autocast(device.type, torch.bfloat16, enabled=uses_bfloat16(config, device)):
            prediction = model(audio, num_samples)
            layers = len(prediction.token_logits)
            tokens = torch.zeros(PROBE_BATCH, layers, int(prediction.num_frames.max()), dtype=torch.long, device=device)
            losses = multitask_loss(
                prediction,
                utterance_pairs(prediction.mos, torch.full_like(prediction.mos, 3.0)),
                tokens if layers and config.token_weight > 0 else None,
                kind=config.regression_loss,
                clip=0.0,
                token_weight=config.token_weight,
            )
        losses.total.backward()

    with FlopCounterMode(display=False) as counter:
        forward()
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            storage = tensor.untyped_storage()
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    return Throughput(
        forward=seconds / _median_time(forward, device),
        step=seconds / _median_time(step, device),
        flops=counter.get_total_flops() / seconds,
        saved_bytes=sum(saved.values()) / seconds,
    )


def _median_time(run: Callable[[], None], device: torch.device) -> float:
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return median(times)


def make_plan(
    config: TrainConfig,
    train: str | Path,
    dev: str | Path,
    tests: Sequence[str | Path],
    clusters: int,
    max_frames: int,
    device: torch.device,
) -> str:
    """Return a plan of stages 1 to 6 as Markdown.

    Args:
        config: the settings of training.
        train: data directory of stage 1.
        dev: another one.
        tests: others.
        clusters: K.
        max_frames: training frames sampled for k-means.
        device: where to measure.

    Raises:
        InputError: if a data directory is faulty, train or dev has a recording that training would refuse, or the
            encoder cannot be loaded.
    """
    for path in (train, dev):
        refuse_long(read_data_dir(path, rated=False), config.max_seconds)
    encoder = load_ssl(config.ssl_model)
    shape = encoder.config
    model = build_model(config, encoder, clusters).to(device)
    freeze(model, config)
    sizes = {name: measure_set(path, shape.num_frames) for name, path in (("train", train), ("dev", dev))}
    testing = [measure_set(path, shape.num_frames) for path in tests]
    speed = probe(model, config, device)

    sampled = min(max_frames, sizes["train"].frames)
    tokenised = sizes["train"].frames + sizes["dev"].frames
    total = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    token_layers = len(model.target_layers)
    audio = {
        "2 features": sizes["train"].seconds * min(1.0, SPREAD * max_frames / sizes["train"].frames),
        "4 tokens": sizes["train"].seconds + sizes["dev"].seconds,
        "5 training": config.max_steps * config.accumulate * config.batch_seconds,
        "6 prediction": sum(size.seconds for size in testing),
    }
    stored = sum(size.seconds for size in (*sizes.values(), *testing))
    disk = {
        "1 audio": stored * SAMPLE_RATE * SAMPLE_BYTES,
        "2 features": sampled * shape.num_layers * shape.embed_dim * FEATURE_BYTES,
        "4 tokens": tokenised * shape.num_layers * TOKEN_BYTES,
        "5 training": WEIGHT_BYTES * (total * (1 + config.n_best + 1) + ADAM_STATES * trained),
    }
    if not token_layers:
        for stage in ("2 features", "4 tokens"):
            del audio[stage], disk[stage]
    rows = []
    for stage in sorted({*audio, *disk}):
        hours = f"{audio[stage] / 3600:.2f}" if stage in audio else ""
        flops = f"{audio[stage] * speed.flops:.2e}" if stage in audio else ""
        rate = speed.step if stage == "5 training" else speed.forward
        seconds = audio[stage] / rate if stage in audio else None
        rows.append([stage, hours, flops, _duration(seconds), _bytes(disk.get(stage, 0))])
    memory = WEIGHT_BYTES * (total + (1 + ADAM_STATES) * trained) + speed.saved_bytes * config.batch_seconds
    frames = ", ".join(f"{name} {size.frames:,}" for name, size in sizes.items())
    lines = [
        f"Plan for {config.model} on {config.ssl_model} ({shape.num_layers} layers of width {shape.embed_dim}, "
        f"{total / 1e6:.1f} M parameters); frames: {frames}\n",
        markdown_table(["stage", "hours of audio", "forward FLOPs", "time", "disk"], rows),
        f"Times by what one process did on this machine ({_machine(device)}): {speed.forward:.1f} s of audio a second "
        f"through the encoder, {speed.step:.1f} in training; stages 2 and 4 divide by parallel jobs that have cores of "
        "their own. Training counts all of max_steps; reading audio and evaluation come on top.\n",
        f"Memory of training: {_bytes(memory)} for weights, optimiser and what a batch of {config.batch_seconds:g} s "
        "keeps for the backward pass; libraries and what is needed for a moment come on top. Stage 3 is not in the "
        "plan.\n",
    ]
    return "\n".join(lines)


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _bytes(amount: float) -> str:
    return "" if not amount else f"{amount / 1e6:.1f} MB" if amount < 1e9 else f"{amount / 1e9:.2f} GB"
