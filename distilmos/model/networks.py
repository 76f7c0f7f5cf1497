"""DistilMOS and the plain fine-tuning baseline."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distilmos.model.config import ModelConfig
from distilmos.model.mixing import LayerMix
from distilmos.model.offsets import Offsets
from distilmos.model.processor import Decoder, FeatureProcessor, TokenPredictor
from distilmos.model.spectral import SpectralBranch
from distilmos.ssl.config import EncoderConfig
from distilmos.ssl.encoder import SSLEncoder, valid_mask


@dataclass(frozen=True)
class Prediction:
    """What a network says of a batch.

    Attributes:
        mos: utterance scores, float (B,).
        frame_mos: frame scores, float (B, T); padded frames are unspecified.
        num_frames: valid frames, long (B,).
        token_logits: for each target layer the logits of its clusters, float (B, T, K); empty for a baseline, and where
            they are not asked for.
    """

    mos: Tensor
    frame_mos: Tensor
    num_frames: Tensor
    token_logits: list[Tensor]


def _mean_over_frames(frame_mos: Tensor, num_frames: Tensor) -> Tensor:
    """Average (B, T) over the valid frames to (B,)."""
    mask = valid_mask(num_frames, frame_mos.shape[1])
    return (frame_mos * mask).sum(1) / num_frames


class MOSNetwork(nn.Module):
    """What all networks have in common: a score for each frame, of which the mean is that of a recording.

    Attributes:
        encoder_config: of the encoder, whose frames are those of the network.
        spectral: adds what spectra tell; None without `spectral_dim`.
        corpus_offsets: how the scales of the corpora that it was trained on differ; None for a single corpus. Scores
            are on the mean scale unless a caller adds an offset.
        listener_offsets: how listeners differ; there in training alone, for scores are those of the mean listener.
    """

    def __init__(self, config: ModelConfig, encoder: EncoderConfig, corpora: tuple[str, ...]) -> None:
        """Make what is common to all networks for frames of `encoder`."""
        super().__init__()
        self.corpus_offsets = Offsets(corpora) if corpora else None
        self.listener_offsets: Offsets | None = None
        self.config = config
        self.encoder_config = encoder
        self.target_layers = config.layers(encoder.num_layers)
        self.spectral = SpectralBranch(config.spectral_dim, self.hop, encoder) if config.spectral_dim else None

    @property
    def hop(self) -> int:
        """Samples from one frame score to the next."""
        return self.encoder_config.hop

    def init_output(self, mean: float) -> None:
        """Start from the mean training score, so that a short fine-tuning does not spend its steps on the offset."""
        raise NotImplementedError

    def layer_weights(self) -> Tensor | None:
        """Return how much each encoder layer counts, (L,), or None where only the last is used."""
        return None

    def forward(self, audio: Tensor, num_samples: Tensor, *, with_tokens: bool = True) -> Prediction:
        """Score recordings.

        Args:
            audio: 16 kHz waveforms, zero padded (B, N).
            num_samples: valid samples of each (B,).
            with_tokens: whether token logits are wanted; scores do not need them.
        """
        raise NotImplementedError

    def without_recordings(self) -> Tensor:
        """Return 0, differentiable, having done what `forward` and its backward pass do together with other processes.

        For a process of a distributed training that has no recording of a batch.
        """
        raise NotImplementedError


class EncoderNetwork(MOSNetwork):
    """A network on hidden states of an SSL encoder, perhaps with spectra beside it.

    Attributes:
        encoder: a part of the network.
        linear: makes frame scores of what subclasses make of the layers.
    """

    def __init__(self, config: ModelConfig, encoder: SSLEncoder, corpora: tuple[str, ...], width: int) -> None:
        """Take over `encoder`; `width` is that of the frames that are scored."""
        super().__init__(config, encoder.config, corpora)
        self.encoder = encoder
        self.encoder.set_dropout(config.encoder_dropout)
        self.linear = nn.Linear(width, 1)

    def init_output(self, mean: float) -> None:
        """Start from the mean training score."""
        with torch.no_grad():
            self.linear.bias.fill_(mean)

    def forward(self, audio: Tensor, num_samples: Tensor, *, with_tokens: bool = True) -> Prediction:
        """Score recordings."""
        layers, num_frames = self.encoder(audio, num_samples)
        frame_mos, num_frames, token_logits = self.score_layers(layers, num_frames, with_tokens=with_tokens)
        if self.spectral is not None:
            frame_mos = frame_mos + self.spectral(audio, num_samples, num_frames)[:, : frame_mos.shape[1]]
        return Prediction(_mean_over_frames(frame_mos, num_frames), frame_mos, num_frames, token_logits)

    def score_layers(
        self, layers: list[Tensor], num_frames: Tensor, *, with_tokens: bool = True
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Score the hidden states of the encoder.

        Args:
            layers: L tensors (B, T, D).
            num_frames: how many of their frames are valid (B,).
            with_tokens: whether token logits are wanted.

        Returns:
            frame scores (B, T'), how many of them are valid (B,), and token logits as in `Prediction`.
        """
        raise NotImplementedError

    def without_recordings(self) -> Tensor:
        """Return 0, differentiable, having taken part in the batch norms of the branch."""
        return self.linear.bias.sum() * 0 if self.spectral is None else self.spectral.without_recordings()


