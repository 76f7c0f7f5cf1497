"""One model from several: the mean of their weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilmos.data.audio import SAMPLE_RATE
from distilmos.errors import InputError
from distilmos.model.networks import DistilMOS, MOSNetwork
from distilmos.model.package import find_model, load_model_dir, save_model_dir
from distilmos.ssl.forward import choose_device
from distilmos.training.batching import BatchOrder
from distilmos.training.calibrate import CALIBRATION_BATCHES, recompute_batch_norm
from distilmos.training.checkpoint import mean_weights
from distilmos.training.dataset import BatchReader, checked, read_rated_set


@dataclass(frozen=True)
class AverageJob:
    """What to average.

    Attributes:
        models: names or directories of models, trained from the same initial one.
        data: data directory of stage 1 that batch norm takes its statistics from.
        out: model directory to write.
        device: where to compute, as `choose_device` takes it.
        batch_seconds: padded duration of a batch.
        seed: of the batches.
    """

    models: Sequence[str]
    data: Path
    out: Path
    device: str
    batch_seconds: float
    seed: int


def average_models(job: AverageJob) -> MOSNetwork:
    """Write the mean of several models as a model directory.

    Models that were fine-tuned from the same weights are near enough to each other for their mean to be a model, which
    does about as well as the mean of their scores, at the price of one (M. Wortsman et al., "Model soups", ICML 2022).

    Returns:
        the mean.

    Raises:
        InputError: if a model cannot be loaded, they are not of one kind, or a recording cannot be read.
    """
    device = choose_device(job.device)
    models = [load_model_dir(find_model(name)) for name in job.models]
    data = read_rated_set(job.data, job.batch_seconds)
    first = _kind(models[0])
    for name, model in zip(job.models, models, strict=True):
        for what, value in _kind(model).items():
            if first[what] != value:
                raise InputError(
                    f"{name}: {what} is {value!r}, that of {job.models[0]} {first[what]!r}: they have no mean"
                )
    averaged = models[0]
    averaged.load_state_dict(mean_weights([model.state_dict() for model in models]))
    averaged.to(device)
    order = BatchOrder(data.num_samples, round(job.batch_seconds * SAMPLE_RATE), job.seed)
    reader = BatchReader(data)
    batches = (checked(reader[plan]).to(device) for plan in order.epoch(0)[:CALIBRATION_BATCHES])
    recompute_batch_norm(averaged, batches)
    save_model_dir(job.out, averaged, {"averaged_models": list(job.models)})
    return averaged


def _kind(model: MOSNetwork) -> dict[str, Any]:
    """Return what models must share, by name."""
    kind = {"encoder": model.encoder_config, **model.config.model_dump()}
    kind["corpora"] = model.corpus_offsets.names if model.corpus_offsets else ()
    if isinstance(model, DistilMOS):
        kind |= {"clusters": model.clusters, "kmeans": model.kmeans}
    return kind
