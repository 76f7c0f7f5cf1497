"""One training from its inputs to its outputs: everything is read and checked here before the first step."""

from __future__ import annotations

import fcntl
import os
import platform
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import yaml

from distilmos.data.staging import staged
from distilmos.errors import FailedError, InputError
from distilmos.files import write_text
from distilmos.model.networks import DistilMOS, EncoderNetwork, MOSNetwork, SpectralMOS, build_model
from distilmos.model.offsets import Offsets
from distilmos.model.package import load_model_dir
from distilmos.provenance import commit, machine, now
from distilmos.ssl.encoder import SSLEncoder, weights_hash
from distilmos.ssl.forward import choose_device
from distilmos.ssl.load import load_ssl
from distilmos.tokens.info import TokenInfo
from distilmos.training.checkpoint import Checkpoint, load_checkpoint
from distilmos.training.config import TrainConfig
from distilmos.training.distributed import World, joined
from distilmos.training.monitor import Monitor, Observer
from distilmos.training.objective import uses_bfloat16
from distilmos.training.optimizer import freeze
from distilmos.training.preemption import StopRequest, stop_requests
from distilmos.training.ratedset import RatedSet, read_rated_set, with_tokens
from distilmos.training.trainer import LAST, Trainer, checkpoint_dir

LOCK = ".lock"
SHARED_FILE_SECONDS = 120  # until another machine sees a new file; NFS keeps the attributes of old ones for a minute


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
        device: where to compute, as `choose_device` takes it.
        stage: read audio from a copy in $TMPDIR.
        command: the command line, for the log.
    """

    config: TrainConfig
    train: Path
    dev: Path
    train_tokens: Path | None
    dev_tokens: Path | None
    out: Path
    device: str
    stage: bool
    command: list[str]


@dataclass(frozen=True)
class _Inputs:
    """What a job names, read and checked; `tokens` is None where none are predicted, `initial` without init_model."""

    device: torch.device
    encoder: SSLEncoder
    train: RatedSet
    dev: RatedSet
    tokens: TokenInfo | None
    initial: MOSNetwork | None


def run_training(job: TrainJob) -> None:
    """Train, or continue a training, to its end; say so if it has ended already.

    Several processes that were started together, as `joined` says, train one model; the first one alone writes.

    Raises:
        InputError: if inputs are faulty, another training runs in `job.out`, or it holds one with other settings or
            data.
        FailedError: if a loss is not finite, or another process has failed.
        PreemptedError: if SIGTERM or SIGUSR1 came; there is a checkpoint then.
        SystemExit: in place of these, in processes other than the first.
    """
    # CUDA's matrix products give the same bits each time with this alone; it is read when CUDA starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    device = choose_device(job.device)
    # Until all are there a signal ends a process as always: nothing has been done, and some may be long in coming.
    with joined(device.type == "cuda") as world, stop_requests() as stop, ExitStack() as held:
        with world.together():
            inputs = _read_inputs(job, _own_device(device, world))
            if world.first:
                held.enter_context(_locked(job.out))
        if job.stage:
            inputs = _staged(inputs, world, held)
        _train(job, inputs, world, stop)


def _staged(inputs: _Inputs, world: World, held: ExitStack) -> _Inputs:
    """Let the first process of every machine copy the audio, once for all processes there, until `held` is closed."""
    copies: dict[Path, Path] = {}
    with world.together():
        if world.local_rank == 0:
            files = [file for file, _ in [*inputs.train.locations, *inputs.dev.locations]]
            copies = held.enter_context(staged(files))
    # The processes of a machine have consecutive ranks.
    copies = world.gather(copies)[world.rank - world.local_rank]
    return replace(inputs, train=inputs.train.moved(copies), dev=inputs.dev.moved(copies))


def _own_device(device: torch.device, world: World) -> torch.device:
    """Return the GPU of this process, which is that of its number on this machine, or the CPU."""
    if device.type != "cuda" or world.size == 1:
        return device
    if device.index is not None:
        raise InputError(f"--device {device}: every process takes a GPU of its own; say --device cuda")
    if world.local_rank >= torch.cuda.device_count():
        raise InputError(f"{torch.cuda.device_count()} GPUs here: too few for a process {world.local_rank + 1}")
    own = torch.device("cuda", world.local_rank)
    torch.cuda.set_device(own)
    return own


def _read_inputs(job: TrainJob, device: torch.device) -> _Inputs:
    encoder = load_ssl(job.config.ssl_model)
    train = read_rated_set(job.train, job.config.max_seconds)
    dev = read_rated_set(job.dev, job.config.max_seconds)
    _check_metric(dev, job.config)
    _check_raters(train, job.config)
    tokens = None
    if job.config.model == "distilmos":
        train, dev, tokens = _add_tokens(job, train, dev, encoder)
    initial = _read_initial(job.config, encoder) if job.config.init_model else None
    return _Inputs(device, encoder, train, dev, tokens, initial)


def _read_initial(config: TrainConfig, encoder: SSLEncoder) -> MOSNetwork:
    """Load `init_model`, whose frames must be those of `encoder`, which made the tokens."""
    initial = load_model_dir(config.init_model)
    ours, theirs = initial.encoder_config, encoder.config
    if isinstance(initial, SpectralMOS) and ours.hop == theirs.hop:
        return initial
    if (ours.num_layers, ours.conv_layers) != (theirs.num_layers, theirs.conv_layers):
        raise InputError(
            f"{config.init_model}: its encoder has {ours.num_layers} layers and convolutions {ours.conv_layers}, that "
            f"of ssl_model {config.ssl_model} {theirs.num_layers} and {theirs.conv_layers}"
        )
    return initial


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Keep every other training out of `out`; the system ends the lock with the process, however that ends.

    It is a lock of the process (POSIX), not of the open file: the processes that read audio are forks, which outlive a
    killed training by seconds and must not hold its lock.

    Raises:
        InputError: if another process holds it.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / LOCK).open("wb") as stream:
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise InputError(f"{out}: a training is running in this directory; wait for it, or end it") from None
        yield


def _train(job: TrainJob, inputs: _Inputs, world: World, stop: StopRequest) -> None:
    """Train in `job.out`, which no process but those of `world` changes meanwhile."""
    with world.together():
        stored = _stored(job.out)
    stored = _same_as_first(stored, job.out, world)
    _make_reproducible(inputs.device, stored, world)
    identity = _identity(job.config, inputs)
    theirs = world.from_first(lambda: identity)
    with world.together():
        if identity != theirs:
            different = _differences(theirs, identity, "in the first process", "here")
            raise InputError(f"process {world.rank} on {platform.node()} reads something else:{different}")
        if stored is not None:
            _check_identity(stored, identity, job.out)
        model = _make_model(job.config, inputs)
    if stored is not None and stored.state.ended:
        if world.first:
            print(f"{job.out}: training has ended already ({stored.state.ended} at step {stored.state.step})")
        return
    trainer = Trainer(job.config, model, inputs.train, inputs.dev, job.out, inputs.device, identity, world)
    if stored is not None:
        trainer.restore(stored)
    monitor = Observer()
    with world.together():
        if world.first:
            settings = yaml.safe_dump(job.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
            write_text(job.out / "config.yaml", settings)
            monitor = Monitor(job.out, trainer.state.log_bytes, trainer.state.step, job.config.max_steps)
    try:
        if stored is None:
            monitor.event("start", 0, _start(job, inputs, model, world, identity))
        else:
            monitor.event("resume", stored.state.step, {"time": now(), "processes": world.size})
            monitor.say(f"{job.out}: continuing after step {stored.state.step}")
        trainer.run(monitor, stop)
    finally:
        monitor.close()


def _stored(out: Path) -> Checkpoint | None:
    path = checkpoint_dir(out) / LAST
    return load_checkpoint(path) if path.exists() else None


def _same_as_first(stored: Checkpoint | None, out: Path, world: World) -> Checkpoint | None:
    """Return the checkpoint that the first process has read, which another machine may see a while later.

    Raises:
        FailedError: if it does not come.
    """
    wanted = world.from_first(lambda: repr(stored and stored.state))
    deadline = time.monotonic() + SHARED_FILE_SECONDS
    with world.together():
        while repr(stored and stored.state) != wanted:
            if time.monotonic() > deadline:
                raise FailedError(f"process {world.rank} on {platform.node()} does not see the checkpoint of {out}")
            time.sleep(1)
            stored = _stored(out)
    return stored


def _make_reproducible(device: torch.device, stored: Checkpoint | None, world: World) -> None:
    """Compute the same bits each time, on a CPU; a continued training uses the threads that it began with.

    With another number of processes the bits are others anyway, and the threads those that are given to each.

    On CUDA what PyTorch can make deterministic is, but some operators, such as the backward pass of memory-efficient
    attention, are not and only warn: there, equal bits are not promised, and nobody has compared them.
    """
    if stored is not None and stored.processes == world.size:
        torch.set_num_threads(stored.threads)
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    # Deterministic mode would fill all fresh memory with NaN, a check for operators that read it; ours do not.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _check_metric(dev: RatedSet, config: TrainConfig) -> None:
    level, metric = config.best_metric.split("_")
    value = dev.agreement(dict(zip(dev.utterances, dev.mos, strict=True)))[level][metric]
    if value != value:
        where = "in one of its corpora" if len(set(dev.corpora)) > 1 else "there"
        raise InputError(
            f"{dev.path}: best_metric {config.best_metric} is not defined {where}: fewer than two {level}s with "
            f"different scores ({len(dev.utterances)} utterances, {len(set(dev.systems))} systems)"
        )


def _check_raters(train: RatedSet, config: TrainConfig) -> None:
    known = set(train.corpora)
    unknown = [name for name in config.corpus_weights if name not in known]
    if unknown:
        listing = ", ".join(sorted(known)) or "no utt2corpus, it is a single corpus"
        raise InputError(f"{train.path}: corpus_weights names {', '.join(unknown)}; there is {listing}")
    if config.listener_offsets and not any(train.ratings):
        raise InputError(f"{train.path / 'ratings'}: no such file, which listener_offsets needs")


def _add_tokens(
    job: TrainJob, train: RatedSet, dev: RatedSet, encoder: SSLEncoder
) -> tuple[RatedSet, RatedSet, TokenInfo]:
    """Return both sets with their tokens, and where these come from."""
    if job.train_tokens is None or job.dev_tokens is None:
        raise InputError("model distilmos needs --train-tokens and --dev-tokens")
    # Without self-distillation nothing but the number of clusters, which shapes the network, is needed.
    layers = _target_layers(job.config, encoder) if job.config.token_weight > 0 else ()
    foreign = job.config.foreign_tokens
    train, info = with_tokens(train, job.train_tokens, layers, encoder, foreign=foreign)
    dev, dev_info = with_tokens(dev, job.dev_tokens, layers, encoder, foreign=foreign)
    if (info.clusters, info.kmeans) != (dev_info.clusters, dev_info.kmeans):
        raise InputError(
            f"{job.dev_tokens}: tokens of another k-means ({dev_info.clusters} clusters, {dev_info.kmeans}) than in "
            f"{job.train_tokens} ({info.clusters} clusters, {info.kmeans})"
        )
    return train, dev, info


def _target_layers(config: TrainConfig, encoder: SSLEncoder) -> tuple[int, ...]:
    try:
        return config.layers(encoder.config.num_layers)
    except ValueError as error:
        raise InputError(f"settings: {error} ({config.ssl_model})") from None


def _identity(config: TrainConfig, inputs: _Inputs) -> dict[str, Any]:
    """Return what decides the result of a training, by name."""
    settings = config.model_dump(mode="json", exclude={"num_workers"})
    return settings | {
        "training data": f"{inputs.train.path} ({inputs.train.digest()})",
        "dev data": f"{inputs.dev.path} ({inputs.dev.digest()})",
        "encoder": inputs.encoder.fingerprint(),
        "initial model": weights_hash(inputs.initial) if inputs.initial else None,
        "k-means": inputs.tokens.kmeans if inputs.tokens else None,
        "device": inputs.device.type,
    }


def _check_identity(stored: Checkpoint, identity: dict[str, Any], out: Path) -> None:
    different = _differences(stored.identity, identity, "there", "now")
    if different:
        raise InputError(
            f"{out}: holds a training with other settings or data; give this one another directory (--out, or --tag "
            f"of a recipe){different}"
        )


def _differences(before: dict[str, Any], identity: dict[str, Any], there: str, here: str) -> str:
    """Return a line for each entry in which two identities differ, each after a newline."""
    return "".join(
        f"\n  {name}: {before.get(name)!r} {there}, {identity.get(name)!r} {here}"
        for name in dict.fromkeys([*before, *identity])
        if before.get(name) != identity.get(name)
    )


def _make_model(config: TrainConfig, inputs: _Inputs) -> MOSNetwork:
    torch.manual_seed(config.seed)
    corpora = tuple(sorted(set(inputs.train.corpora))) if config.corpus_offsets else ()
    clusters = inputs.tokens.clusters if inputs.tokens else None
    initial = inputs.initial
    encoder = initial.encoder if isinstance(initial, EncoderNetwork) else inputs.encoder
    try:
        model = build_model(config, encoder, clusters, corpora if len(corpora) > 1 else ())
    except ValueError as error:
        raise InputError(f"settings: {error} ({config.ssl_model})") from None
    if isinstance(model, DistilMOS) and inputs.tokens:
        model.kmeans = inputs.tokens.kmeans
    if config.listener_offsets:
        model.listener_offsets = _listener_offsets(inputs.train)
    if initial:
        _take_over(model, initial, config.init_model)
    else:
        model.init_output(sum(inputs.train.mos) / len(inputs.train.mos))
    freeze(model, config)
    return model.to(inputs.device)


def _listener_offsets(train: RatedSet) -> Offsets:
    """Return offsets of all listeners, which start from how far their ratings are from the means, on average."""
    differences: dict[str, list[float]] = {}
    corpora: dict[str, str] = {}
    for index, pairs in enumerate(train.ratings):
        for listener, score in pairs:
            differences.setdefault(listener, []).append(score - train.mos[index])
            corpora.setdefault(listener, train.corpora[index] if train.corpora else "")
    names = tuple(sorted(differences))
    numbers = {corpus: number for number, corpus in enumerate(sorted(set(corpora.values())))}
    offsets = Offsets(names, tuple(numbers[corpora[name]] for name in names))
    offsets.values.data = torch.tensor([fmean(differences[name]) for name in names])
    return offsets


def _take_over(model: MOSNetwork, initial: MOSNetwork, path: str) -> None:
    """Start `model` from the weights of `initial`.

    Of one of spectra alone the branch is taken. What belongs to other data stays fresh: offsets of corpora, and the
    predictors of token ids, which are arbitrary numbers, unless both mean the same k-means.
    """
    same_tokens = (
        isinstance(model, DistilMOS)
        and isinstance(initial, DistilMOS)
        and (model.kmeans, model.target_layers) == (initial.kmeans, initial.target_layers)
    )
    fresh = ("corpus_offsets.", "listener_offsets.") + (() if same_tokens else ("predictors.",))
    # A network of spectra alone has no more to give, to one on any encoder.
    taken = "spectral." if isinstance(initial, SpectralMOS) else ""

    def shared(network: MOSNetwork) -> dict[str, torch.Tensor]:
        weights = network.state_dict()
        return {name: weights[name] for name in weights if name.startswith(taken) and not name.startswith(fresh)}

    given, wanted = shared(initial), shared(model)
    shapes = [{name: tuple(value.shape) for name, value in weights.items()} for weights in (given, wanted)]
    if shapes[0] != shapes[1]:
        differs = next(name for name in [*given, *wanted] if shapes[0].get(name) != shapes[1].get(name))
        raise InputError(
            f"init_model {path}: not a network of these settings: {differs} is {shapes[0].get(differs)} there, "
            f"{shapes[1].get(differs)} here"
        )
    model.load_state_dict(given, strict=False)
    if taken and isinstance(model, EncoderNetwork):
        # The first scores are those of the branch, whose bias is that of the network.
        torch.nn.init.zeros_(model.linear.weight)
        torch.nn.init.zeros_(model.linear.bias)


def _start(job: TrainJob, inputs: _Inputs, model: MOSNetwork, world: World, identity: dict[str, Any]) -> dict[str, Any]:
    """Return the values of the log's first line."""
    return {
        "time": now(),
        "command": job.command,
        "commit": commit(),
        "seed": job.config.seed,
        # What `precision: auto` has come to, and what settings name by a path, or another machine makes to other bits.
        "precision": "bfloat16" if uses_bfloat16(job.config, inputs.device) else "float32",
        "encoder": identity["encoder"],
        "initial_model": identity["initial model"],
        "kmeans": identity["k-means"],
        "hardware": machine(inputs.device) | {"processes": world.size},
        "data": {
            name: {
                "dir": str(data.path),
                "utterances": len(data.utterances),
                "seconds": data.seconds,
                "notes": data.notes,
            }
            for name, data in (("train", inputs.train), ("dev", inputs.dev))
        },
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
