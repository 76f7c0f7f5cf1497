"""Draw random numbers that depend on names only, so that adding or reordering other items does not change them."""

from __future__ import annotations

import bisect
import hashlib
import zlib
from collections.abc import Iterable, Iterator

import numpy as np


def generator_of(name: str, seed: int) -> np.random.Generator:
    """Return a generator whose numbers depend on `name` and `seed` only."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


class Ring:
    """Names on a circle in the order of their hashes (consistent hashing): added names change few successors."""

    def __init__(self, names: Iterable[str]) -> None:
        """Place the names."""
        self._places = sorted((_hash(name), name) for name in names)

    def after(self, name: str, seed: int) -> Iterator[str]:
        """Yield all other names in order, starting at a place that depends on `name` and `seed`."""
        start = bisect.bisect(self._places, (_hash(f"{seed} {name}"), ""))
        for _, other in self._places[start:] + self._places[:start]:
            if other != name:
                yield other


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
