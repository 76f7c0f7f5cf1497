"""Our own file format for encoders, also of the embedded one: safetensors with the configuration in the header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from distilmos.errors import InputError
from distilmos.files import atomic_path
from distilmos.ssl.config import config_from_dict
from distilmos.ssl.encoder import SSLEncoder, with_weights
from distilmos.ssl.families import create_encoder

ENCODER = "encoder"  # key of the configuration in the header


def save_encoder(encoder: SSLEncoder, path: str | Path, *, half: bool = False) -> None:
    """Write weights and configuration; `half` stores float16, half the size. Loading always gives float32.

    Raises:
        InputError: if a weight is too large for float16.
    """
    tensors = {name: tensor.float().contiguous() for name, tensor in encoder.state_dict().items()}
    if half:
        tensors = halve(tensors)
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(tensors, metadata={ENCODER: json.dumps(encoder.config.to_dict())}))


def halve(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights in float16.

    Raises:
        InputError: if one is too large for it.
    """
    halved = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    for name, tensor in halved.items():
        if not tensor.isfinite().all():
            raise InputError(f"{name}: its weights are too large for float16")
    return halved


def load_encoder(path: str | Path) -> SSLEncoder:
    """Read a file that `save_encoder` wrote.

    Raises:
        InputError: if the file is missing, damaged or of another format.
    """
    try:
        with safe_open(path, framework="pt") as stored:
            config = config_from_dict(json.loads((stored.metadata() or {})[ENCODER]))
            weights = {name: stored.get_tensor(name).float() for name in stored.keys()}  # noqa: SIM118 (not a dict)
        encoder = with_weights(partial(create_encoder, config), weights)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OSError, MemoryError) as error:
        raise InputError(f"{path}: not an encoder that distilmos saved: {error}") from None
    return encoder.eval()
