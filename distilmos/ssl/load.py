"""One entry for every SSL encoder: by the name of an embedded one, or by path."""

from __future__ import annotations

from pathlib import Path

from distilmos.errors import InputError
from distilmos.ssl.encoder import SSLEncoder
from distilmos.ssl.fairseq import load_fairseq
from distilmos.ssl.known import KNOWN, find_known
from distilmos.ssl.store import load_encoder

ASSETS = Path(__file__).with_name("assets")


def embedded_names() -> list[str]:
    """Return the names of the encoders that ship with the package."""
    return sorted(path.stem for path in ASSETS.glob("*.safetensors"))


def load_ssl(name_or_path: str | Path) -> SSLEncoder:
    """Load an SSL encoder in evaluation mode.

    Args:
        name_or_path: the name of an embedded encoder (`hubert_tiny`) or of a fetched one (see `known`), a fairseq
            HuBERT checkpoint (`.pt`), or a `.safetensors` file of `save_encoder`.

    Raises:
        InputError: if there is no such encoder, or the file cannot be used; says what was found.
    """
    path = find_checkpoint(name_or_path)
    return load_encoder(path) if path.suffix == ".safetensors" else load_fairseq(path)


def find_checkpoint(name_or_path: str | Path) -> Path:
    """Return the file that `load_ssl` would load.

    Raises:
        InputError: if there is none.
    """
    if str(name_or_path) in embedded_names():
        return ASSETS / f"{name_or_path}.safetensors"
    if str(name_or_path) in KNOWN:
        return find_known(str(name_or_path))
    path = Path(name_or_path)
    if not path.exists():
        known = ", ".join(KNOWN)
        raise InputError(
            f"{name_or_path}: neither a file, nor an embedded encoder ({', '.join(embedded_names())}), nor one that is "
            f"fetched ({known})"
        )
    return path
