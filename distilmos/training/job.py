"""A training run from its inputs to its outputs; everything is read and checked before the first step."""

from __future__ import annotations

import fcntl
import os
import platform
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from distilmos.data.staging import staged
from distilmos.errors import FailedError, InputError
from distilmos.files import write_text
from distilmos.memory import keep_freed_memory
from distilmos.model.directory import CONFIG
from distilmos.model.lora import merge_lora
from distilmos.model.networks import MOSNetwork
from distilmos.preemption import StopRequest, stop_requests
from distilmos.provenance import commit, machine, now
from distilmos.ssl.forward import choose_device
from distilmos.training.checkpoint import Checkpoint, load_checkpoint
from distilmos.training.config import TrainConfig
from distilmos.training.distributed import World, joined
from distilmos.training.identity import check_identity, identity_differences, run_identity
from distilmos.training.initial import initial_model
from distilmos.training.inputs import InputPaths, Inputs, move_audio, read_inputs
from distilmos.training.monitor import Monitor, Observer
from distilmos.training.objective import uses_bfloat16
from distilmos.training.trainer import LAST, Trainer, checkpoint_dir

LOCK = ".lock"
SHARED_FILE_SECONDS = 120  # until another machine sees a new file; NFS caches the attributes of old ones for a minute


@dataclass(frozen=True)
class TrainJob:
    """The settings, inputs and outputs of a run.

    Attributes:
        config: the settings.
        paths: the inputs.
        out: experiment directory; an interrupted run there continues.
        device: where to compute, as `choose_device` accepts it.
        stage: read the audio from a copy in $TMPDIR.
        command: the command line, for the log.
    """

    config: TrainConfig
    paths: InputPaths
    out: Path
    device: str
    stage: bool
    command: list[str]


def run_training(job: TrainJob) -> None:
    """Train to the end, or continue an interrupted run; print a line if it has already ended.

    Several processes that were started together (see `joined`) train one model; only the first one writes.

    Raises:
        InputError: if inputs are faulty, another process trains in `job.out`, or `job.out` holds a run with other
            settings or data.
        FailedError: if a loss is not finite, reading is stalled, or another process has failed.
        PreemptedError: if SIGTERM or SIGUSR1 came; the same command continues the run.
        SystemExit: instead of these, in processes other than the first.
    """
    # With this setting, which CUDA reads when it starts, matrix products give the same bits each time.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    device = choose_device(job.device)
    # Until all processes have joined, signals end a process as usual: nothing is done yet, and others may come late.
    with joined(device.type == "cuda") as world, stop_requests() as stop, ExitStack() as held:
        with world.together(), stop.interrupting():
            device = _own_device(device, world)
            inputs = read_inputs(job.config, job.paths)
            if world.first:
                held.enter_context(_locked(job.out))
        if job.stage:
            inputs = _staged(inputs, world, stop, held)
        _train(job, inputs, device, world, stop)


def _staged(inputs: Inputs, world: World, stop: StopRequest, held: ExitStack) -> Inputs:
    """Copy the audio once for each machine, in its first process; the copies last until `held` is closed."""
    copies: dict[Path, Path] = {}
    with world.together(), stop.interrupting():
        if world.local_rank == 0:
            files = [file for file, _ in [*inputs.train.locations, *inputs.dev.locations]]
            copies = held.enter_context(staged(files))
    # The processes of a machine have consecutive ranks.
    return move_audio(inputs, world.gather(copies)[world.rank - world.local_rank])


def _own_device(device: torch.device, world: World) -> torch.device:
    """Return the GPU with the local rank of this process, or the CPU."""
    if device.type != "cuda" or world.size == 1:
        return device
    if device.index is not None:
        raise InputError(f"--device {device}: each process needs its own GPU; use --device cuda")
    if world.local_rank >= torch.cuda.device_count():
        raise InputError(
            f"{platform.node()}: {torch.cuda.device_count()} GPUs are too few for process {world.local_rank + 1}"
        )
    own = torch.device("cuda", world.local_rank)
    torch.cuda.set_device(own)
    return own


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Keep every other run out of `out`; the system releases the lock when the process ends, however it ends.

    Raises:
        InputError: if another process holds it.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / LOCK).open("wb") as stream:
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise InputError(f"{out}: another process trains in this directory; wait for it or end it") from None
        yield


