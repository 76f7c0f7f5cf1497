"""`info.json` in directories of features, k-means models and tokens: the encoder that they belong to.

Tokens have a meaning only together with the encoder and the k-means that they come from. Each stage writes the origin
of its output. The next stage refuses another origin, so that nobody mixes a changed SSL model with old dumps.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from distilmos.data.tables import read_json
from distilmos.errors import InputError
from distilmos.files import write_json

INFO = "info.json"


@dataclass(frozen=True)
class TokenInfo:
    """Origin of features, k-means models or tokens.

    Attributes:
        ssl: name or path of the encoder, as the user gave it.
        fingerprint: hash of the encoder; see `SSLEncoder.fingerprint`.
        layers: number of layers of the encoder.
        clusters: K; 0 for features.
        kmeans: hash of the centroids of all layers; only for tokens, because jobs learn the layers in parallel.
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
        info: TokenInfo = read_json(Path(directory) / INFO, cls)
        return info

    def require_encoder(self, fingerprint: str, directory: str | Path) -> None:
        """Check that an encoder is the one of this origin.

        Raises:
            InputError: if the fingerprints differ.
        """
        if fingerprint != self.fingerprint:
            raise InputError(
                f"{directory}: was made with another encoder ({self.ssl}, {self.fingerprint}, not {fingerprint})"
            )
