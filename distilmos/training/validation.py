"""Scores a model on the dev set."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any, NamedTuple

import torch
from torch import Tensor

from distilmos.data.audio import SAMPLE_RATE
from distilmos.model.networks import MOSNetwork
from distilmos.preemption import StopRequest
from distilmos.ssl.encoder import SSLEncoder
from distilmos.training.batching import BatchPlan, evaluation_plans
from distilmos.training.config import TrainConfig
from distilmos.training.distributed import World
from distilmos.training.loader import Batch, BatchReader, read_batches
from distilmos.training.objective import compute_objective, label_weight
from distilmos.training.ratedset import RatedSet

# Largest padded duration of a dev batch: enough to fill a GPU, and little next to the memory of training, even if many
# processes share a large batch_seconds.
DEV_BATCH_SECONDS = 80.0


def dev_plans(lengths: Sequence[int], config: TrainConfig) -> list[BatchPlan]:
    """Return the batches of a dev set, given the samples of its recordings."""
    return evaluation_plans(lengths, round(min(config.batch_seconds, DEV_BATCH_SECONDS) * SAMPLE_RATE))


class _DevBatch(NamedTuple):
    """The results of one dev batch.

    Attributes:
        place: of the batch among all dev batches.
        predicted: utterance -> score of each target.
        labels: sum of the weights of its labels.
        regression: mean loss of its labels, times `labels`.
        token: sum of the distillation losses of its frames.
        correct: number of correctly classified frames of each target layer; None without tokens.
        frames: number of frames with a distillation loss.
    """

    place: int
    predicted: dict[str, list[float]]
    labels: float
    regression: float
    token: float
    correct: Tensor | None
    frames: int


class DevScorer:
    """Scores models on the dev set in float32, as prediction does; each process scores some of the batches."""

    def __init__(
        self,
        dev: RatedSet,
        corpora: tuple[str, ...],
        config: TrainConfig,
        device: torch.device,
        world: World,
        teacher: SSLEncoder | None = None,
    ) -> None:
        """Prepare the batches.

        Args:
            dev: the dev set.
            corpora: names of the model's corpora, by number.
            config: the settings.
            device: of the models.
            world: this process and the others.
            teacher: the frozen encoder on `device`; None unless features are distilled.
        """
        self._dev = dev
        self._config = config
        self._device = device
        self._world = world
        self._teacher = teacher
        # Each process scores whole batches, the same ones for any number of processes, so that scores do not change.
        self._plans = dev_plans(dev.num_samples, config)[world.rank :: world.size]
        self._reader = BatchReader(dev, corpora)

    @torch.no_grad()
    def score(self, model: MOSNetwork, stop: StopRequest) -> dict[str, Any]:
        """Return losses, metrics and layer weights as log.jsonl has them; the model is left in evaluation mode.

        Raises:
            InputError, FailedError, PreemptedError: as `read_batches`.
        """
        model.eval()
        batches = read_batches(self._reader, self._plans, self._config.num_workers, self._device, stop)
        with self._world.together(), closing(batches):
            scored = [self._score_batch(model, batch) for batch in batches]
        parts = self._world.gather(scored)
        ordered = sorted((batch for part in parts for batch in part), key=lambda batch: batch.place)
        # The first process computes this for all: after different rounding, processes could disagree on the best model.
        return self._world.from_first(lambda: self._summarize(model, ordered))

    def _score_batch(self, model: MOSNetwork, batch: Batch) -> _DevBatch:
        objective = compute_objective(model, batch.to(self._device), self._config, teacher=self._teacher)
        labels = label_weight(batch.scores, self._config)
        return _DevBatch(
            place=batch.plan.place,
            predicted=dict(zip(batch.utterances, objective.scores.tolist(), strict=True)),
            labels=labels,
            regression=float(objective.regression) * labels,
            token=float(objective.token) * objective.frames,
            correct=None if objective.correct is None else objective.correct.cpu(),
            frames=objective.frames,
        )

    def _summarize(self, model: MOSNetwork, batches: list[_DevBatch]) -> dict[str, Any]:
        frames = sum(batch.frames for batch in batches)
        correct = [batch.correct for batch in batches if batch.correct is not None]
        weights = model.layer_weights()
        predicted = {name: scores for batch in batches for name, scores in batch.predicted.items()}
        each = [
            self._dev.agreement({name: scores[target] for name, scores in predicted.items()}, target)
            for target in range(len(self._dev.scales))
        ]
        further = {scale.name: found for scale, found in zip(self._dev.scales[1:], each[1:], strict=True)}
        return {
            "regression": sum(batch.regression for batch in batches) / sum(batch.labels for batch in batches),
            "token": sum(batch.token for batch in batches) / frames if frames else None,
            "token_accuracy": (torch.stack(correct).sum(0) / frames).tolist() if correct else None,
            "layer_weights": None if weights is None else weights.tolist(),
            **each[0],
            **({"targets": further} if further else {}),
        }
