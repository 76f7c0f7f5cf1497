"""The settings that define the network; a trained model stores them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from distilmos.ssl.config import MAX_LAYERS


def to_tuple(value: Any) -> Any:
    """Convert a YAML list to a tuple, which a frozen configuration can hold."""
    return tuple(value) if isinstance(value, list) else value


Integers = Annotated[tuple[PositiveInt, ...], Field(min_length=1), BeforeValidator(to_tuple)]


class ModelConfig(BaseModel):
    """The network on the SSL encoder.

    Attributes:
        model: "distilmos"; the baseline "sslmos" (mean of the last layer, one linear layer); or "spectral", which
            scores only log mel spectra, with the frame times of the encoder.
        head: "decoder", the published LSTM and linear map on the mixed layers, or for "sslmos" a linear map of the last
            layer; or "statistics", a linear map of mean and standard deviation over time of all layers, which starts
            from a ridge regression.
        hidden_dim: width H of all modules after the layer mix.
        kernels: kernel of each depthwise convolution of the feature processor, odd.
        strides: stride of each of these convolutions; above 1 they shorten the frame sequence.
        distillation: "tokens", the published classification of each frame into k-means clusters; or "features", with
            which the same heads regress the hidden states of the frozen encoder themselves.
        target_layers: layers, counted from 1, whose token ids (or features) the model predicts; or "all". They are
            layers of the encoder that made the tokens.
        spectral_dim: channels of the spectral branch, convolutions on log mel spectra; 0 for none.
        normalize_level: the encoder hears every recording at -26 dB relative to full scale (root mean square), whatever
            its level.
        regression_loss: the loss of the scores, "l1", "mse" or "nll"; with "nll" the network also estimates its error.
        dropout: in the decoder, after the LSTM.
        encoder_dropout: in the SSL encoder, on its input and on the output of each sublayer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    model: Literal["distilmos", "sslmos", "spectral"] = "distilmos"
    head: Literal["decoder", "statistics"] = "decoder"
    hidden_dim: PositiveInt = 256
    kernels: Integers = (5, 3, 3)
    strides: Integers = (1, 1, 1)
    distillation: Literal["tokens", "features"] = "tokens"
    target_layers: Literal["all"] | Integers = "all"
    spectral_dim: NonNegativeInt = 0
    normalize_level: bool = False
    regression_loss: Literal["l1", "mse", "nll"] = "l1"
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)
    encoder_dropout: float = Field(default=0.1, ge=0.0, lt=1.0)

    @model_validator(mode="after")
    def _check(self) -> ModelConfig:
        if len(self.kernels) != len(self.strides):
            raise ValueError("kernels and strides must have the same length")
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise ValueError("kernels must be odd")
        if self.head == "statistics" and (self.spectral_dim or max(self.strides) > 1):
            raise ValueError("head: statistics needs spectral_dim 0 and strides of 1")
        if self.model == "spectral" and not self.spectral_dim:
            raise ValueError("spectral_dim must be above 0 with model: spectral")
        if self.model == "spectral" and self.regression_loss == "nll":
            raise ValueError("regression_loss: nll needs model: distilmos or sslmos")
        return self

    def layers(self, num_layers: int) -> tuple[int, ...]:
        """Return the target layers for tokens of `num_layers` layers; empty unless `model` is "distilmos".

        Raises:
            ValueError: if the tokens do not have one of them, or one is listed twice.
        """
        if self.model != "distilmos":
            return ()
        if not 1 <= num_layers <= MAX_LAYERS:
            raise ValueError(f"tokens of {num_layers} layers; there must be 1 to {MAX_LAYERS}")
        if self.target_layers == "all":
            return tuple(range(1, num_layers + 1))
        if len(set(self.target_layers)) != len(self.target_layers) or max(self.target_layers) > num_layers:
            raise ValueError(f"target_layers {list(self.target_layers)} must be different layers in 1..{num_layers}")
        return self.target_layers
