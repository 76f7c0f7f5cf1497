"""What distinguishes those who rated: corpora with scales of their own, severe and lenient listeners."""

from __future__ import annotations

import torch
from torch import Tensor, nn

UNKNOWN = -1  # index of whoever is not known; has no offset


class Offsets(nn.Module):
    """A learned constant for each of several names, in MOS. Their mean is 0: it belongs to the network's own bias.

    For listeners this is the mean-listener form of listener-dependent models (W.-C. Huang et al., "LDNet", ICASSP
    2022), with nothing but a bias for each listener.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        """Start from zero for each of `names`."""
        super().__init__()
        self.names = names
        self.values = nn.Parameter(torch.zeros(len(names)))

    def forward(self, index: Tensor) -> Tensor:
        """Return the offsets of names by number, any shape of long; 0 for UNKNOWN."""
        centred = self.values - self.values.mean()
        return torch.where(index == UNKNOWN, torch.zeros_like(centred[0]), centred[index.clamp(min=0)])
