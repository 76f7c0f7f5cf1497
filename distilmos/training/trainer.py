"""The training loop: steps, evaluations, checkpoints, and the average of the best models at the end."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distilmos.data.audio import SAMPLE_RATE
from distilmos.errors import FailedError
from distilmos.model.losses import Losses, ScorePairs, multitask_loss, utterance_pairs
from distilmos.model.networks import MOSNetwork, Prediction
from distilmos.model.package import save_model_dir
from distilmos.training.batching import BatchOrder, evaluation_plans
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
from distilmos.training.monitor import Monitor
from distilmos.training.optimizer import make_optimizer, set_rates

LAST = "last.pt"
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
    ) -> None:
        """Prepare the beginning of a training; `restore` moves it to a checkpoint.

        Args:
            config: the settings.
            model: on `device`, with the parts frozen that stay as they are.
            train: the training set.
            dev: the set that chooses the best models.
            directory: of the experiment.
            device: where the network is computed.
            identity: stored in every checkpoint.
        """
        self.config = config
        self.model = model
        self.train = train
        self.dev = dev
        self.directory = directory
        self.device = device
        self.identity = identity
        self.state = TrainState()
        self.optimizer = make_optimizer(model, config)
        self._budget = round(config.batch_seconds * SAMPLE_RATE)
        self._bfloat16 = uses_bfloat16(config, device)
        pin = device.type == "cuda"
        corpora = model.corpus_offsets.names if model.corpus_offsets else ()
        listeners = model.listener_offsets.names if model.listener_offsets else None
        self._reader = BatchReader(train, corpora, listeners)
        self._order = BatchOrder(train.num_samples, self._budget, config.seed, _shares(train, config))
        plans = evaluation_plans(dev.num_samples, self._budget)
        self._dev_loader = make_loader(BatchReader(dev, corpora), plans, config.num_workers, pin)
        self._clock = time.perf_counter()

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from `checkpoint`, whose identity is this training's."""
        self.state = checkpoint.state
        self.model.load_state_dict(checkpoint.model)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        # A killed process may have got further than its last checkpoint.
        drop_weights(checkpoint_dir(self.directory), [evaluation.step for evaluation in self.state.best])

    def run(self, monitor: Monitor) -> None:
        """Train to the end and write `final/`.

        Raises:
            InputError: if a recording cannot be read.
            FailedError: if a loss is not finite.
        """
        config, state = self.config, self.state
        batches = self._training_batches()
        self._clock = time.perf_counter()
        while not (reason := self._end()):
            rates = self._step(list(islice(batches, config.accumulate)))
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
        plans = self._order.stream(self.state.epoch, self.state.place)
        return map(checked, make_loader(self._reader, plans, self.config.num_workers, self.device.type == "cuda"))

    def _end(self) -> str:
        """Return why training is over, or nothing."""
        if self.state.step >= self.config.max_steps:
            return "max_steps"
        return "early_stopping" if self.state.stale >= self.config.patience else ""

    def _step(self, batches: list[Batch]) -> dict[str, float]:
        """Make one optimiser step of the mean loss over all batches together; return the learning rates."""
        state = self.state
        _seed_step(self.config.seed, state.step + 1)
        rates = set_rates(self.optimizer, state.step + 1, self.config)
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        # Each batch counts by its utterances and frames, so that cutting a batch in two changes nothing but rounding.
        utterances = sum(len(batch.utterances) for batch in batches)
        frames = sum(batch.num_token_frames for batch in batches)
        sums = torch.zeros(3, device=self.device)
        for batch in batches:
            _, losses = self._losses(self.model, batch)
            regression = losses.regression * (len(batch.utterances) / utterances)
            token = torch.zeros_like(regression) if losses.token is None else losses.token * (losses.frames / frames)
            total = regression + self.config.token_weight * token
            total.backward()
            sums += torch.stack([total, regression, token]).detach()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        values = [*sums.tolist(), float(norm)]
        if not all(map(math.isfinite, values)):
            names = " ".join(utterance for batch in batches for utterance in batch.utterances)
            found = ", ".join(map("{} {:g}".format, ("loss", "regression", "token", "gradient norm"), values))
            raise FailedError(f"step {state.step + 1}: not finite: {found}; utterances: {names}")
        self.optimizer.step()
        state.step += 1
        state.epoch, state.place = batches[-1].plan.epoch, batches[-1].plan.place + 1
        self._count(dict(zip(("loss", "regression", "token", "grad_norm"), values, strict=True)), batches)
        return rates

    def _losses(self, model: MOSNetwork, batch: Batch) -> tuple[Prediction, Losses]:
        """Return what a model says of a batch, and its losses.

        Autocast is for training alone: a dev score is the one that prediction gives.
        """
        batch = batch.to(self.device)
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

    def _count(self, values: dict[str, float], batches: list[Batch]) -> None:
        """Add a step to what the next line of the log averages."""
        audio = sum(int(batch.num_samples.sum()) for batch in batches) / SAMPLE_RATE
        for name, value in (values | {"steps": 1, "audio": audio, "wall": self._tick()}).items():
            self.state.sums[name] = self.state.sums.get(name, 0) + value

    def _tick(self) -> float:
        """Add the time since the last call to the elapsed time; return it."""
        now = time.perf_counter()
        passed, self._clock = now - self._clock, now
        self.state.elapsed += passed
        return passed

    def _log(self, monitor: Monitor, rates: dict[str, float]) -> None:
        state, sums = self.state, self.state.sums
        mean = {name: sums[name] / sums["steps"] for name in ("loss", "regression", "token", "grad_norm")}
        monitor.event(
            "train",
            state.step,
            {
                "epoch": state.epoch + 1,
                "loss": mean["loss"],
                "regression": mean["regression"],
                "token": mean["token"] if self.train.tokens else None,
                "lr_encoder": rates["encoder"],
                "lr_head": rates["head"],
                "grad_norm": mean["grad_norm"],
                "seconds_per_second": sums["audio"] / sums["wall"],
            },
        )
        state.sums = {}

    def _evaluate(self, monitor: Monitor) -> None:
        """Score the dev set, in float32 as prediction does, and keep the weights if they are among the best."""
        result = self._score_dev(self.model)
        level, metric = self.config.best_metric.split("_")
        value = result[level][metric]
        evaluation = Evaluation(self.state.step, -value if metric == "MSE" else value, result["regression"])
        best = self.state.note(evaluation, self.config.n_best)
        if evaluation in self.state.best:
            save_weights(checkpoint_dir(self.directory), self.state.step, self.model.state_dict())
        monitor.event("dev", self.state.step, result | {"best": best})
        self._tick()

    @torch.no_grad()
    def _score_dev(self, model: MOSNetwork) -> dict[str, Any]:
        """Return what the log says of a model on the dev set."""
        model.eval()
        predicted: dict[str, float] = {}
        regression = token = 0.0
        frames = 0
        correct = torch.zeros(len(model.target_layers), dtype=torch.long, device=self.device)
        for batch in map(checked, self._dev_loader):
            prediction, losses = self._losses(model, batch)
            mos = _on_own_scale(model, prediction.mos, batch.corpora.to(self.device))
            predicted |= zip(batch.utterances, mos.tolist(), strict=True)
            regression += float(losses.regression) * len(batch.utterances)
            if losses.token is not None and losses.correct is not None:
                token += float(losses.token) * losses.frames
                correct += losses.correct
                frames += losses.frames
        weights = model.layer_weights()
        dev = self.dev
        return {
            "regression": regression / len(dev.utterances),
            "token": token / frames if frames else None,
            "token_accuracy": (correct / frames).tolist() if frames else None,
            "layer_weights": None if weights is None else weights.tolist(),
            **dev.agreement(predicted),
        }

    def _save(self, monitor: Monitor) -> None:
        """Write the checkpoint; only then may weights go that an earlier checkpoint counts on."""
        directory = checkpoint_dir(self.directory)
        self.state.log_bytes = monitor.sync()
        content = Checkpoint(
            identity=self.identity,
            threads=torch.get_num_threads(),
            state=self.state,
            model=self.model.state_dict(),
            optimizer=self.optimizer.state_dict(),
        )
        save_checkpoint(directory / LAST, content)
        drop_weights(directory, [evaluation.step for evaluation in self.state.best])

    def _finish(self, monitor: Monitor, reason: str) -> None:
        """Average the best models into `final/` and score that; the last checkpoint then says that this is done."""
        steps = [evaluation.step for evaluation in self.state.best]
        averaged = copy.deepcopy(self.model)
        averaged.load_state_dict(average_weights(checkpoint_dir(self.directory), steps))
        plans = self._order.epoch(0)[:CALIBRATION_BATCHES]
        loader = make_loader(self._reader, plans, self.config.num_workers, pin=False)
        recompute_batch_norm(averaged, (checked(batch).to(self.device) for batch in loader))
        averaged.listener_offsets = None  # scores are those of the mean listener
        about = {"ssl_model": self.config.ssl_model, "seed": self.config.seed, "averaged_steps": steps}
        save_model_dir(self.directory / "final", averaged, about)
        dev = self._score_dev(averaged)
        self._tick()
        values = {"reason": reason, "averaged_steps": steps, "elapsed_seconds": self.state.elapsed, "dev": dev}
        monitor.event("end", self.state.step, values)
        self.state.ended = reason
        self._save(monitor)
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


def _seed_step(seed: int, step: int) -> None:
    """Start the random numbers of a step from seed and step alone: nothing about them needs to be stored."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> np.uint64(1)))
