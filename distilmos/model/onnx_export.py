"""Write `model.onnx` of a model directory (see `onnx_file`) by tracing its network.

The exporter on TorchScript writes it. The one on torch.export (torch 2.14, onnxscript 0.7) gives the output of an LSTM
the length of the example.
"""

from __future__ import annotations

import io
import json
import struct
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distilmos import __version__
from distilmos.data.audio import SAMPLE_RATE
from distilmos.errors import FailedError, InputError
from distilmos.files import atomic_path
from distilmos.model.directory import ONNX, WEIGHTS, ModelInfo
from distilmos.model.networks import MOSNetwork
from distilmos.model.onnx_file import AUDIO, FORMAT, KEY, NOVELTY, SCORES, Metadata, open_onnx
from distilmos.model.package import load_described
from distilmos.ssl.encoder import export_mode

OPSET = 17
TOLERANCE = 1e-4  # MOS; between the scores of both runtimes
# Seconds of the traced example, and of what is checked, beyond the shortest input.
EXAMPLE_SECONDS = 2.0
CHECKED_SECONDS = (0.0, 0.5, 3.3)
PREFIX = "network."  # of the weights' names in the graph
STORED = {"F32": "FLOAT", "F16": "FLOAT16"}  # types of the file of weights, and in ONNX


class _OneRecording(nn.Module):
    """A network as a function from the samples of a recording (N,) to its frame scores (T, O), and its novelty (1,)."""

    def __init__(self, network: MOSNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, audio: Tensor) -> tuple[Tensor, ...]:
        # The shape as a tensor, because the tracer takes a number for a constant.
        prediction = self.network(audio[None], torch._shape_as_tensor(audio), with_tokens=False)
        scores: Tensor = prediction.frame_scores[0]
        return (scores,) if prediction.novelty is None else (scores, prediction.novelty)


@torch.inference_mode()
def export_onnx(directory: str | Path) -> ModelInfo:
    """Write `model.onnx` into a model directory, and return the facts of the model.

    The scores of some noise must be those of torch.

    Raises:
        InputError: if the directory is not a model, or its weights are of another type than float32 or float16.
        FailedError: if the scores differ by more than TOLERANCE.
    """
    import onnx

    directory = Path(directory)
    network, info = load_described(directory)
    model = onnx.load_from_string(_traced(network, info))
    _refer_to_weights(model.graph, directory)
    metadata = Metadata(FORMAT, __version__, SAMPLE_RATE, info)
    onnx.helper.set_model_props(model, {KEY: json.dumps(asdict(metadata))})
    with atomic_path(directory / ONNX) as temporary:
        temporary.write_bytes(model.SerializeToString())
        _check(network, info, temporary)
    return info


def _samples(info: ModelInfo, seconds: float) -> int:
    """Return the number of samples of the shortest input and `seconds` more, below that of the longest input."""
    size = info.min_samples + round(seconds * SAMPLE_RATE)
    return size if info.max_samples is None else min(size, info.max_samples - 1)


def _traced(network: MOSNetwork, info: ModelInfo) -> bytes:
    """Return the graph, whose weights are inputs with their names; nothing is computed from them in advance."""
    stream: Any = io.BytesIO()  # the exporter accepts it, but does not say so
    # The warnings are of numbers that are taken for constants, and of the exporter.
    with warnings.catch_warnings(action="ignore"), export_mode():
        torch.onnx.export(
            _OneRecording(network).eval(),
            (torch.zeros(_samples(info, EXAMPLE_SECONDS)),),
            stream,
            input_names=[AUDIO],
            output_names=[SCORES, NOVELTY][: 1 + info.has_novelty],
            dynamic_axes={AUDIO: {0: "samples"}, SCORES: {0: "frames"}},
            opset_version=OPSET,
            export_params=False,
            do_constant_folding=False,
            dynamo=False,
        )
    return bytes(stream.getvalue())


def _refer_to_weights(graph: Any, directory: Path) -> None:
    """Replace the weights, which are inputs of the traced graph, by references to the file of weights."""
    import onnx

    with (directory / WEIGHTS).open("rb") as stream:
        (size,) = struct.unpack("<Q", stream.read(8))
        stored = json.loads(stream.read(size))
    for given in [given for given in graph.input if given.name != AUDIO]:
        entry = stored[given.name.removeprefix(PREFIX)]
        if entry["dtype"] not in STORED:
            raise InputError(f"{directory / WEIGHTS}: weights of type {entry['dtype']} cannot be used by {ONNX}")
        start, end = entry["data_offsets"]
        weight = onnx.TensorProto(name=given.name, dims=entry["shape"], data_location=onnx.TensorProto.EXTERNAL)
        weight.data_type = onnx.TensorProto.DataType.Value(STORED[entry["dtype"]])
        for key, value in {"location": WEIGHTS, "offset": 8 + size + start, "length": end - start}.items():
            weight.external_data.add(key=key, value=str(value))
        if entry["dtype"] == "F16":
            weight.name = f"{given.name}.half"
            cast = onnx.helper.make_node("Cast", [weight.name], [given.name], to=onnx.TensorProto.FLOAT)
            graph.node.insert(0, cast)
        graph.initializer.append(weight)
        graph.input.remove(given)


def _check(network: MOSNetwork, info: ModelInfo, path: Path) -> None:
    """Compare the outputs for noise, a part of which is silent, with those of torch."""
    session = open_onnx(path)[0]
    generator = np.random.default_rng(0)
    for seconds in CHECKED_SECONDS:
        samples = 0.1 * generator.standard_normal(_samples(info, seconds), np.float32)
        samples[samples.size // 2 : samples.size * 3 // 4] = 0
        prediction = network(torch.from_numpy(samples)[None], torch.tensor([samples.size]), with_tokens=False)
        outputs = {SCORES: prediction.frame_scores[0]}
        if prediction.novelty is not None:
            outputs[NOVELTY] = prediction.novelty
        for (name, wanted), found in zip(outputs.items(), session.run(None, {AUDIO: samples}), strict=True):
            expected = wanted.numpy()
            worst = np.abs(found.mean(0) - expected.mean(0)).max() if found.shape == expected.shape else np.inf
            if not worst <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
                raise FailedError(
                    f"{path.parent / ONNX}: not written: the {name} of {samples.size} samples differ by {worst:.1e}"
                )
