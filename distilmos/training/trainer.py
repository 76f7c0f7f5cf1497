"""The training loop: steps, evaluations, checkpoints, and the average of the best models at the end."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from distilmos.data.audio import SAMPLE_RATE
from distilmos.errors import FailedError
from distilmos.model.losses import Losses, ScorePairs, contrastive_loss, multitask_loss, utterance_pairs
from distilmos.model.networks import MOSNetwork, Prediction
from distilmos.model.package import save_model_dir
from distilmos.training.batching import BatchOrder, BatchPlan, evaluation_plans
from distilmos.training.calibrate import recompute_batch_norm
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
from distilmos.training.dataset import Batch, BatchReader, RatedSet, checked, make_loader
from distilmos.training.distributed import World
from distilmos.training.monitor import Observer
from distilmos.training.optimizer import make_optimizer, set_rates
from distilmos.training.preemption import PreemptedError, StopRequest

LAST = "last.pt"
# Largest padded duration of a batch of the dev set: enough to fill a GPU, and small beside what training needs of its
# memory, also where many processes share a large batch_seconds.
DEV_BATCH_SECONDS = 80.0
STEP_VALUES = ("loss", "regression", "token", "contrastive", "grad_norm")
CALIBRATION_BATCHES = 50  # their statistics hardly change with more


def uses_bfloat16(config: TrainConfig, device: torch.device) -> bool:
    """Tell whether training runs under bfloat16 autocast on `device`."""
    # GPUs older than Ampere emulate bfloat16, which is slower than float32.
    return config.precision == "bfloat16" or (
        config.precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    )


def checkpoint_dir(directory: Path) -> Path:
    """Return where the checkpoints of an experiment are."""
    return directory / "checkpoints"


class _DevBatch(NamedTuple):
    """What a batch of the dev set adds to its scores.

    Attributes:
        place: of the batch among all of them.
        predicted: utterance -> score.
        regression: sum of the losses of its utterances.
        token: sum of the token losses of its frames.
        correct: frames of each target layer that were classified right; None without tokens.
        frames: with tokens.
    """

    place: int
    predicted: dict[str, float]
    regression: float
    token: float
    correct: Tensor | None
    frames: int


class Trainer:
    """Trains a model to `max_steps` or until the dev metric stops improving, from the beginning or a checkpoint."""

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
    ) -> None:
        """Prepare the beginning of a training; `restore` moves it to a checkpoint.

        A batch is that of all processes together, so that what is learned does not depend on how many there are.

        Args:
            config: the settings.
            model: on `device`, with the parts frozen that stay as they are.
            train: the training set.
            dev: the set that chooses the best models.
            directory: of the experiment.
            device: where the network is computed.
            identity: stored in every checkpoint.
            world: this process and the others; None if it is alone.
        """
        self.config = config
        self.model = model
        self.train = train
        self.dev = dev
        self.directory = directory
        self.device = device
        self.identity = identity
        self.world = world or World()
        self.state = TrainState()
        self.optimizer = make_optimizer(model, config)
        self._budget = round(config.batch_seconds * SAMPLE_RATE)
        self._bfloat16 = uses_bfloat16(config, device)
        pin = device.type == "cuda"
        corpora = model.corpus_offsets.names if model.corpus_offsets else ()
        listeners = model.listener_offsets.names if model.listener_offsets else None
        self._reader = BatchReader(train, corpora, listeners)
        self._order = BatchOrder(train.num_samples, self._budget, config.seed, _shares(train, config))
        # Whole batches for each process, the same ones however many there are: scores are equal to the last bit.
        plans = evaluation_plans(dev.num_samples, round(min(config.batch_seconds, DEV_BATCH_SECONDS) * SAMPLE_RATE))
        own = plans[self.world.rank :: self.world.size]
        self._dev_loader = make_loader(BatchReader(dev, corpora), own, config.num_workers, pin)
        self._clock = time.perf_counter()

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from `checkpoint`, whose identity is this training's."""
        self.state = checkpoint.state
        self.model.load_state_dict(checkpoint.model)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        # A killed process may have got further than its last checkpoint.
        if self.world.first:
            drop_weights(checkpoint_dir(self.directory), [evaluation.step for evaluation in self.state.best])

    def run(self, monitor: Observer, stop: StopRequest) -> None:
        """Train to the end and write `final/`, or a checkpoint when `stop` is asked for.

        Raises:
            InputError: if a recording cannot be read.
            FailedError: if a loss is not finite.
            PreemptedError: if training was stopped.
            SystemExit: in place of these, in processes other than the first.
        """
        config, state = self.config, self.state
        batches = self._training_batches()
        self._clock = time.perf_counter()
        self.world.copy_from_first(self.model.state_dict().values())
        while not (reason := self._end()):
            if self.world.largest(stop.signal):
                self._save(monitor)
                self.world.barrier()  # nobody ends the others before this is written
                self.world.end(
                    PreemptedError(f"stopped by a signal after step {state.step}; its checkpoint is written")
                )
            asked = time.perf_counter()
            taken = list(islice(batches, config.accumulate))
            rates = self._step(taken, time.perf_counter() - asked)
            monitor.advance()
            if state.step % config.log_every == 0:
                self._log(monitor, rates)
            evaluates = state.step % config.eval_every == 0 or state.step == config.max_steps
            if evaluates:
                self._evaluate(monitor)
            if evaluates or state.step % config.checkpoint_every == 0:
                self._save(monitor)
        self._finish(monitor, reason)

    def _training_batches(self) -> Iterator[Batch]:
        return self._read(self._order.stream(self.state.epoch, self.state.place), self.device.type == "cuda")

    def _read(self, plans: Iterable[BatchPlan], pin: bool) -> Iterator[Batch]:
        """Yield this process' parts of batches of the training set."""
        world = self.world
        shares = (plan.share(world.rank, world.size, self.train.num_samples) for plan in plans)
        for item in make_loader(self._reader, shares, self.config.num_workers, pin):
            with world.together():
                batch = checked(item)
            yield batch

    def _end(self) -> str:
        """Return why training is over, or nothing."""
        if self.state.step >= self.config.max_steps:
            return "max_steps"
        return "early_stopping" if self.state.stale >= self.config.patience else ""

    def _step(self, batches: list[Batch], waited: float = 0.0) -> dict[str, float]:
        """Make one optimiser step of the mean loss over all batches together; return the learning rates.

        Args:
            batches: of the step.
            waited: seconds that it took to get them.
        """
        state = self.state
        _seed_step(self.config.seed, state.step + 1, self.world.rank)
        rates = set_rates(self.optimizer, state.step + 1, self.config)
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        # Each batch, or part of one, counts by its utterances and frames among all of the step's, so that cutting a
        # batch in two changes nothing but rounding, and which pairs there are.
        members = [member for batch in batches for member in batch.plan.all_members]
        utterances, frames = len(members), self.train.num_token_frames(members)
        sums = torch.zeros(len(STEP_VALUES) - 1, device=self.device)
        for batch in batches:
            if not batch.utterances:
                self.model.without_recordings().backward()
                continue
            batch = batch.to(self.device)
            prediction, losses = self._losses(self.model, batch)
            share = len(batch.utterances) / utterances
            regression = losses.regression * share
            token = torch.zeros_like(regression) if losses.token is None else losses.token * (losses.frames / frames)
            contrastive = self._contrastive_loss(prediction, batch) * share
            total = regression + self.config.token_weight * token + self.config.contrastive_weight * contrastive
            total.backward()
            sums += torch.stack([total, regression, token, contrastive]).detach()
        self.world.add_gradients(self.model.parameters())
        self.world.add(sums)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        values = [*sums.tolist(), float(norm)]
        if not all(map(math.isfinite, values)):
            names = " ".join(self.train.utterances[member] for member in members)
            found = ", ".join(map("{} {:g}".format, STEP_VALUES, values))
            self.world.end(FailedError(f"step {state.step + 1}: not finite: {found}; utterances: {names}"))
        self.optimizer.step()
        state.step += 1
        state.epoch, state.place = batches[-1].plan.epoch, batches[-1].plan.place + 1
        self._count(dict(zip(STEP_VALUES, values, strict=True)) | {"waited": waited}, members)
        return rates

    def _losses(self, model: MOSNetwork, batch: Batch) -> tuple[Prediction, Losses]:
        """Return what a model says of a batch, which is on its device, and its losses.

        Autocast is for training alone: a dev score is the one that prediction gives.
        """
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bfloat16 and model.training):
            prediction = model(batch.audio, batch.num_samples, with_tokens=batch.tokens is not None)
            losses = multitask_loss(
                prediction,
                _score_pairs(model, prediction, batch),
                batch.tokens,
                kind=self.config.regression_loss,
                clip=self.config.regression_clip,
                token_weight=self.config.token_weight,
            )
        return prediction, losses

    def _contrastive_loss(self, prediction: Prediction, batch: Batch) -> Tensor:
        if not self.config.contrastive_weight:
            return prediction.mos.new_zeros(())
        mos = _on_own_scale(self.model, prediction.mos, batch.corpora)
        return contrastive_loss(mos, batch.mos, self.config.regression_clip)

    def _count(self, values: dict[str, float], members: list[int]) -> None:
        """Add a step over some recordings to what the next line of the log averages."""
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
                "token": mean["token"] if self.train.tokens else None,
                "contrastive": mean["contrastive"] if self.config.contrastive_weight else None,
                "lr_encoder": rates["encoder"],
                "lr_head": rates["head"],
                "grad_norm": mean["grad_norm"],
                "seconds_per_second": sums["audio"] / sums["wall"],
                "data_wait": sums["waited"] / sums["wall"],
            },
        )
        state.sums = {}

    def _evaluate(self, monitor: Observer) -> None:
        """Score the dev set, in float32 as prediction does, and keep the weights if they are among the best."""
        result = self._score_dev(self.model)
        level, metric = self.config.best_metric.split("_")
        value = result[level][metric]
        evaluation = Evaluation(self.state.step, -value if metric == "MSE" else value, result["regression"])
        best = self.state.note(evaluation, self.config.n_best)
        if evaluation in self.state.best and self.world.first:
            save_weights(checkpoint_dir(self.directory), self.state.step, self.model.state_dict())
        monitor.event("dev", self.state.step, result | {"best": best})
        self._tick()

    @torch.no_grad()
    def _score_dev(self, model: MOSNetwork) -> dict[str, Any]:
        """Return what the log says of a model on the dev set, of which each process scores a part."""
        model.eval()
        with self.world.together():
            scored = [self._score_dev_batch(model, checked(item)) for item in self._dev_loader]
        batches = sorted((batch for part in self.world.gather(scored) for batch in part), key=lambda batch: batch.place)
        # Computed once: processes that rounded in other ways might disagree on which model is the best.
        return self.world.from_first(lambda: self._summarize_dev(model, batches))

    def _score_dev_batch(self, model: MOSNetwork, batch: Batch) -> _DevBatch:
        batch = batch.to(self.device)
        prediction, losses = self._losses(model, batch)
        mos = _on_own_scale(model, prediction.mos, batch.corpora)
        return _DevBatch(
            place=batch.plan.place,
            predicted=dict(zip(batch.utterances, mos.tolist(), strict=True)),
            regression=float(losses.regression) * len(batch.utterances),
            token=0.0 if losses.token is None else float(losses.token) * losses.frames,
            correct=None if losses.correct is None else losses.correct.cpu(),
            frames=losses.frames,
        )

    def _summarize_dev(self, model: MOSNetwork, batches: list[_DevBatch]) -> dict[str, Any]:
        frames = sum(batch.frames for batch in batches)
        correct = [batch.correct for batch in batches if batch.correct is not None]
        weights = model.layer_weights()
        return {
            "regression": sum(batch.regression for batch in batches) / len(self.dev.utterances),
            "token": sum(batch.token for batch in batches) / frames if frames else None,
            "token_accuracy": (torch.stack(correct).sum(0) / frames).tolist() if frames else None,
            "layer_weights": None if weights is None else weights.tolist(),
            **self.dev.agreement({name: mos for batch in batches for name, mos in batch.predicted.items()}),
        }

    def _save(self, monitor: Observer) -> None:
        """Write the checkpoint; only then may weights go that an earlier checkpoint counts on."""
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

    def _finish(self, monitor: Observer, reason: str) -> None:
        """Average the best models into `final/` and score that; the last checkpoint then says that this is done."""
        steps = [evaluation.step for evaluation in self.state.best]
        averaged = copy.deepcopy(self.model)
        # The first process has written them; other machines may not see the files yet.
        if self.world.first:
            averaged.load_state_dict(average_weights(checkpoint_dir(self.directory), steps))
        self.world.copy_from_first(averaged.state_dict().values())
        batches = self._read(self._order.epoch(0)[:CALIBRATION_BATCHES], pin=False)
        recompute_batch_norm(averaged, (batch.to(self.device) for batch in batches))
        averaged.listener_offsets = None  # scores are those of the mean listener
        about = {"ssl_model": self.config.ssl_model, "seed": self.config.seed, "averaged_steps": steps}
        if self.world.first:
            save_model_dir(self.directory / "final", averaged, about)
        dev = self._score_dev(averaged)
        self._tick()
        values = {"reason": reason, "averaged_steps": steps, "elapsed_seconds": self.state.elapsed, "dev": dev}
        monitor.event("end", self.state.step, values)
        self.state.ended = reason
        self._save(monitor)
        self.world.barrier()
        monitor.say(f"{reason} at step {self.state.step}; {self.directory / 'final'} is the mean of steps {steps}")


def _shares(data: RatedSet, config: TrainConfig) -> list[float] | None:
    """Return how often each recording is drawn in an epoch; None if each is drawn once."""
    if not config.corpus_weights:
        return None
    return [config.corpus_weights.get(corpus, 1.0) for corpus in data.corpora]


def _on_own_scale(model: MOSNetwork, mos: Tensor, corpora: Tensor) -> Tensor:
    """Move scores (B,) to the scales of their corpora (B,)."""
    return mos if model.corpus_offsets is None else mos + model.corpus_offsets(corpora)


def _score_pairs(model: MOSNetwork, prediction: Prediction, batch: Batch) -> ScorePairs:
    """Return what the regression compares: means of utterances, or single ratings with what is known of who rated."""
    mos = _on_own_scale(model, prediction.mos, batch.corpora)
    if batch.ratings is None or model.listener_offsets is None:
        return utterance_pairs(mos, batch.mos)
    ratings = batch.ratings
    return ScorePairs(mos[ratings.member] + model.listener_offsets(ratings.listener), ratings.score, ratings.weight)


def _seed_step(seed: int, step: int, rank: int) -> None:
    """Start the random numbers of a step from seed, step and process alone: nothing about them needs to be stored."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1)))
