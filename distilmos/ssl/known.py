"""SSL encoders known by name: where they are published, and where they are cached."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from distilmos.data.download import download
from distilmos.errors import InputError

CACHE = "DISTILMOS_CACHE"  # environment variable: directory of downloaded encoders
MFCC, BEST_RQ = "mfcc", "best_rq"  # given as the name of an encoder: features in its place, see `features`


@dataclass(frozen=True)
class Source:
    """A published checkpoint. No checksums are published for these.

    Attributes:
        file: name of the file.
        url: URL of its directory.
    """

    file: str
    url: str


KNOWN = {
    "hubert_base": Source("hubert_base_ls960.pt", "https://dl.fbaipublicfiles.com/hubert"),
    "hubert_large": Source("hubert_large_ll60k.pt", "https://dl.fbaipublicfiles.com/hubert"),
    "wav2vec2_base": Source("wav2vec_small.pt", "https://dl.fbaipublicfiles.com/fairseq/wav2vec"),
    "wav2vec2_large": Source("wav2vec_vox_new.pt", "https://dl.fbaipublicfiles.com/fairseq/wav2vec"),
    "xlsr_300m": Source("xlsr2_300m.pt", "https://dl.fbaipublicfiles.com/fairseq/wav2vec"),
}


def cached(name: str) -> Path:
    """Return the path in the cache of the encoder `name` of KNOWN; see CACHE (default: ~/.cache/distilmos)."""
    cache = os.environ.get(CACHE)
    return (Path(cache) if cache else Path.home() / ".cache" / "distilmos") / KNOWN[name].file


def find_known(name: str) -> Path:
    """Return the file of an encoder of KNOWN.

    Raises:
        InputError: if it has not been downloaded.
    """
    path = cached(name)
    if not path.exists():
        raise InputError(f"{name}: {path} does not exist; run `distilmos fetch-ssl {name}` or stage 0")
    return path


def fetch_known(name: str, url: str | None = None) -> Path:
    """Download an encoder of KNOWN unless it is in the cache.

    Args:
        name: key of KNOWN.
        url: directory of a mirror; None for the publisher's.

    Returns:
        its path.

    Raises:
        FailedError: if it cannot be downloaded.
    """
    source = KNOWN[name]
    path = cached(name)
    download(f"{url or source.url}/{source.file}", path)
    return path
