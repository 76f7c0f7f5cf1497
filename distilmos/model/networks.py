"""The networks: DistilMOS, the plain fine-tuning baseline, and a network on spectra alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distilmos.data.audio import LEVEL
from distilmos.data.schema import MOS_SCALE, Scale
from distilmos.model.config import ModelConfig
from distilmos.model.mixing import LayerMix
from distilmos.model.offsets import Offsets
from distilmos.model.processor import Decoder, FeatureProcessor, TokenPredictor
from distilmos.model.spectral import SpectralBranch
from distilmos.model.statistics import TimeStatistics
from distilmos.ssl.config import EncoderConfig
from distilmos.ssl.encoder import SSLEncoder, exporting, valid_mask
from distilmos.ssl.families import create_encoder
from distilmos.ssl.waveform import normalize_audio

SILENCE = 1e-9  # power that counts as silence, -90 dB relative to full scale: its level is not normalised


@dataclass(frozen=True)
class Prediction:
    """The output of a network for a batch.

    Attributes:
        scores: utterance scores of the O outputs, float (B, O), as if on the scale 1..5; see `MOSNetwork.scales`.
        frame_scores: frame scores, float (B, T, O); padded frames are unspecified.
        num_frames: valid frames, long (B,).
        log_errors: logarithm of the mean absolute error that the network expects, float (B, O); None unless it was
            trained with `regression_loss: nll`.
        novelty: how unlike its training data the network finds each recording, float (B,); see `novelty_limit` of
            `MOSNetwork`. None if it cannot tell, and in training.
        token_logits: for each target layer, logits of the clusters, float (B, T, K); with `distillation: features`,
            hidden states of the frozen encoder, float (B, T, D). Empty for a baseline, and if they are not requested.
    """

    scores: Tensor
    frame_scores: Tensor
    num_frames: Tensor
    token_logits: list[Tensor]
    log_errors: Tensor | None = None
    novelty: Tensor | None = None

    @property
    def mos(self) -> Tensor:
        """Utterance scores of the first output, (B,)."""
        return self.scores[:, 0]

    @property
    def frame_mos(self) -> Tensor:
        """Frame scores of the first output, (B, T)."""
        return self.frame_scores[:, :, 0]


def _mean_over_frames(frame_scores: Tensor, num_frames: Tensor) -> Tensor:
    """Average (B, T, O) over the valid frames to (B, O)."""
    mask = valid_mask(num_frames, frame_scores.shape[1])[:, :, None]
    return (frame_scores * mask).sum(1) / num_frames[:, None]


class MOSNetwork(nn.Module):
    """Base of all networks: they score each frame, and the score of a recording is the mean over its frames.

    Attributes:
        encoder_config: of the encoder, which defines the frames of the network.
        scales: the scale of each output. The network computes as if all were 1..5; prediction maps its scores.
        spectral: the spectral branch; None without `spectral_dim`.
        target_layers: layers whose token ids it predicts, counted from 1; empty for a baseline.
        corpus_offsets: offsets between the scales of the training corpora; None for a single corpus. Scores are on the
            mean scale unless the caller adds an offset.
        listener_offsets: offsets of the listeners, during training only; scores are those of the mean listener.
        novelty_limit: novelty of the statistics (see `TimeStatistics`) that 99 % of the training set do not exceed. It
            is the unit of `Prediction.novelty`: above 1, a recording is unlike the training data. None until training
            has ended, and without `head: statistics`.
    """

    def __init__(
        self, config: ModelConfig, encoder: EncoderConfig, corpora: tuple[str, ...], scales: tuple[Scale, ...]
    ) -> None:
        """Build the parts that all networks share, for the frames of `encoder`."""
        super().__init__()
        self.scales = scales
        self.corpus_offsets = Offsets(corpora) if corpora else None
        self.listener_offsets: Offsets | None = None
        self.novelty_limit: float | None = None
        self.config = config
        self.encoder_config = encoder
        self.target_layers: tuple[int, ...] = ()
        self.spectral = None
        if config.spectral_dim:
            self.spectral = SpectralBranch(config.spectral_dim, self.hop, encoder, len(scales))

    @property
    def hop(self) -> int:
        """Samples from one frame score to the next."""
        return self.encoder_config.hop

    @property
    def num_parameters(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    def init_output(self, means: Sequence[float]) -> None:
        """Set the bias of each output to its mean training score: a short fine-tuning need not learn the offset."""
        raise NotImplementedError

    def layer_weights(self) -> Tensor | None:
        """Return the weight of each encoder layer, (L,); None if the network uses only the last layer."""
        return None

    def forward(self, audio: Tensor, num_samples: Tensor, *, with_tokens: bool = True) -> Prediction:
        """Score recordings.

        Args:
            audio: 16 kHz waveforms, zero padded (B, N).
            num_samples: valid samples of each (B,).
            with_tokens: compute token logits too; scores do not need them.
        """
        raise NotImplementedError

    def without_recordings(self) -> Tensor:
        """Return a differentiable 0, from a forward pass of the batch norms alone.

        For a process of a data-parallel run that has no recording of a batch: the batch norms of the other processes
        wait for its sums, in the forward and in the backward pass.
        """
        return torch.zeros((), requires_grad=True) if self.spectral is None else self.spectral.without_recordings()


class EncoderNetwork(MOSNetwork):
    """A network on the hidden states of an SSL encoder, optionally with a spectral branch.

    Attributes:
        encoder: the SSL encoder, part of the network.
        statistics: computes the frames of `head: statistics`; None with another head.
        linear: maps the frames of the head to frame scores; with `regression_loss: nll`, also to the logarithms of
            expected errors.
    """

    def __init__(
        self,
        config: ModelConfig,
        encoder: SSLEncoder,
        corpora: tuple[str, ...],
        scales: tuple[Scale, ...],
        width: int,
    ) -> None:
        """Make `encoder` a part of the network; `width` is that of the frames of `head: decoder`."""
        super().__init__(config, encoder.config, corpora, scales)
        self.encoder = encoder
        self.encoder.set_dropout(config.encoder_dropout)
        self.statistics: TimeStatistics | None = None
        if config.head == "statistics":
            self.statistics = TimeStatistics(encoder.config.num_layers, encoder.config.embed_dim)
            width = len(self.statistics.mean)
        estimates = len(scales) if config.regression_loss == "nll" else 0
        self.linear = nn.Linear(width, len(scales) + estimates)
        if estimates:
            nn.init.zeros_(self.linear.weight[-estimates:])
            nn.init.zeros_(self.linear.bias[-estimates:])

    def init_output(self, means: Sequence[float]) -> None:
        """Set the bias of each output to its mean training score."""
        with torch.no_grad():
            self.linear.bias[: len(means)].copy_(torch.tensor(means))

    def forward(self, audio: Tensor, num_samples: Tensor, *, with_tokens: bool = True) -> Prediction:
        """Score recordings."""
        layers, num_frames = self.hidden_states(audio, num_samples)
        return self.predict_from(layers, num_frames, audio, num_samples, with_tokens=with_tokens)

    def hidden_states(self, audio: Tensor, num_samples: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the hidden states and numbers of frames that the encoder gives; see `SSLEncoder.forward`."""
        if self.config.normalize_level:
            audio = normalize_audio(audio, num_samples, SILENCE) * 10 ** (LEVEL / 20)
        layers, num_frames = self.encoder(audio, num_samples)
        return layers, num_frames

    def predict_from(
        self,
        layers: list[Tensor],
        num_frames: Tensor,
        audio: Tensor,
        num_samples: Tensor,
        *,
        with_tokens: bool = True,
    ) -> Prediction:
        """Score recordings, as `forward` does, from what `hidden_states` has returned."""
        outputs, num_frames, token_logits = self.score_layers(layers, num_frames, with_tokens=with_tokens)
        scores, errors = outputs.tensor_split([len(self.scales)], dim=2)
        if self.spectral is not None:
            scores = scores + self.spectral(audio, num_samples, num_frames)[:, : scores.shape[1]]
        log_errors = _mean_over_frames(errors, num_frames) if errors.shape[2] else None
        novelty = None
        if self.statistics is not None and self.novelty_limit is not None and not self.training:
            novelty = self.statistics.novelty(self.statistics.pool(layers, num_frames)) / self.novelty_limit
        return Prediction(_mean_over_frames(scores, num_frames), scores, num_frames, token_logits, log_errors, novelty)

    def score_layers(
        self, layers: list[Tensor], num_frames: Tensor, *, with_tokens: bool = True
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Score the hidden states of the encoder.

        Args:
            layers: L tensors (B, T, D).
            num_frames: number of valid frames (B,).
            with_tokens: compute token logits too.

        Returns:
            outputs of `linear` for each frame (B, T', outputs), the number of valid frames (B,), and token logits as in
            `Prediction`.
        """
        raise NotImplementedError


class DistilMOS(EncoderNetwork):
    """Layer mix, feature processor, one token predictor for each target layer, decoder, frame scores.

    After J. Yang, W. Nakata, Y. Saito, H. Saruwatari, arXiv 2601.13700, and the authors' released model.

    Attributes:
        clusters: number K of token ids; None if the predictors regress features.
        token_layers: layers of the tokens, of which `target_layers` are predicted.
        kmeans: hash of the k-means models that define the ids, or of the encoder whose features are regressed; empty if
            unknown.
    """

    def __init__(
        self,
        config: ModelConfig,
        encoder: SSLEncoder,
        corpora: tuple[str, ...],
        scales: tuple[Scale, ...],
        clusters: int | None,
        token_layers: int,
    ) -> None:
        """Build the network on `encoder`, for token ids 0..clusters-1 (None for features) of `token_layers` layers."""
        super().__init__(config, encoder, corpora, scales, config.hidden_dim)
        source = encoder.config.embed_dim
        self.clusters = clusters
        self.token_layers = token_layers
        self.target_layers = config.layers(token_layers)
        self.kmeans = ""
        self.weighted_sum = LayerMix(encoder.config.num_layers, source)
        self.feature_processor = FeatureProcessor(source, config.hidden_dim, config.kernels, config.strides)
        outputs = source if clusters is None else clusters
        self.predictors = nn.ModuleList(TokenPredictor(config.hidden_dim, outputs) for _ in self.target_layers)
        if self.statistics is None:
            self.decoder = Decoder(config.hidden_dim, config.dropout)

    @property
    def hop(self) -> int:
        """Samples from one frame score to the next."""
        return super().hop * math.prod(self.config.strides)

    def has_tokens_of(self, other: MOSNetwork) -> bool:
        """Return whether the predictors of both predict the same tokens; ids of other k-means are other numbers."""
        return (
            isinstance(other, DistilMOS)
            and bool(self.kmeans)
            and all(getattr(self, name) == getattr(other, name) for name in ("kmeans", "clusters", "target_layers"))
        )

    def layer_weights(self) -> Tensor | None:
        """Return the weights of the layer mix, (L,), sum 1; None if `head: statistics` scores the layers instead."""
        return self.weighted_sum.weights() if self.statistics is None else None

    def score_layers(
        self, layers: list[Tensor], num_frames: Tensor, *, with_tokens: bool = True
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Score the hidden states of all layers."""
        logits = []
        if with_tokens or self.statistics is None:
            mixed = self.weighted_sum(layers, valid_mask(num_frames, layers[0].shape[1]))
            shared, shortened = self.feature_processor(mixed, num_frames)
            logits = [predictor(shared) for predictor in self.predictors] if with_tokens else []
        if self.statistics is not None:
            return self.linear(self.statistics(layers, num_frames)), num_frames, logits
        return self.linear(self.decoder(shared, shortened)), shortened, logits

    def without_recordings(self) -> Tensor:
        """Return a differentiable 0, from a forward pass of the batch norms alone."""
        nothing = next(self.parameters()).new_zeros(0, 1, self.encoder_config.embed_dim)
        lengths = torch.zeros(0, dtype=torch.long, device=nothing.device)
        shared: Tensor = self.feature_processor(nothing, lengths)[0]
        return shared.sum() + super().without_recordings()


class SSLMOS(EncoderNetwork):
    """Plain fine-tuning: a linear layer on the last hidden state, averaged over valid frames.

    After E. Cooper et al., "Generalization ability of MOS prediction networks", ICASSP 2022, but the mean excludes
    padding.
    """

    def __init__(
        self, config: ModelConfig, encoder: SSLEncoder, corpora: tuple[str, ...], scales: tuple[Scale, ...]
    ) -> None:
        """Build the network on `encoder`."""
        super().__init__(config, encoder, corpora, scales, encoder.config.embed_dim)

    def score_layers(
        self, layers: list[Tensor], num_frames: Tensor, *, with_tokens: bool = True
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Score the hidden states of the last layer, or of all with `head: statistics`."""
        frames = layers[-1] if self.statistics is None else self.statistics(layers, num_frames)
        return self.linear(frames), num_frames, []


class SpectralMOS(MOSNetwork):
    """The spectral branch alone: a baseline, and initial weights for the spectral branch of other networks."""

    spectral: SpectralBranch

    def init_output(self, means: Sequence[float]) -> None:
        """Set the bias of each output to its mean training score."""
        with torch.no_grad():
            self.spectral.mean.bias.copy_(torch.tensor(means))

    def forward(self, audio: Tensor, num_samples: Tensor, *, with_tokens: bool = True) -> Prediction:
        """Score recordings, without token logits."""
        size = self.encoder_config.num_frames(audio.shape[1])
        counts = [size] if exporting() else list(map(self.encoder_config.num_frames, num_samples.tolist()))
        num_frames = torch.stack([torch.as_tensor(count, device=audio.device) for count in counts])
        scores = self.spectral(audio, num_samples, num_frames)[:, :size]
        return Prediction(_mean_over_frames(scores, num_frames), scores, num_frames, [])


def build_model(
    config: ModelConfig,
    encoder: SSLEncoder | EncoderConfig,
    clusters: int | None,
    corpora: tuple[str, ...] = (),
    scales: tuple[Scale, ...] = (MOS_SCALE,),
    token_layers: int | None = None,
) -> MOSNetwork:
    """Build the network that `config.model` names.

    Args:
        config: settings of the network.
        encoder: becomes part of the network; a configuration gives an encoder with fresh weights. A spectral network
            uses only the configuration.
        clusters: number K of token ids; needed for DistilMOS with tokens alone.
        corpora: names of the training corpora, each with its own offset; empty for a single corpus.
        scales: the scale of each output.
        token_layers: layers of the tokens; None for those of the encoder.

    Raises:
        ValueError: if a target layer does not exist, `clusters` is missing for DistilMOS, or the spectral branch does
            not fit the frames of the encoder.
    """
    if config.model == "spectral":
        return SpectralMOS(config, encoder if isinstance(encoder, EncoderConfig) else encoder.config, corpora, scales)
    if isinstance(encoder, EncoderConfig):
        encoder = create_encoder(encoder)
    if config.model == "sslmos":
        return SSLMOS(config, encoder, corpora, scales)
    if config.distillation == "tokens" and clusters is None:
        raise ValueError("model: distilmos needs the number of clusters")
    if token_layers is None:
        token_layers = encoder.config.num_layers
    clusters = clusters if config.distillation == "tokens" else None
    return DistilMOS(config, encoder, corpora, scales, clusters, token_layers)
