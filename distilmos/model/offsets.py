"""Learned offsets: corpora with different scales, severe and lenient listeners."""

from __future__ import annotations

import torch
from torch import Tensor, nn

UNKNOWN = -1  # index of an unknown corpus or listener; its offset is 0


class Offsets(nn.Module):
    """A learned constant in MOS for each of several names; the mean over each group of names is 0.

    The bias of the network takes the mean over corpora; the offset of a corpus takes the mean over its listeners.

    For listeners this is the mean-listener form of listener-dependent models (W.-C. Huang et al., "LDNet", ICASSP
    2022), with only a bias for each listener.
    """

    groups: Tensor

    def __init__(self, names: tuple[str, ...], groups: tuple[int, ...] | None = None) -> None:
        """Start each of `names` from 0; `groups` are the numbers of their groups, None for a single group."""
        super().__init__()
        self.names = names
        self.values = nn.Parameter(torch.zeros(len(names)))
        self.register_buffer("groups", torch.tensor(groups or (0,) * len(names)), persistent=False)

    def centred(self) -> Tensor:
        """Return the offsets of all names, (names,)."""
        sums = self.values.new_zeros(int(self.groups.max()) + 1).index_add(0, self.groups, self.values)
        return self.values - (sums / self.groups.bincount())[self.groups]

    def forward(self, index: Tensor) -> Tensor:
        """Return the offsets of names by number, a long tensor of any shape; 0 for UNKNOWN."""
        centred = self.centred()
        return torch.where(index == UNKNOWN, torch.zeros_like(centred[0]), centred[index.clamp(min=0)])