def _train(job: TrainJob, inputs: Inputs, device: torch.device, world: World, stop: StopRequest) -> None:
    """Train in `job.out`, which only the processes of `world` change meanwhile."""
    with world.together(), stop.interrupting():
        stored = _stored(job.out)
    stored = _same_as_first(stored, job.out, world, stop)
    _make_reproducible(device, stored, world)
    identity = run_identity(job.config, inputs, device)
    first = world.from_first(lambda: identity)
    with world.together(), stop.interrupting():
        if identity != first:
            different = identity_differences(first, identity, "in the first process", "here")
            raise InputError(f"process {world.rank} on {platform.node()} reads different inputs:{different}")
        if stored is not None:
            check_identity(stored, identity, job.out)
        model = initial_model(job.config, inputs).to(device)
        keep_freed_memory(model.num_parameters)
    if stored is not None and stored.state.ended:
        if world.first:
            print(f"{job.out}: training has already ended ({stored.state.ended} at step {stored.state.step})")
        return
    teacher = inputs.teacher and inputs.teacher.to(device)
    trainer = Trainer(job.config, model, inputs.train, inputs.dev, job.out, device, identity, world, teacher)
    if stored is not None:
        trainer.restore(stored)
    monitor = Observer()
    with world.together():
        if world.first:
            settings = yaml.safe_dump(job.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
            write_text(job.out / CONFIG, settings)
            monitor = Monitor(job.out, trainer.state.log_bytes, trainer.state.step, job.config.max_steps)
    try:
        if stored is None:
            monitor.event("start", 0, _start_event(job, inputs, model, device, world, identity))
        else:
            monitor.event("resume", stored.state.step, {"time": now(), "processes": world.size})
            monitor.say(f"{job.out}: continuing after step {stored.state.step}")
        trainer.run(monitor, stop)
    finally:
        monitor.close()


def _stored(out: Path) -> Checkpoint | None:
    path = checkpoint_dir(out) / LAST
    return load_checkpoint(path) if path.exists() else None


def _same_as_first(stored: Checkpoint | None, out: Path, world: World, stop: StopRequest) -> Checkpoint | None:
    """Return the checkpoint that the first process has read; another machine may see it later.

    Raises:
        FailedError: if it does not appear within SHARED_FILE_SECONDS.
    """
    wanted = world.from_first(lambda: repr(stored and stored.state))
    deadline = time.monotonic() + SHARED_FILE_SECONDS
    with world.together(), stop.interrupting():
        while repr(stored and stored.state) != wanted:
            if time.monotonic() > deadline:
                raise FailedError(f"process {world.rank} on {platform.node()} does not see the checkpoint of {out}")
            time.sleep(1)
            stored = _stored(out)
    return stored


def _make_reproducible(device: torch.device, stored: Checkpoint | None, world: World) -> None:
    """Compute the same bits each time on a CPU; a continued run uses the number of threads that it started with.

    With another number of processes the bits differ anyway, and each process keeps the threads that it is given.

    On CUDA, PyTorch makes deterministic what it can. Some operators, such as the backward pass of memory-efficient
    attention, only warn: equal bits are not promised there, and nobody has compared them.
    """
    if stored is not None and stored.processes == world.size:
        torch.set_num_threads(stored.threads)
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    # Deterministic mode would fill all new memory with NaN, to find operators that read it; ours do not.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _start_event(
    job: TrainJob, inputs: Inputs, model: MOSNetwork, device: torch.device, world: World, identity: dict[str, Any]
) -> dict[str, Any]:
    """Return the values of the first line of the log."""
    return {
        "time": now(),
        "command": job.command,
        "commit": commit(),
        "seed": job.config.seed,
        # The resolved `precision`, and hashes of the inputs, which the settings only name.
        "precision": "bfloat16" if uses_bfloat16(job.config, device) else "float32",
        "encoder": identity["encoder"],
        "initial_model": identity["initial model"],
        "kmeans": identity["k-means"],
        "hardware": machine(device) | {"processes": world.size},
        "data": {
            name: {
                "dir": str(data.path),
                "utterances": len(data.utterances),
                "seconds": data.seconds,
                "notes": data.notes,
            }
            for name, data in (("train", inputs.train), ("dev", inputs.dev))
        },
        "parameters": merge_lora(model).num_parameters,
    }
