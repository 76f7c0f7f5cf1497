"""Low-rank adaptation (LoRA): E. J. Hu et al., "LoRA: low-rank adaptation of large language models", ICLR 2022.

The updates belong to training alone: the weights of a run that are kept have them added, under the usual names.
"""

from __future__ import annotations

import copy
import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distilmos.errors import InputError
from distilmos.model.networks import MOSNetwork
from distilmos.ssl.encoder import SSLEncoder, TransformerLayer

SCALE = 2.0  # alpha / rank in the paper; alpha 16 at rank 8 is the usual choice
M = TypeVar("M", bound=MOSNetwork)


class LowRankLinear(nn.Linear):
    """A frozen linear map with a trainable update of its weight, which starts from zero."""

    def __init__(self, linear: nn.Linear, rank: int, blocks: int) -> None:
        """Take over a linear map.

        Args:
            linear: the map, with a bias.
            rank: of the update of each block.
            blocks: number of linear maps that are stacked in it, which have updates of their own.
        """
        super().__init__(linear.in_features, linear.out_features, device=linear.weight.device)
        self.load_state_dict(linear.state_dict())
        self.requires_grad_(False)
        self.down = nn.Parameter(self.weight.new_empty(blocks, rank, linear.in_features))
        self.up = nn.Parameter(self.weight.new_zeros(blocks, linear.out_features // blocks, rank))
        for block in self.down:
            nn.init.kaiming_uniform_(block, a=math.sqrt(5))

    def updated(self) -> Tensor:
        """Return the weight with the update."""
        return self.weight + SCALE * (self.up @ self.down).flatten(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the map with the update."""
        return F.linear(x, self.updated(), self.bias)


def add_lora(encoder: SSLEncoder, rank: int) -> None:
    """Freeze an encoder, and add trainable updates to the linear maps of attention and feed-forward parts.

    Raises:
        InputError: if the rank is not below the width of the encoder.
    """
    if rank >= encoder.config.embed_dim:
        raise InputError(
            f"settings: lora_rank {rank} is not below the width of the encoder, {encoder.config.embed_dim}"
        )
    encoder.requires_grad_(False)
    for layer in encoder.layers:
        assert isinstance(layer, TransformerLayer)
        layer.qkv = LowRankLinear(layer.qkv, rank, 3)
        for name in ("out", "ffn_in", "ffn_out"):
            setattr(layer, name, LowRankLinear(getattr(layer, name), rank, 1))


@torch.no_grad()
def merge_lora(model: M) -> M:
    """Return a copy of a network with plain linear maps, to whose weights the updates are added.

    A network without updates is returned itself.
    """
    if not any(isinstance(module, LowRankLinear) for module in model.modules()):
        return model
    merged = copy.deepcopy(model)
    for parent in list(merged.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LowRankLinear):
                plain = nn.Linear(child.in_features, child.out_features, device=child.weight.device)
                plain.load_state_dict({"weight": child.updated(), "bias": child.bias})
                setattr(parent, name, plain)
    return merged
