"""SSL encoders that are known by name and fetched once; where they are published, and where they are kept."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from distilmos.data.download import download
from distilmos.errors import InputError

CACHE = "DISTILMOS_CACHE"


@dataclass(frozen=True)
class Source:
    """A published checkpoint; none of these has a published checksum.

    Attributes:
        file: its name.
        url: of the directory.
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
    """Return where the encoder `name` of KNOWN is kept: in $DISTILMOS_CACHE, else in ~/.cache/distilmos."""
    cache = os.environ.get(CACHE)
    return (Path(cache) if cache else Path.home() / ".cache" / "distilmos") / KNOWN[name].file


def find_known(name: str) -> Path:
    """Return the file of an encoder of KNOWN.

    Raises:
        InputError: if it has not been fetched.
    """
    path = cached(name)
    if not path.exists():
        raise InputError(f"{name}: {path} is not there; fetch it with `distilmos fetch-ssl {name}`, as stage 0 does")
    return path


def fetch_known(name: str, url: str | None = None) -> Path:
    """Fetch an encoder of KNOWN unless it is there.

    Args:
        name: key of KNOWN.
        url: directory of a mirror.

    Returns:
        where it is.

    Raises:
        FailedError: if it cannot be fetched.
    """
    source = KNOWN[name]
    path = cached(name)
    download(f"{url or source.url}/{source.file}", path)
    return path
