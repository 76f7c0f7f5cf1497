"""Interpolates between the encoder that a run started from and the one that it ended with."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from distilmos.errors import InputError
from distilmos.model.networks import EncoderNetwork
from distilmos.model.package import load_model_dir
from distilmos.ssl.encoder import SSLEncoder, weights_hash
from distilmos.ssl.load import load_ssl
from distilmos.training.config import TrainConfig


def starting_encoder(config: TrainConfig, start: Mapping[str, object]) -> SSLEncoder:
    """Load the encoder with the weights that training started from: that of `init_model` if it has one.

    Args:
        config: settings of the run.
        start: the "start" event of its log, which holds the hashes of its inputs.

    Raises:
        InputError: if the encoder is missing, or is not the one that the run started from.
        FailedError: if it cannot be fetched.
    """
    if config.init_model:
        initial = load_model_dir(config.init_model)
        _require(weights_hash(initial), start.get("initial_model"), f"init_model {config.init_model}")
        if isinstance(initial, EncoderNetwork):
            return initial.encoder
    encoder = load_ssl(config.ssl_model)
    _require(encoder.fingerprint(), start.get("encoder"), f"ssl_model {config.ssl_model}")
    return encoder


def _require(found: str, wanted: object, what: str) -> None:
    if found != wanted:
        raise InputError(f"{what}: is not what the run started from: its hash is {found}, that in the log {wanted}")


def interpolate_weights(before: Mapping[str, Tensor], after: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """Return (1 - alpha) * before + alpha * after, for each weight.

    M. Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022, section 3. The sum is in float64, so that a
    weight that is equal in both keeps its bits.

    Args:
        before: weights before fine-tuning.
        after: weights after it, with the same names and shapes.
        alpha: from 0 to 1; these two return `before` and `after` bit for bit.
    """
    if alpha in (0, 1):
        return dict(after if alpha else before)  # the sum would lose the sign of -0
    return {
        name: ((1 - alpha) * before[name].double() + alpha * tensor.double()).to(tensor.dtype)
        for name, tensor in after.items()
    }
