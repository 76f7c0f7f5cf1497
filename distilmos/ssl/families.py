"""The network of each family of encoders."""

from __future__ import annotations

from distilmos.ssl.config import EncoderConfig, WaveformConfig, WhisperConfig
from distilmos.ssl.encoder import SSLEncoder
from distilmos.ssl.waveform import WaveformEncoder
from distilmos.ssl.whisper import WhisperEncoder


def create_encoder(config: EncoderConfig) -> SSLEncoder:
    """Create an encoder with random weights.

    Raises:
        TypeError: for a configuration of no family.
    """
    if isinstance(config, WaveformConfig):
        return WaveformEncoder(config)
    if isinstance(config, WhisperConfig):
        return WhisperEncoder(config)
    raise TypeError(f"{type(config).__name__} is no configuration of an encoder")
