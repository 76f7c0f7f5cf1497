"""`info.json` beside features, k-means models and tokens: which encoder they belong to.

Tokens are meaningful only together with the very encoder and k-means that made them. Each step writes where its output
comes from and the next one refuses what does not fit, so that a changed SSL model cannot meet old dumps unnoticed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from distilmos.errors import InputError
from distilmos.files import write_json

INFO = "info.json"


@dataclass(frozen=True)
class TokenInfo:
    """Origin of features, k-means models or tokens.

    Attributes:
        ssl: name or path of the encoder, as given.
        fingerprint: hash of its weights.
        layers: its number of layers.
        clusters: K; 0 for features.
        kmeans: hash of the centroids of all layers, of tokens alone: layers of a k-means are learned in parallel.
    """

    ssl: str
    fingerprint: str
    layers: int
    clusters: int = 0
    kmeans: str = ""

    def write(self, directory: str | Path) -> None:
        """Write `directory/info.json`, atomically."""
        write_json(Path(directory) / INFO, asdict(self))

    @classmethod
    def read(cls, directory: str | Path) -> TokenInfo:
        """Read `directory/info.json`.

        Raises:
            InputError: if it is missing or damaged.
        """
        path = Path(directory) / INFO
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise InputError(f"{path}: no such file") from None
        except (ValueError, TypeError) as error:
            raise InputError(f"{path}: damaged: {error}") from None

    def require_encoder(self, fingerprint: str, directory: str | Path) -> None:
        """Refuse an encoder that is not the one this was made with.

        Raises:
            InputError: if the fingerprints differ.
        """
        if fingerprint != self.fingerprint:
            raise InputError(
                f"{directory} was made with another encoder ({self.ssl}, {self.fingerprint}, not {fingerprint})"
            )
