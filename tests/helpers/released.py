"""The network of the authors' release, written down again from its description with the libraries' own modules.

It is the reference for what the golden files do not cover. Parameter names are those of `model.pth.tar`.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
import yaml
from entmax import entmax15
from torch import Tensor, nn

GOLDEN = Path(__file__).resolve().parents[1] / "golden"  # small models in the format of the release, with outputs


class Mix(nn.Module):
    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        self.layer_weights = nn.Parameter(torch.ones(layers))  # not used
        self.layer_logits = nn.Parameter(torch.randn(layers))
        self.out_proj = nn.Linear(width, width)

    def forward(self, layers: list[Tensor]) -> Tensor:
        weights = entmax15(self.layer_logits - self.layer_logits.mean(), dim=0)
        return self.out_proj(sum(weight * layer for weight, layer in zip(weights, layers, strict=True)))


class Block(nn.Module):
    def __init__(self, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.dw = nn.Conv1d(width, width, kernel, stride, (kernel - 1) // 2, groups=width, bias=False)
        self.pw = nn.Conv1d(width, width, 1, bias=False)
        self.bn = nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.bn(self.pw(self.dw(x))))


class Processor(nn.Module):
    def __init__(self, source: int, width: int, kernels: list[int], strides: list[int]) -> None:
        super().__init__()
        self.proj_in = nn.Conv1d(source, width, 1)
        self.blocks = nn.Sequential(*(Block(width, k, s) for k, s in zip(kernels, strides, strict=True)))
        self.ln = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.ln(self.blocks(self.proj_in(x.transpose(1, 2))).transpose(1, 2))


class Predictor(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 200)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Decoder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.cnn = nn.Conv1d(width, width, 3, padding=1)
        self.bilstm = nn.LSTM(width, width, batch_first=True, bidirectional=True)
        self.linear = nn.Linear(2 * width, width)
        self.batch_norm = nn.BatchNorm1d(width)  # not used
        self.layer_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        local = self.cnn(x.transpose(1, 2)).transpose(1, 2)
        return self.layer_norm(F.gelu(self.linear(self.bilstm(local)[0])) + local)


class Released(nn.Module):
    """One recording at a time, without padding."""

    def __init__(self, settings: dict) -> None:
        super().__init__()
        ssl = transformers.Wav2Vec2Config(**settings["w2v2_cfg"])
        self.ssl = transformers.Wav2Vec2Model(ssl)
        width = settings.get("hidden_dim", 256)
        self.weighted_sum = Mix(ssl.num_hidden_layers, ssl.hidden_size)
        kernels, strides = settings["downsample_kernels"], settings["downsample_strides"]
        self.feature_processor = Processor(ssl.hidden_size, width, kernels, strides)
        targets = settings.get("target_layers", list(range(1, ssl.num_hidden_layers + 1)))
        self.predictors = nn.ModuleList(Predictor(width) for _ in targets)
        self.decoder = Decoder(width)
        self.linear = nn.Linear(width, 1)

    @torch.no_grad()
    def forward(self, audio: Tensor) -> dict[str, Tensor]:
        """Score a waveform (N,)."""
        layers = self.ssl(audio[None], output_hidden_states=True).hidden_states[1:]
        shared = self.feature_processor(self.weighted_sum(list(layers)))
        frame_mos = self.linear(self.decoder(shared))[0, :, 0]
        logits = torch.cat([predictor(shared) for predictor in self.predictors])
        return {"layers": torch.cat(layers), "token_logits": logits, "frame_mos": frame_mos, "mos": frame_mos.mean()}


def write_released(directory: Path, settings: dict) -> Released:
    """Write model.pth.tar and model_cfg.yaml of a model with random weights, and return it."""
    torch.manual_seed(0)
    model = Released(settings).eval()
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            value += 0.05 * torch.rand_like(value) if "running_var" in name else 0.05 * torch.randn_like(value)
    directory.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model.state_dict()}, directory / "model.pth.tar")
    (directory / "model_cfg.yaml").write_text(yaml.safe_dump(settings))
    return model
