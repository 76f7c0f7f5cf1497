"""Load an SSL encoder by name, path or hub id. The format of a file is detected from its content."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError, safe_open

from distilmos.data.hub import HUB_ID, Files, fetch_hub
from distilmos.errors import InputError
from distilmos.ssl.config import WhisperConfig
from distilmos.ssl.encoder import SSLEncoder
from distilmos.ssl.fairseq import as_fairseq, from_fairseq, from_microsoft, is_wavlm
from distilmos.ssl.huggingface import CONFIG, EXTRACTOR, PROCESSOR, WEIGHTS, load_huggingface
from distilmos.ssl.known import KNOWN, find_known
from distilmos.ssl.pickles import MAGIC, read_pickle
from distilmos.ssl.store import ENCODER, load_encoder
from distilmos.ssl.whisper_formats import from_openai, is_openai

ASSETS = Path(__file__).with_name("assets")

SUPPORTED = (
    "supported are fairseq's HuBERT and wav2vec 2.0 (also fine-tuned for recognition, or converted by s3prl), "
    "Microsoft's WavLM, OpenAI's Whisper, transformers directories with config.json and weights, and encoders that "
    "distilmos saved"
)
PADDED = ":padded"  # after the name of a Whisper encoder: pad recordings to 30 s, as OpenAI does


def embedded_names() -> list[str]:
    """Return the names of the embedded encoders, which ship with the package."""
    return sorted(path.stem for path in ASSETS.glob("*.safetensors"))


def load_ssl(name_or_path: str | Path) -> SSLEncoder:
    """Load an SSL encoder in evaluation mode.

    Args:
        name_or_path: the name of an embedded encoder (`hubert_tiny`) or of a downloaded one (see `known`); a checkpoint
            of fairseq or s3prl (HuBERT, wav2vec 2.0), Microsoft (WavLM) or OpenAI (Whisper); a transformers directory,
            one of its weight files, or a hub id (`microsoft/wavlm-base-plus`); or a file that `save_encoder` wrote.
            PADDED may follow any Whisper.

    Raises:
        InputError: if the encoder does not exist or its file cannot be used.
        FailedError: if it cannot be fetched from the hub.
    """
    name = str(name_or_path)
    if name.endswith(PADDED):
        return _padded(load_ssl(name.removesuffix(PADDED)), name)
    path = find_checkpoint(name)
    if path.is_dir():
        return load_huggingface(path)
    with path.open("rb") as stream:
        head = stream.read(9)
    if head.startswith(MAGIC):
        checkpoint = as_fairseq(read_pickle(path))
        if is_openai(checkpoint):
            return from_openai(checkpoint, str(path))
        if isinstance(checkpoint, dict) and isinstance(checkpoint.get("model"), dict):
            return (from_microsoft if is_wavlm(checkpoint) else from_fairseq)(checkpoint, str(path))
    elif head.endswith(b"{"):  # safetensors: the JSON header after eight bytes of its length
        if _is_ours(path):
            return load_encoder(path)
    else:
        raise InputError(f"{path}: not a checkpoint; {SUPPORTED}")
    if (path.parent / CONFIG).exists():
        return load_huggingface(path.parent)
    raise InputError(f"{path}: has no 'model', and its directory has no {CONFIG}; {SUPPORTED}")


def _padded(encoder: SSLEncoder, name: str) -> SSLEncoder:
    if not isinstance(encoder.config, WhisperConfig):
        raise InputError(f"{name}: only Whisper encoders can be {PADDED[1:]}")
    encoder.config = replace(encoder.config, padded=True)  # no part of the network depends on it
    return encoder


def _is_ours(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt") as stored:
            return ENCODER in (stored.metadata() or {})
    except SafetensorError as error:
        raise InputError(f"{path}: damaged: {error}") from None


def find_checkpoint(name_or_path: str | Path) -> Path:
    """Return the file or directory of an encoder without PADDED; download a hub id unless it is in the hub's cache.

    Raises:
        InputError: if the encoder does not exist.
        FailedError: if it cannot be fetched.
    """
    name = str(name_or_path)
    if name in embedded_names():
        return ASSETS / f"{name}.safetensors"
    if name in KNOWN:
        return find_known(name)
    path = Path(name)
    if path.exists():
        return path
    if HUB_ID.fullmatch(name):
        # Only the first kind of weights that exists; other files of a repository are not needed.
        names = [(weights, weights.replace(".", "-*."), f"{weights}.index.json") for weights in WEIGHTS]
        return fetch_hub(name, Files([[CONFIG], [EXTRACTOR, PROCESSOR]], names))
    raise InputError(
        f"{name}: not a file, an embedded encoder ({', '.join(embedded_names())}), one known by name "
        f"({', '.join(KNOWN)}), or a hub id (OWNER/NAME)"
        + (f"; the only suffix is {PADDED}, for Whisper with the backend distilmos" if ":" in name else "")
    )
