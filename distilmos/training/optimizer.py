"""AdamW with separate learning rates for encoder, heads and offsets, and the schedule of these rates."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import AdamW

from distilmos.model.networks import EncoderNetwork, MOSNetwork
from distilmos.training.config import TrainConfig


def freeze(model: MOSNetwork, config: TrainConfig) -> None:
    """Freeze the parameters that the settings exclude from training; they get no gradients."""
    if isinstance(model, EncoderNetwork):
        model.encoder.requires_grad_(config.encoder_lr > 0)
        if config.freeze_conv:
            model.encoder.conv.requires_grad_(False)


def make_optimizer(model: MOSNetwork, config: TrainConfig) -> AdamW:
    """Return AdamW over all trainable parameters; each group has its "peak" rate and its "part".

    Weight decay is not applied to vectors: pulling biases, the gains of norms or the logits of the layer mix to zero
    makes no sense.
    """
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    rates = _peaks(config)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            first = name.partition(".")[0]
            part = first if first == "encoder" else "offset" if first.endswith("_offsets") else "head"
            groups.setdefault((part, parameter.ndim > 1), []).append(parameter)
    return AdamW(
        [
            {
                "params": parameters,
                "part": part,
                "peak": rates[part],
                "lr": rates[part],
                "weight_decay": config.weight_decay if decays else 0.0,
            }
            for (part, decays), parameters in groups.items()
        ]
    )


def rate_factor(step: int, config: TrainConfig) -> float:
    """Return the learning rate of step `step` (counted from 1) as a fraction of its peak.

    It rises linearly over `warmup_steps`; then the configured decay reaches 0 one step after `max_steps`.
    """
    if step <= config.warmup_steps:
        return step / config.warmup_steps
    progress = (step - config.warmup_steps) / (config.max_steps + 1 - config.warmup_steps)
    if config.decay == "constant":
        return 1.0
    return 1 - progress if config.decay == "linear" else (1 + math.cos(math.pi * progress)) / 2


def set_rates(optimizer: AdamW, step: int, config: TrainConfig) -> dict[str, float]:
    """Set the rates of step `step` (counted from 1); return them by part."""
    factor = rate_factor(step, config)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    return {part: peak * factor for part, peak in _peaks(config).items()}


def _peaks(config: TrainConfig) -> dict[str, float]:
    return {"encoder": config.encoder_lr, "head": config.head_lr, "offset": config.offset_lr}
