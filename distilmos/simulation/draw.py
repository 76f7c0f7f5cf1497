"""Random numbers that depend on names alone, not on what else there is or in which order it is made."""

from __future__ import annotations

import bisect
import hashlib
import zlib
from collections.abc import Iterable, Iterator

import numpy as np


def generator_of(name: str, seed: int) -> np.random.Generator:
    """Return a generator whose numbers depend on `name` and `seed` alone."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


class Ring:
    """Names in a circle, in the order of their hashes: who comes next hardly changes when names are added."""

    def __init__(self, names: Iterable[str]) -> None:
        """Place the names."""
        self._places = sorted((_hash(name), name) for name in names)

    def after(self, name: str, seed: int) -> Iterator[str]:
        """Yield all names but `name`, from a place on that it and `seed` decide."""
        start = bisect.bisect(self._places, (_hash(f"{seed} {name}"), ""))
        for _, other in self._places[start:] + self._places[:start]:
            if other != name:
                yield other


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
