"""AdamW with separate learning rates for encoder, heads and offsets, their schedule, and what keeps the encoder close.

Four ways of fine-tuning that forget less are options: layer-wise decay of the rate, heads first, a penalty on the
distance from the start (L2-SP), and low-rank updates (see distilmos/model/lora.py).
"""

from __future__ import annotations

import math
import re

import torch
from torch import nn
from torch.optim import AdamW

from distilmos.model.lora import add_lora
from distilmos.model.networks import EncoderNetwork, MOSNetwork
from distilmos.training.config import TrainConfig


def freeze(model: MOSNetwork, config: TrainConfig) -> None:
    """Freeze the parameters that the settings exclude from training; they get no gradients.

    With `lora_rank`, the encoder gets low-rank updates, and the rest of it is frozen.

    Raises:
        InputError: as `add_lora`.
    """
    if isinstance(model, EncoderNetwork):
        if config.encoder_lr == 0:
            model.encoder.requires_grad_(False)
        elif config.lora_rank:
            add_lora(model.encoder, config.lora_rank)
        elif config.freeze_conv:
            model.encoder.conv.requires_grad_(False)


def make_optimizer(model: MOSNetwork, config: TrainConfig) -> AdamW:
    """Return AdamW over all trainable parameters; each group has its "peak" rate and its "part".

    With `layer_decay`, the rate of the encoder falls from each layer to the one below it, by the same factor; the front
    end counts as the layer below the first. After J. Howard, S. Ruder, "Universal language model fine-tuning for text
    classification", ACL 2018, section 3.2.

    Weight decay is not applied to vectors: pulling biases, the gains of norms or the logits of the layer mix to zero
    makes no sense.
    """
    groups: dict[tuple[str, float, bool], list[nn.Parameter]] = {}
    rates = _peaks(config)
    depth = model.encoder_config.num_layers
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            first = name.partition(".")[0]
            part = first if first == "encoder" else "offset" if first.endswith("_offsets") else "head"
            peak = rates[part]
            if part == "encoder":
                peak *= config.layer_decay ** (depth - _layer(name))
            groups.setdefault((part, peak, parameter.ndim > 1), []).append(parameter)
    return AdamW(
        [
            {
                "params": parameters,
                "part": part,
                "peak": peak,
                "lr": peak,
                # The penalty on the distance from the start takes the place of that on the distance from 0.
                "weight_decay": 0.0 if not decays or (part == "encoder" and config.l2_sp) else config.weight_decay,
            }
            for (part, peak, decays), parameters in groups.items()
        ]
    )


def _layer(name: str) -> int:
    """Return the layer, counted from 1, of a parameter of the encoder; 0 for its front end."""
    found = re.match(r"encoder\.layers\.(\d+)\.", name)
    return int(found[1]) + 1 if found else 0


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
    """Set the rates of step `step` (counted from 1); return them by part.

    During the first `head_steps` steps the encoder is not trained (A. Kumar et al., "Fine-tuning can distort pretrained
    features and underperform out-of-distribution", ICLR 2022); then its rate rises from 0 as at the start of a run.
    """
    factors = dict.fromkeys(("encoder", "head", "offset"), rate_factor(step, config))
    if config.head_steps:
        held = step <= config.head_steps
        later = config.model_copy(update={"max_steps": config.max_steps - config.head_steps})
        factors["encoder"] = 0.0 if held else rate_factor(step - config.head_steps, later)
        for group in optimizer.param_groups:
            if group["part"] == "encoder":
                for parameter in group["params"]:
                    parameter.requires_grad_(not held)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factors[group["part"]]
    return {part: peak * factors[part] for part, peak in _peaks(config).items()}


class StartPenalty:
    """L2-SP: the penalty weight / 2 * |w - w0|^2 on the trained weights of the encoder, w0 at the start of the run.

    X. Li, Y. Grandvalet, F. Davoine, "Explicit inductive bias for transfer learning with convolutional networks", ICML
    2018. It replaces weight decay there. Its gradient is added to that of a step, once for all batches and processes,
    before the gradient is clipped and AdamW scales it; the logged loss is without it.
    """

    def __init__(self, model: MOSNetwork, weight: float) -> None:
        """Remember the weights of the start."""
        self._weight = weight
        trained = model.encoder.parameters() if weight and isinstance(model, EncoderNetwork) else ()
        self._pairs = [(parameter, parameter.detach().clone()) for parameter in trained if parameter.requires_grad]

    @torch.no_grad()
    def add_gradients(self) -> None:
        """Add the gradient of the penalty to that of each weight that has one."""
        for parameter, start in self._pairs:
            if parameter.grad is not None:
                parameter.grad.add_(parameter - start, alpha=self._weight)


def _peaks(config: TrainConfig) -> dict[str, float]:
    return {"encoder": config.encoder_lr, "head": config.head_lr, "offset": config.offset_lr}
