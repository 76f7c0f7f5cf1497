"""Measure whether a model knows when it does not know: the rank correlation of signals of doubt with its errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from distilmos.data.audio import read_audio
from distilmos.errors import InputError
from distilmos.files import without_nan, write_json
from distilmos.metrics import agreement
from distilmos.model.config import ModelConfig
from distilmos.model.networks import EncoderNetwork
from distilmos.model.package import load_described
from distilmos.scoring.bootstrap import SAMPLES, bootstrap_agreement, interval
from distilmos.scoring.results import first_target
from distilmos.ssl.forward import choose_device
from distilmos.training.ratedset import RatedSet, read_rated_set

# Each is large where a model doubts. A model has those that its network allows.
ENTROPY, EXPECTED, NOVELTY = "token entropy", "expected error", "novelty"
SHARES = (0.25, 0.5, 0.75, 1.0)  # of the utterances, those with the least doubt


def measure_confidence(model: Path, data: tuple[Path, ...], out: Path, device: str = "auto") -> list[dict[str, Any]]:
    """Judge the signals of a model on rated sets.

    Args:
        model: model directory.
        data: data directories of stage 1. Recordings must fit into the encoder at once.
        out: JSON file to write.
        device: see `choose_device`.

    Returns:
        what `out` holds: for each set `path`, `utterances`, `MAE` (mean absolute error) and `signals`, the results of
        `judge`, with None for NaN. Scores and errors are on the scale 1..5.

    Raises:
        InputError: if the model has no signal, or a set is faulty or has recordings that are too long.
    """
    network, info = load_described(model)
    where = choose_device(device)
    network = network.to(where).eval()
    longest = network.encoder_config.max_seconds
    sets = [read_rated_set(path, float("inf"), longest, first_target(path, network.scales[0])) for path in data]
    if not isinstance(network, EncoderNetwork) or not signals_of(network.config):
        raise InputError(
            f"{model}: {info.label} has no signal: it needs tokens, head: statistics or regression_loss: nll"
        )
    found: list[dict[str, Any]] = []
    for each in sets:
        scores, doubts = doubts_of(network, each, where)
        errors = np.abs(scores - np.array(each.mos))
        signals = {name: judge(doubt, errors, each.systems) for name, doubt in doubts.items()}
        counts = {"path": str(each.path), "utterances": len(errors), "MAE": float(errors.mean())}
        found.append({**counts, "signals": signals})
    found = without_nan(found)
    write_json(out, found)
    return found


def signals_of(config: ModelConfig) -> list[str]:
    """Return the signals that a network on an encoder has; those of `doubts_of`."""
    has = {
        ENTROPY: config.model == "distilmos" and config.distillation == "tokens",
        EXPECTED: config.regression_loss == "nll",
        NOVELTY: config.head == "statistics",
    }
    return [name for name, present in has.items() if present]


@torch.inference_mode()
def doubts_of(
    network: EncoderNetwork, data: RatedSet, device: torch.device
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the scores of all recordings, (N,), and the value of each signal, (N,).

    - ENTROPY: of the token predictors, in nats; mean over frames and layers.
    - EXPECTED: the error that the network estimates (`regression_loss: nll`).
    - NOVELTY: see `TimeStatistics.novelty` (`head: statistics`).
    """
    scores: list[float] = []
    doubts: dict[str, list[float]] = {name: [] for name in signals_of(network.config)}
    for location in data.locations:
        audio = torch.from_numpy(read_audio(*location)).to(device)[None]
        num_samples = torch.tensor([audio.shape[1]], device=device)
        layers, num_frames = network.hidden_states(audio, num_samples)
        prediction = network.predict_from(layers, num_frames, audio, num_samples)
        scores.append(float(prediction.mos))
        if ENTROPY in doubts:
            logs = torch.stack([logits.log_softmax(-1) for logits in prediction.token_logits])
            doubts[ENTROPY].append(float(-(logs.exp() * logs).sum(-1).mean()))
        if prediction.log_errors is not None:
            doubts[EXPECTED].append(float(prediction.log_errors[0, 0].exp()))
        if network.statistics is not None:
            pooled = network.statistics.pool(layers, num_frames)
            doubts[NOVELTY].append(float(network.statistics.novelty(pooled)))
    return np.array(scores), {name: np.array(values) for name, values in doubts.items()}


def judge(doubt: np.ndarray, errors: np.ndarray, systems: list[str]) -> dict[str, Any]:
    """Compare a signal with absolute errors.

    Args:
        doubt: large where the model doubts, (N,).
        errors: absolute errors, (N,).
        systems: of each utterance; the bootstrap draws whole systems.

    Returns:
        `SRCC` with `value`, `low` and `high` (95 %; NaN where it is not defined), and `risk`: share of the utterances
        with the least doubt (at least one) -> their mean absolute error.
    """
    _, clusters = np.unique(systems, return_inverse=True)
    drawn = bootstrap_agreement(errors, doubt[None], SAMPLES, 1, ("SRCC",), clusters)["SRCC"][:, 0]
    low, high, _ = interval(drawn)
    order = np.argsort(doubt, kind="stable")
    counts = {f"{share:g}": max(1, round(share * len(order))) for share in SHARES}
    risk = {share: float(errors[order[:count]].mean()) for share, count in counts.items()}
    return {"SRCC": {"value": agreement(errors, doubt)["SRCC"], "low": low, "high": high}, "risk": risk}
