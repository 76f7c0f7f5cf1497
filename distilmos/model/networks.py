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
from distilmos.ssl.encoder import SSLEncoder, valid_mask

DEVIATION_EPS = 1e-5  # added to a variance: the gradient of the root is infinite at 0


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


def _deviation_over_frames(frames: Tensor, num_frames: Tensor) -> Tensor:
    """Return the standard deviations (B, H) of the valid ones of frames (B, T, H), in float32."""
    mask = valid_mask(num_frames, frames.shape[1])[:, :, None]
    count = num_frames[:, None]
    values = frames.float()
    mean = (values * mask).sum(1) / count
    variance = ((values - mean[:, None]).square() * mask).sum(1) / count
    return (variance + DEVIATION_EPS).sqrt()


class MOSNetwork(nn.Module):
    """What all networks have in common: an encoder, and a last linear layer that gives frame scores.

    Attributes:
        corpus_offsets: how the scales of the corpora that it was trained on differ; None for a single corpus. Scores
            are on the mean scale unless a caller adds an offset.
        listener_offsets: how listeners differ; there in training alone, for scores are those of the mean listener.
    """

    def __init__(self, config: ModelConfig, encoder: SSLEncoder, width: int, corpora: tuple[str, ...]) -> None:
        """Take over `encoder`; `width` is that of the frames which the last layer scores."""
        super().__init__()
        self.corpus_offsets = Offsets(corpora) if corpora else None
        self.listener_offsets: Offsets | None = None
        self.config = config
        self.encoder = encoder
        self.encoder.set_dropout(config.encoder_dropout)
        self.target_layers = config.layers(encoder.config.num_layers)
        self.linear = nn.Linear(width, 1)
        self.spread = nn.Linear(width, 1, bias=False) if config.pooling == "stats" else None
        if self.spread is not None:
            nn.init.zeros_(self.spread.weight)  # training starts from the mean alone

    @property
    def hop(self) -> int:
        """Samples from one frame score to the next."""
        return self.encoder.config.hop

    def init_output(self, mean: float) -> None:
        """Start from the mean training score, so that a short fine-tuning does not spend its steps on the offset."""
        with torch.no_grad():
            self.linear.bias.fill_(mean)

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
        layers, num_frames = self.encoder(audio, num_samples)
        return self.score_layers(layers, num_frames, with_tokens=with_tokens)

    def score_layers(self, layers: list[Tensor], num_frames: Tensor, *, with_tokens: bool = True) -> Prediction:
        """Score the hidden states of the encoder: L tensors (B, T, D), of which `num_frames` (B,) are valid."""
        raise NotImplementedError

    def _predict(self, frames: Tensor, num_frames: Tensor, token_logits: list[Tensor]) -> Prediction:
        """Score frames (B, T, H), of which `num_frames` (B,) are valid."""
        frame_mos = self.linear(frames).squeeze(2)
        if self.spread is not None:
            # The same for all frames of a recording, so that its score is the mean of its frames with any pooling.
            frame_mos = frame_mos + self.spread(_deviation_over_frames(frames, num_frames))
        return Prediction(_mean_over_frames(frame_mos, num_frames), frame_mos, num_frames, token_logits)

    def without_recordings(self) -> Tensor:
        """Return 0, differentiable, having done what `forward` and its backward pass do together with other processes.

        For a process of a distributed training that has no recording of a batch.
        """
        return self.linear.bias.sum() * 0


class DistilMOS(MOSNetwork):
    """Layer mix, feature processor, one token predictor for each target layer, decoder, frame scores.

    After J. Yang, W. Nakata, Y. Saito, H. Saruwatari, arXiv 2601.13700, and the authors' released model.

    Attributes:
        clusters: number K of token ids.
        kmeans: hash of the k-means models that define them; empty where that is not known.
    """

    def __init__(self, config: ModelConfig, encoder: SSLEncoder, corpora: tuple[str, ...], clusters: int) -> None:
        """Build the heads for token ids 0..clusters-1 on `encoder`."""
        super().__init__(config, encoder, config.hidden_dim, corpora)
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

    def score_layers(self, layers: list[Tensor], num_frames: Tensor, *, with_tokens: bool = True) -> Prediction:
        """Score the hidden states of the encoder: L tensors (B, T, D), of which `num_frames` (B,) are valid."""
        mixed = self.weighted_sum(layers, valid_mask(num_frames, layers[0].shape[1]))
        shared, num_frames = self.feature_processor(mixed, num_frames)
        logits = [predictor(shared) for predictor in self.predictors] if with_tokens else []
        return self._predict(self.decoder(shared, num_frames), num_frames, logits)

    def without_recordings(self) -> Tensor:
        """Return 0, differentiable, having taken part in the batch norm."""
        nothing = self.linear.weight.new_zeros(0, 1, self.encoder.config.embed_dim)
        lengths = torch.zeros(0, dtype=torch.long, device=nothing.device)
        shared: Tensor = self.feature_processor(nothing, lengths)[0]
        return shared.sum()


class SSLMOS(MOSNetwork):
    """Plain fine-tuning: a linear layer on the last hidden state, averaged over valid frames.

    After E. Cooper et al., "Generalization ability of MOS prediction networks", ICASSP 2022, but with padding left out
    of the mean.
    """

    def __init__(self, config: ModelConfig, encoder: SSLEncoder, corpora: tuple[str, ...]) -> None:
        """Put the linear layer on `encoder`."""
        super().__init__(config, encoder, encoder.config.embed_dim, corpora)

    def score_layers(self, layers: list[Tensor], num_frames: Tensor, *, with_tokens: bool = True) -> Prediction:
        """Score the last of the L hidden states (B, T, D)."""
        return self._predict(layers[-1], num_frames, [])


def build_model(
    config: ModelConfig, encoder: SSLEncoder, clusters: int | None, corpora: tuple[str, ...] = ()
) -> MOSNetwork:
    """Build the network that `config.model` names.

    Args:
        config: its shape.
        encoder: becomes part of the network.
        clusters: number K of token ids; None is enough for a baseline.
        corpora: whose scales it learns apart; none for a single one.

    Raises:
        ValueError: if the target layers do not exist, or a DistilMOS network is asked for without `clusters`.
    """
    if config.model == "sslmos":
        return SSLMOS(config, encoder, corpora)
    if clusters is None:
        raise ValueError("model: distilmos needs the number of clusters")
    return DistilMOS(config, encoder, corpora, clusters)
