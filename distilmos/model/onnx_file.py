"""Read `model.onnx` of a model directory: the network as a graph for onnxruntime, without torch.

The graph maps the samples of one recording, float32 (N,) at 16 kHz, to frame scores, float32 (T, O), and, if the model
can tell, to its novelty, float32 (1,). Its weights are those of `model.safetensors` beside it, to which it refers byte
by byte, so that a directory holds them once. Facts that prediction needs are in its metadata, as JSON; see Metadata.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distilmos.data.audio import SAMPLE_RATE
from distilmos.data.tables import parse_json
from distilmos.errors import InputError
from distilmos.model.directory import WEIGHTS, ModelInfo, weights_version

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

FORMAT = 1
KEY = "distilmos"  # of the metadata
AUDIO, SCORES, NOVELTY = "audio", "scores", "novelty"  # names of the input and of the outputs


@dataclass(frozen=True)
class Metadata:
    """The metadata of the file.

    Attributes:
        format: FORMAT; a newer version of distilmos may have a higher one.
        distilmos: the version that wrote the file.
        sampling_rate: of the input, in Hz.
        model: the facts of the model.
    """

    format: int
    distilmos: str
    sampling_rate: int
    model: ModelInfo


def command_for(directory: Path) -> str:
    """Return the text that says how `model.onnx` is made."""
    return f"`distilmos export --onnx {directory}` makes it, with torch (pip install 'distilmos[torch]')"


def open_onnx(path: Path) -> tuple[InferenceSession, ModelInfo]:
    """Open the graph of a model directory, such as `DIR/model.onnx`, for runs on one core; threads may share it.

    Raises:
        InputError: if a file is missing, damaged, of a newer format or not of distilmos, or if the weights are not
            those that it was made for.
    """
    import onnxruntime

    directory = path.parent
    if not path.exists():
        raise InputError(f"{path}: no such file; {command_for(directory)}")
    weights = weights_version(directory)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what it says of a graph is raised as an error, too
    options.enable_mem_pattern = False  # it would keep a plan for every length
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        text = session.get_modelmeta().custom_metadata_map.get(KEY)
        ends = [(found.name, found.type, len(found.shape)) for found in (*session.get_inputs(), *session.get_outputs())]
    except Exception as error:  # onnxruntime has many types of errors, which share no other base
        raise InputError(f"{path}: not usable as ONNX: {(str(error).splitlines() or [''])[0]}") from None
    known = [(AUDIO, "tensor(float)", 1), (SCORES, "tensor(float)", 2), (NOVELTY, "tensor(float)", 1)]
    if text is None or ends not in (known, known[:-1]):
        raise InputError(f"{path}: not written by distilmos; {command_for(directory)}")
    found = parse_json(text, path, dict).get("format")
    if found != FORMAT:
        raise InputError(f"{path}: format {found}, expected {FORMAT}; use a newer distilmos")
    metadata: Metadata = parse_json(text, path, Metadata)
    info = metadata.model
    targets = {scale.name for scale in info.scales}
    is_ours = metadata.sampling_rate == SAMPLE_RATE and min(info.hop, info.min_samples, len(targets)) >= 1
    if not is_ours or info.has_novelty != (ends == known):
        raise InputError(f"{path}: not written by distilmos; {command_for(directory)}")
    if info.weights != weights:
        raise InputError(f"{path}: made for other weights than {directory / WEIGHTS}; {command_for(directory)}")
    return session, info
