"""The training loop: steps, evaluations, checkpoints, and the average of the best models at the end."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distilmos.data.audio import SAMPLE_RATE
from distilmos.errors import FailedError, InputError, PreemptedError
from distilmos.model.directory import FINAL
from distilmos.model.lora import merge_lora
from distilmos.model.networks import EncoderNetwork, MOSNetwork
from distilmos.model.package import save_model_dir
from distilmos.preemption import StopRequest
from distilmos.ssl.encoder import SSLEncoder
from distilmos.training.batching import BatchPlan, evaluation_plans, training_order
from distilmos.training.batchnorm import batch_norm_plans
from distilmos.training.checkpoint import (
    Checkpoint,
    Evaluation,
    TrainState,
    average_weights,
    drop_weights,
    save_checkpoint,
    save_weights,
)
from distilmos.training.config import TrainConfig
from distilmos.training.distributed import World
from distilmos.training.headfit import fit_head, pool_recordings
from distilmos.training.loader import Batch, BatchReader, read_batches
from distilmos.training.measure import measure
from distilmos.training.monitor import Observer
from distilmos.training.objective import StepSize, compute_objective, label_weight
from distilmos.training.optimizer import StartPenalty, make_optimizer, set_rates
from distilmos.training.ratedset import RatedSet
from distilmos.training.validation import DevScorer

LAST = "last.pt"
LOSSES = ("loss", "regression", "token", "contrastive")
STEP_VALUES = (*LOSSES, "grad_norm")


def checkpoint_dir(directory: Path) -> Path:
    """Return the checkpoint directory of an experiment."""
    return directory / "checkpoints"


class Trainer:
    """Trains a model to `max_steps` or until the dev metric stops improving, from the start or from a checkpoint."""

    def __init__(
        self,
        config: TrainConfig,
        model: MOSNetwork,
        train: RatedSet,
        dev: RatedSet,
        directory: Path,
        device: torch.device,
        identity: dict[str, Any],
        world: World | None = None,
        teacher: SSLEncoder | None = None,
    ) -> None:
        """Prepare a run from its start; `restore` moves it to a checkpoint.

        All processes share each batch, so that the result does not depend on their number.

        Args:
            config: the settings.
            model: on `device`, with its untrained parts frozen.
            train: the training set.
            dev: the set that selects the best models.
            directory: of the experiment.
            device: of the network.
            identity: stored in every checkpoint.
            world: this process and the others; None for a single process.
            teacher: the frozen encoder on `device`; None unless features are distilled.
        """
        self.config = config
        self.model = model
        self.train = train
        self.directory = directory
        self.device = device
        self.identity = identity
        self.world = world or World()
        self.state = TrainState()
        self.optimizer = make_optimizer(model, config)
        self._penalty = StartPenalty(model, config.l2_sp)
        corpora = model.corpus_offsets.names if model.corpus_offsets else ()
        listeners = model.listener_offsets.names if model.listener_offsets else None
        self._reader = BatchReader(train, corpora, listeners)
        self._order = training_order(train, config)
        self._teacher = teacher
        self._dev = DevScorer(dev, corpora, config, device, self.world, teacher)
        self._clock = time.perf_counter()

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from `checkpoint`, which must have the identity of this run.

        Raises:
            InputError: if its weights or its optimiser's state do not fit; only a damaged checkpoint has such.
        """
        self.state = checkpoint.state
        try:
            self.model.load_state_dict(checkpoint.model)
            self.optimizer.load_state_dict(checkpoint.optimizer)
        except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
            path = checkpoint_dir(self.directory) / LAST
            raise InputError(f"{path}: damaged: it does not fit this run: {error}") from None
        # A killed process may have written weights after its last checkpoint.
        if self.world.first:
            drop_weights(checkpoint_dir(self.directory), [evaluation.step for evaluation in self.state.best])

    def run(self, monitor: Observer, stop: StopRequest) -> None:
        """Train to the end and write `final/`; after a stop signal, write a checkpoint instead.

        Raises:
            InputError: if a recording cannot be read.
            FailedError: if a loss is not finite, or reading is stalled.
            PreemptedError: if a signal stopped the run.
            SystemExit: instead of these, in processes other than the first.
        """
        config, state = self.config, self.state
        self._clock = time.perf_counter()
        if state.step == 0:
            self._fit_head(stop)
        self.world.copy_from_first(self.model.state_dict().values())
        with closing(self._read(self._order.stream(state.epoch, state.place), stop)) as batches:
            while not (reason := self._end()):
                asked = time.perf_counter()
                taken = self._take(batches)
                waited = time.perf_counter() - asked
                if self.world.largest(stop.signal):
                    self._save(monitor)
                    self.world.barrier()  # a process that exits ends the others: wait until the checkpoint is written
                    self.world.end(
                        PreemptedError(f"stopped by a signal after step {state.step}; its checkpoint is written")
                    )
                rates = self._step(taken, waited)
                monitor.advance()
                if state.step % config.log_every == 0:
                    self._log(monitor, rates)
                # The encoder of the first steps is the pretrained one: they neither stop a run nor enter the mean.
                evaluates = state.step == config.max_steps or (
                    state.step % config.eval_every == 0 and state.step > config.head_steps
                )
                if evaluates:
                    self._evaluate(monitor, stop)
                if evaluates or state.step % config.checkpoint_every == 0:
                    self._save(monitor)
        self._finish(monitor, reason, stop)

    def _fit_head(self, stop: StopRequest) -> None:
        """Fit a statistics head; `run` then copies it from the first process."""
        model = self.model
        if not isinstance(model, EncoderNetwork) or model.statistics is None or not self.config.head_fit:
            return
        plans = evaluation_plans(self.train.num_samples, round(self.config.batch_seconds * SAMPLE_RATE))
        with self.world.together(), stop.interrupting(), closing(self._read(plans, stop)) as batches:
            own = pool_recordings(model, model.statistics, (batch.to(self.device) for batch in batches))
        parts = self.world.gather(own)
        with self.world.together(), stop.interrupting():
            if self.world.first:
                fit_head(model, model.statistics, self.train, parts, self.config)

    def _read(self, plans: Iterable[BatchPlan], stop: StopRequest) -> Generator[Batch]:
        """Read the shares of this process of batches of the training set."""
        world = self.world
        shares = (plan.share(world.rank, world.size, self.train.num_samples) for plan in plans)
        return read_batches(self._reader, shares, self.config.num_workers, self.device, stop)

    def _take(self, batches: Iterator[Batch]) -> list[Batch]:
        """Return the batches of a step; none if a stop signal has ended the wait for them."""
        with self.world.together():
            try:
                return list(islice(batches, self.config.accumulate))
            except PreemptedError:
                return []

    def _read_sample(self, stop: StopRequest) -> Generator[Batch]:
        """Yield the batches for `measure`, each once all processes have their shares of it."""
        with closing(self._read(batch_norm_plans(self._order), stop)) as batches:
            while True:
                with self.world.together():
                    batch = next(batches, None)
                if batch is None:
                    return
                yield batch.to(self.device)

    def _end(self) -> str:
        """Return why training is over; empty if it is not."""
        if self.state.step >= self.config.max_steps:
            return "max_steps"
        return "early_stopping" if self.state.stale >= self.config.patience else ""

    def _step(self, batches: list[Batch], waited: float = 0.0) -> dict[str, float]:
        """Make one optimiser step on the mean loss over all batches; return the learning rates.

        Args:
            batches: of the step.
            waited: seconds spent waiting for them.
        """
        state = self.state
        _seed_step(self.config.seed, state.step + 1, self.world.rank)
        rates = set_rates(self.optimizer, state.step + 1, self.config)
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        members = [member for batch in batches for member in batch.plan.all_members]
        labels = label_weight(torch.from_numpy(self.train.scores[members]), self.config)
        size = StepSize(labels, self._distilled_frames(members))
        sums = torch.zeros(len(LOSSES), device=self.device)
        for batch in batches:
            if not batch.utterances:
                self.model.without_recordings().backward()
                continue
            objective = compute_objective(self.model, batch.to(self.device), self.config, size, self._teacher)
            objective.total.backward()
            parts = [objective.total, objective.regression, objective.token, objective.contrastive]
            sums += torch.stack(parts).detach()
        self.world.add_gradients(self.model.parameters())
        self._penalty.add_gradients()
        self.world.add(sums)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        values = dict(zip(STEP_VALUES, [*sums.tolist(), float(norm)], strict=True))
        if not all(map(math.isfinite, values.values())):
            names = " ".join(self.train.utterances[member] for member in members)
            found = ", ".join(f"{name} {value:g}" for name, value in values.items())
            self.world.end(FailedError(f"step {state.step + 1}: not finite: {found}; utterances: {names}"))
        self.optimizer.step()
        state.step += 1
        state.epoch, state.place = batches[-1].plan.epoch, batches[-1].plan.place + 1
        self._count(values | {"waited": waited}, members)
        return rates

    def _distilled_frames(self, members: list[int]) -> int:
        """Return the number of frames with a distillation loss; `read_tokens` gives each frame a token."""
        if not self.config.distils:
            return 0
        shape, samples = self.model.encoder_config, self.train.num_samples
        return sum(shape.num_frames(samples[member]) for member in members)

    def _count(self, values: dict[str, float], members: list[int]) -> None:
        """Add a step over the recordings `members` to the sums for the next line of the log."""
        audio = sum(self.train.num_samples[member] for member in members) / SAMPLE_RATE
        for name, value in (values | {"steps": 1, "audio": audio, "wall": self._tick()}).items():
            self.state.sums[name] = self.state.sums.get(name, 0) + value

    def _tick(self) -> float:
        """Add the time since the last call to the elapsed time; return it."""
        now = time.perf_counter()
        passed, self._clock = now - self._clock, now
        self.state.elapsed += passed
        return passed

    def _log(self, monitor: Observer, rates: dict[str, float]) -> None:
        state, sums = self.state, self.state.sums
        mean = {name: sums[name] / sums["steps"] for name in STEP_VALUES}
        monitor.event(
            "train",
            state.step,
            {
                "epoch": state.epoch + 1,
                "loss": mean["loss"],
                "regression": mean["regression"],
                "token": mean["token"] if self.config.distils else None,
                "contrastive": mean["contrastive"] if self.config.contrastive_weight else None,
                "lr_encoder": rates["encoder"],
                "lr_head": rates["head"],
                "grad_norm": mean["grad_norm"],
                "seconds_per_second": sums["audio"] / sums["wall"],
                "data_wait": sums["waited"] / sums["wall"],
            },
        )
        state.sums = {}

    def _evaluate(self, monitor: Observer, stop: StopRequest) -> None:
        """Score the dev set and keep the weights if they are among the best."""
        result = self._dev.score(self.model, stop)
        level, metric = self.config.best_metric.split("_")
        value = result[level][metric]
        evaluation = Evaluation(self.state.step, -value if metric == "MSE" else value, result["regression"])
        best = self.state.note(evaluation, self.config.n_best)
        if evaluation in self.state.best and self.world.first:
            save_weights(checkpoint_dir(self.directory), self.state.step, merge_lora(self.model).state_dict())
        monitor.event("dev", self.state.step, result | {"best": best})
        self._tick()

    def _save(self, monitor: Observer) -> None:
        """Write the checkpoint, then remove the weights that only the previous checkpoint refers to."""
        if not self.world.first:
            return
        directory = checkpoint_dir(self.directory)
        self.state.log_bytes = monitor.sync()
        content = Checkpoint(
            identity=self.identity,
            threads=torch.get_num_threads(),
            state=self.state,
            model=self.model.state_dict(),
            optimizer=self.optimizer.state_dict(),
            processes=self.world.size,
        )
        save_checkpoint(directory / LAST, content)
        drop_weights(directory, [evaluation.step for evaluation in self.state.best])

    def _finish(self, monitor: Observer, reason: str, stop: StopRequest) -> None:
        """Average the best models into `final/`, score the result, and mark the run as ended in its checkpoint."""
        steps = [evaluation.step for evaluation in self.state.best]
        averaged = copy.deepcopy(merge_lora(self.model))
        # The first process has written the weights; other machines may not see the files yet.
        if self.world.first:
            averaged.load_state_dict(average_weights(checkpoint_dir(self.directory), steps))
        self.world.copy_from_first(averaged.state_dict().values())
        measure(averaged, partial(self._read_sample, stop), self.world)
        averaged.listener_offsets = None  # the final model predicts the scores of the mean listener
        about = {"ssl_model": self.config.ssl_model, "seed": self.config.seed, "averaged_steps": steps}
        if self.world.first:
            save_model_dir(self.directory / FINAL, averaged, about)
        dev = self._dev.score(averaged, stop)
        self._tick()
        values = {"reason": reason, "averaged_steps": steps, "elapsed_seconds": self.state.elapsed, "dev": dev}
        monitor.event("end", self.state.step, values)
        self.state.ended = reason
        self._save(monitor)
        self.world.barrier()
        monitor.say(f"{reason} at step {self.state.step}; {self.directory / FINAL} is the mean of steps {steps}")


def _seed_step(seed: int, step: int, rank: int) -> None:
    """Seed the random numbers of a step from seed, step and process, so that no random state has to be stored."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1)))
