"""One training from its inputs to its outputs: everything is read and checked here before the first step."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import yaml

from distilmos.errors import InputError
from distilmos.files import write_text
from distilmos.metrics import agreement_at_levels
from distilmos.model.networks import MOSNetwork, build_model
from distilmos.ssl.encoder import SSLEncoder
from distilmos.ssl.load import load_ssl
from distilmos.training.checkpoint import Checkpoint, load_checkpoint
from distilmos.training.config import TrainConfig
from distilmos.training.dataset import RatedSet, read_rated_set, with_tokens
from distilmos.training.monitor import Monitor
from distilmos.training.optimizer import freeze
from distilmos.training.trainer import LAST, Trainer, checkpoint_dir


@dataclass(frozen=True)
class TrainJob:
    """What to train, on what, and where to.

    Attributes:
        config: the settings.
        train: data directory of stage 1.
        dev: data directory of stage 1 that chooses the best models.
        train_tokens: token directory of stage 4; not needed for a baseline.
        dev_tokens: token directory of stage 4; not needed for a baseline.
        out: directory of the experiment; a training that was interrupted there continues.
        device: where to compute.
        command: the command line, for the log.
    """

    config: TrainConfig
    train: Path
    dev: Path
    train_tokens: Path | None
    dev_tokens: Path | None
    out: Path
    device: torch.device
    command: list[str]


def run_training(job: TrainJob) -> None:
    """Train, or continue a training, to its end; say so if it has ended already.

    Raises:
        InputError: if inputs are faulty, or `job.out` holds a training with other settings or data.
        FailedError: if a loss is not finite.
    """
    stored = _stored(job.out)
    _make_reproducible(job.device, stored)
    encoder = load_ssl(job.config.ssl_model)
    train = read_rated_set(job.train, job.config.max_seconds)
    dev = read_rated_set(job.dev, job.config.max_seconds)
    _check_metric(dev, job.config)
    clusters = None
    if job.config.model == "distilmos":
        train, dev, clusters = _add_tokens(job, train, dev, encoder)
    identity = _identity(job, train, dev, encoder)
    if stored is not None:
        _check_identity(stored, identity, job.out)
        if stored.state.ended:
            print(f"{job.out}: training has ended already ({stored.state.ended} at step {stored.state.step})")
            return
    model = _make_model(job, train, encoder, clusters)
    trainer = Trainer(job.config, model, train, dev, job.out, job.device, identity)
    if stored is not None:
        trainer.restore(stored)
    settings = yaml.safe_dump(job.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_text(job.out / "config.yaml", settings)
    monitor = Monitor(job.out, trainer.state.log_bytes, trainer.state.step, job.config.max_steps)
    try:
        if stored is None:
            monitor.event("start", 0, _start(job, train, dev, model))
        else:
            monitor.say(f"{job.out}: continuing after step {stored.state.step}")
        trainer.run(monitor)
    finally:
        monitor.close()


def _stored(out: Path) -> Checkpoint | None:
    path = checkpoint_dir(out) / LAST
    return load_checkpoint(path) if path.exists() else None


def _make_reproducible(device: torch.device, stored: Checkpoint | None) -> None:
    """Compute the same bits each time; a continued training uses the threads that it began with."""
    if stored is not None:
        torch.set_num_threads(stored.threads)
    # CUDA's matrix products are reproducible with this alone; it is read when CUDA starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    # Deterministic mode would fill all fresh memory with NaN, a check for operators that read it; ours do not.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _check_metric(dev: RatedSet, config: TrainConfig) -> None:
    level, metric = config.best_metric.split("_")
    rated = dict(zip(dev.utterances, dev.mos, strict=True))
    value = agreement_at_levels(rated, rated, dict(zip(dev.utterances, dev.systems, strict=True)))[level][metric]
    if value != value:
        raise InputError(
            f"{dev.path}: best_metric {config.best_metric} is not defined there: fewer than two {level}s with "
            f"different scores ({len(rated)} utterances, {len(set(dev.systems))} systems)"
        )


def _add_tokens(job: TrainJob, train: RatedSet, dev: RatedSet, encoder: SSLEncoder) -> tuple[RatedSet, RatedSet, int]:
    """Return both sets with their tokens, and the number of clusters."""
    if job.train_tokens is None or job.dev_tokens is None:
        raise InputError("model distilmos needs --train-tokens and --dev-tokens")
    # Without self-distillation nothing but the number of clusters, which shapes the network, is needed.
    layers = _target_layers(job.config, encoder) if job.config.token_weight > 0 else ()
    train, clusters = with_tokens(train, job.train_tokens, layers, encoder)
    dev, dev_clusters = with_tokens(dev, job.dev_tokens, layers, encoder)
    if clusters != dev_clusters:
        raise InputError(f"{job.dev_tokens}: tokens of {dev_clusters} clusters, {clusters} in {job.train_tokens}")
    return train, dev, clusters


def _target_layers(config: TrainConfig, encoder: SSLEncoder) -> tuple[int, ...]:
    try:
        return config.layers(encoder.config.num_layers)
    except ValueError as error:
        raise InputError(f"settings: {error} ({config.ssl_model})") from None


def _identity(job: TrainJob, train: RatedSet, dev: RatedSet, encoder: SSLEncoder) -> dict[str, Any]:
    """Return what decides the result of a training, by name."""
    settings = job.config.model_dump(mode="json", exclude={"num_workers"})
    return settings | {
        "training data": f"{train.path} ({train.digest()})",
        "dev data": f"{dev.path} ({dev.digest()})",
        "encoder": encoder.fingerprint(),
        "device": job.device.type,
    }


def _check_identity(stored: Checkpoint, identity: dict[str, Any], out: Path) -> None:
    before = stored.identity
    different = [
        f"{name}: {before.get(name)!r} there, {identity.get(name)!r} now"
        for name in dict.fromkeys([*before, *identity])
        if before.get(name) != identity.get(name)
    ]
    if different:
        listing = "\n  ".join(different)
        raise InputError(
            f"{out}: holds a training with other settings or data; give this one another directory (--out, or --tag "
            f"of a recipe)\n  {listing}"
        )


def _make_model(job: TrainJob, train: RatedSet, encoder: SSLEncoder, clusters: int | None) -> MOSNetwork:
    _target_layers(job.config, encoder)
    torch.manual_seed(job.config.seed)
    model = build_model(job.config, encoder, clusters)
    model.init_output(sum(train.mos) / len(train.mos))
    freeze(model, job.config)
    return model.to(job.device)


def _start(job: TrainJob, train: RatedSet, dev: RatedSet, model: MOSNetwork) -> dict[str, Any]:
    """Return the values of the log's first line."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": job.command,
        "commit": _commit(),
        "seed": job.config.seed,
        "hardware": {
            "cpu": _cpu(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name(job.device) if job.device.type == "cuda" else None,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "data": {
            name: {
                "dir": str(data.path),
                "utterances": len(data.utterances),
                "seconds": data.seconds,
                "notes": data.notes,
            }
            for name, data in (("train", train), ("dev", dev))
        },
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def _commit() -> str | None:
    """Return the commit of the code, where it runs from a git working tree."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