class DistilMOS(EncoderNetwork):
    """Layer mix, feature processor, one token predictor for each target layer, decoder, frame scores.

    After J. Yang, W. Nakata, Y. Saito, H. Saruwatari, arXiv 2601.13700, and the authors' released model.

    Attributes:
        clusters: number K of token ids.
        kmeans: hash of the k-means models that define them; empty where that is not known.
    """

    def __init__(self, config: ModelConfig, encoder: SSLEncoder, corpora: tuple[str, ...], clusters: int) -> None:
        """Build the heads for token ids 0..clusters-1 on `encoder`."""
        super().__init__(config, encoder, corpora, config.hidden_dim)
        source = encoder.config.embed_dim
        self.clusters = clusters
        self.kmeans = ""
        self.weighted_sum = LayerMix(encoder.config.num_layers, source)
        self.feature_processor = FeatureProcessor(source, config.hidden_dim, config.kernels, config.strides)
        self.predictors = nn.ModuleList(TokenPredictor(config.hidden_dim, clusters) for _ in self.target_layers)
        self.decoder = Decoder(config.hidden_dim, config.dropout)

    @property
    def hop(self) -> int:
        """Samples from one frame score to the next."""
        return super().hop * math.prod(self.config.strides)

    def layer_weights(self) -> Tensor:
        """Return the weights of the layer mix, (L,), sum 1."""
        return self.weighted_sum.weights()

    def score_layers(
        self, layers: list[Tensor], num_frames: Tensor, *, with_tokens: bool = True
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Score the hidden states of all layers."""
        mixed = self.weighted_sum(layers, valid_mask(num_frames, layers[0].shape[1]))
        shared, num_frames = self.feature_processor(mixed, num_frames)
        logits = [predictor(shared) for predictor in self.predictors] if with_tokens else []
        return self.linear(self.decoder(shared, num_frames)).squeeze(2), num_frames, logits

    def without_recordings(self) -> Tensor:
        """Return 0, differentiable, having taken part in the batch norm."""
        nothing = self.linear.weight.new_zeros(0, 1, self.encoder_config.embed_dim)
        lengths = torch.zeros(0, dtype=torch.long, device=nothing.device)
        shared: Tensor = self.feature_processor(nothing, lengths)[0]
        return shared.sum() + super().without_recordings()


class SSLMOS(EncoderNetwork):
    """Plain fine-tuning: a linear layer on the last hidden state, averaged over valid frames.

    After E. Cooper et al., "Generalization ability of MOS prediction networks", ICASSP 2022, but with padding left out
    of the mean.
    """

    def __init__(self, config: ModelConfig, encoder: SSLEncoder, corpora: tuple[str, ...]) -> None:
        """Put the linear layer on `encoder`."""
        super().__init__(config, encoder, corpora, encoder.config.embed_dim)

    def score_layers(
        self, layers: list[Tensor], num_frames: Tensor, *, with_tokens: bool = True
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Score the hidden states of the last layer."""
        return self.linear(layers[-1]).squeeze(2), num_frames, []


class SpectralMOS(MOSNetwork):
    """Spectra alone: a baseline, and what the spectral branch of another network can start from."""

    spectral: SpectralBranch

    def init_output(self, mean: float) -> None:
        """Start from the mean training score."""
        with torch.no_grad():
            self.spectral.mean.bias.fill_(mean)

    def forward(self, audio: Tensor, num_samples: Tensor, *, with_tokens: bool = True) -> Prediction:
        """Score recordings; there are no token logits."""
        *counts, size = map(self.encoder_config.num_frames, [*num_samples.tolist(), audio.shape[1]])
        num_frames = torch.tensor(counts, device=audio.device)
        frame_mos = self.spectral(audio, num_samples, num_frames)[:, :size]
        return Prediction(_mean_over_frames(frame_mos, num_frames), frame_mos, num_frames, [])

    def without_recordings(self) -> Tensor:
        """Return 0, differentiable, having taken part in the batch norms."""
        return self.spectral.without_recordings()


def build_model(
    config: ModelConfig, encoder: SSLEncoder | EncoderConfig, clusters: int | None, corpora: tuple[str, ...] = ()
) -> MOSNetwork:
    """Build the network that `config.model` names.

    Args:
        config: its shape.
        encoder: becomes part of the network, with fresh weights if it is given as a configuration. A network of spectra
            alone needs no more of it than that.
        clusters: number K of token ids; None is enough for a baseline.
        corpora: whose scales it learns apart; none for a single one.

    Raises:
        ValueError: if the target layers do not exist, a DistilMOS network is asked for without `clusters`, or spectra
            do not go with the encoder's frames.
    """
    if config.model == "spectral":
        return SpectralMOS(config, encoder if isinstance(encoder, EncoderConfig) else encoder.config, corpora)
    if isinstance(encoder, EncoderConfig):
        encoder = SSLEncoder(encoder)
    if config.model == "sslmos":
        return SSLMOS(config, encoder, corpora)
    if clusters is None:
        raise ValueError("model: distilmos needs the number of clusters")
    return DistilMOS(config, encoder, corpora, clusters)
