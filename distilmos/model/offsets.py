"""What distinguishes those who rated: corpora with scales of their own, severe and lenient listeners."""

from __future__ import annotations

import torch
from torch import Tensor, nn

UNKNOWN = -1  # index of whoever is not known; has no offset


class Offsets(nn.Module):
    """A learned constant for each of several names, in MOS. The mean of a group of names is 0.

    The mean over corpora belongs to the network's own bias, that over the listeners of a corpus to the corpus.

    For listeners this is the mean-listener form of listener-dependent models (W.-C. Huang et al., "LDNet", ICASSP
    2022), with nothing but a bias for each listener.
    """

    groups: Tensor

    def __init__(self, names: tuple[str, ...], groups: tuple[int, ...] | None = None) -> None:
        """Start from zero for each of `names`; `groups` are the numbers of their groups, 0 for all if it is None."""
        super().__init__()
        self.names = names
        self.values = nn.Parameter(torch.zeros(len(names)))
        self.register_buffer("groups", torch.tensor(groups or (0,) * len(names)), persistent=False)

    def centred(self) -> Tensor:
        """Return the offsets of all names, (names,)."""
        sums = self.values.new_zeros(int(self.groups.max()) + 1).index_add(0, self.groups, self.values)
        return self.values - (sums / self.groups.bincount())[self.groups]

    def forward(self, index: Tensor) -> Tensor:
        """Return the offsets of names by number, any shape of long; 0 for UNKNOWN."""
        centred = self.centred()
        return torch.where(index == UNKNOWN, torch.zeros_like(centred[0]), centred[index.clamp(min=0)])
