"""Run fairseq's own module in place of our encoder, for SSL models that ours does not support (--backend fairseq).

The module computes hidden states for tokens (stages 2 and 4); it is not fine-tuned. Only the encoder of a
model for recognition is used. This needs fairseq, and for a model outside fairseq, such as data2vec, a directory with
the model's code (fairseq's --user-dir). Only then is code executed that is not part of an installed package. fairseq
calls `eval` on some settings of a checkpoint, depending on the model. A checkpoint with a setting that would call
anything is refused.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from distilmos.errors import InputError
from distilmos.ssl.config import count_frames
from distilmos.ssl.encoder import weights_hash
from distilmos.ssl.fairseq import unwrap
from distilmos.ssl.pickles import read_pickle

# Evaluating these calls no function; they cover `[(512,10,5)] + [(512,3,2)] * 4` and every plain name.
_HARMLESS = (
    ast.Expression,
    ast.Constant,
    ast.List,
    ast.Tuple,
    ast.Dict,
    ast.Name,
    ast.Attribute,
    ast.expr_context,
    ast.BinOp,
    ast.operator,
    ast.UnaryOp,
    ast.unaryop,
)
# omegaconf replaces this by another setting. Several in one string could join harmless parts into a call.
_REFERENCE = re.compile(r"\$\{[\w.]+\}")


@dataclass(frozen=True)
class ModuleShape:
    """The shape of a module.

    Attributes:
        num_layers: transformer layers L.
        convolutions: (kernel, stride) of each convolution in the front end.
    """

    num_layers: int
    convolutions: tuple[tuple[int, int], ...]

    def num_frames(self, num_samples: int) -> int:
        """Return the number of frames that the front end computes from `num_samples` samples."""
        return count_frames(self.convolutions, num_samples)


class FairseqModule(nn.Module):
    """A speech model of fairseq with a convolutional front end and transformer layers."""

    def __init__(self, module: nn.Module, normalize: bool) -> None:
        """Wrap `module`; `normalize` tells whether to normalise waveforms first.

        Raises:
            InputError: if it has no front end or no layers where fairseq's speech models have them.
        """
        super().__init__()
        self.module = module
        self.normalize = normalize
        front = getattr(module, "feature_extractor", None)
        layers = getattr(getattr(module, "encoder", None), "layers", None)
        if not isinstance(front, nn.Module) or not isinstance(layers, nn.ModuleList):
            raise InputError(f"{type(module).__name__} has no feature_extractor and encoder.layers")
        convolutions = [part for part in front.modules() if isinstance(part, nn.Conv1d)]
        shapes = tuple((part.kernel_size[0], part.stride[0]) for part in convolutions)
        self.layers = layers
        self.config = ModuleShape(len(layers), shapes)

    def fingerprint(self) -> str:
        """Return a hash of the weights."""
        return weights_hash(self.module)

    @torch.no_grad()
    def forward(self, audio: Tensor, num_samples: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the hidden states of all layers as `SSLEncoder` does; recordings are computed one at a time.

        Raises:
            InputError: if the number of frames differs between a layer and the front end.
        """
        alone = [
            self._layers(row[:length], self.config.num_frames(length))
            for row, length in zip(audio, num_samples.tolist(), strict=True)
        ]
        layers = [pad_sequence(list(states), batch_first=True) for states in zip(*alone, strict=True)]
        return layers, torch.tensor([len(states[0]) for states in alone], device=audio.device)

    def _layers(self, audio: Tensor, frames: int) -> list[Tensor]:
        """Return the outputs of all layers, each (T, D), for one waveform (N,)."""
        if self.normalize:
            audio = nn.functional.layer_norm(audio, audio.shape)
        outputs: dict[int, Tensor] = {}

        def keep(number: int) -> Any:
            def hook(module: nn.Module, arguments: Any, output: Any) -> None:
                outputs[number] = output[0] if isinstance(output, tuple) else output

            return hook

        hooks = [layer.register_forward_hook(keep(number)) for number, layer in enumerate(self.layers)]
        try:
            self.module(source=audio[None], padding_mask=None, mask=False, features_only=True)
        finally:
            for handle in hooks:
                handle.remove()
        states = []
        for number in range(len(self.layers)):
            # (T, 1, D); fairseq may have padded T to a multiple, with masked frames.
            found = outputs.get(number)
            if found is None or found.ndim != 3 or not frames <= found.shape[0] <= frames + 1:
                shape = None if found is None else tuple(found.shape)
                raise InputError(f"layer {number + 1} gives states of shape {shape} for {frames} frames")
            states.append(found[:frames, 0])
        return states


def load_fairseq_module(path: str | Path, user_dir: str | Path | None = None) -> FairseqModule:
    """Load a checkpoint with fairseq itself, in evaluation mode.

    Args:
        path: the checkpoint.
        user_dir: directory with the code of a model that is not part of fairseq.

    Raises:
        InputError: if the checkpoint holds code, fairseq cannot load it, or the model is not a speech encoder.
    """
    from fairseq import checkpoint_utils, tasks
    from fairseq.data.dictionary import Dictionary
    from fairseq.utils import import_user_module
    from omegaconf import OmegaConf

    state = read_pickle(Path(path), [Dictionary, argparse.Namespace])
    if not isinstance(state, dict):
        raise InputError(f"{path}: holds {type(state).__name__}, not a fairseq checkpoint")
    for section in ("cfg", "args"):
        _refuse_code(state.get(section), section, path)
    if not isinstance(state.get("model"), dict):
        raise InputError(f"{path}: has no 'model'; use a checkpoint that fairseq wrote")
    state, wrapped = unwrap(state, str(path))
    if user_dir is not None:
        import_user_module(argparse.Namespace(user_dir=str(user_dir)))
    try:
        # As in checkpoint_utils.load_checkpoint_to_cpu, which would read the file again.
        if state.get("cfg") is not None:
            state["cfg"] = OmegaConf.create(state["cfg"], flags={"allow_objects": True})
        state = checkpoint_utils._upgrade_state_dict(state)
        config = state["cfg"]
        # As in checkpoint_utils.load_model_ensemble_and_task, which would also create data2vec's teacher: only training
        # needs it, and copying it fails with current PyTorch versions.
        with _no_other_checkpoint():
            task = tasks.setup_task(config.task, from_checkpoint=True)
            task.load_state_dict(state.get("task_state") or {})
            module = task.build_model(config.model, from_checkpoint=True)
        weights = {name: value for name, value in state["model"].items() if name != "_ema"}
        if wrapped:
            module.remove_pretraining_modules()
        module.load_state_dict(weights, strict=True, model_cfg=config.model)
    except Exception as error:  # fairseq and its models raise many types
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{path}: fairseq cannot load it: {reason}") from None
    try:
        return FairseqModule(module.eval(), bool(getattr(config.task, "normalize", False)))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _refuse_code(settings: Any, name: str, path: str | Path) -> None:
    """Raise InputError if `eval` of any string in the settings called `name` would call something."""
    if isinstance(settings, argparse.Namespace):
        settings = vars(settings)
    if isinstance(settings, dict):
        for key, value in settings.items():
            _refuse_code(value, f"{name}.{key}", path)
    elif isinstance(settings, list | tuple):
        for value in settings:
            _refuse_code(value, name, path)
    elif isinstance(settings, str):
        if not _is_harmless(settings):
            raise InputError(f"{path}: refused: the setting {name} is code: {settings[:80]!r}")
    elif settings is not None and not isinstance(settings, bool | int | float):
        raise InputError(f"{path}: refused: the setting {name} is {type(settings).__name__}, not a plain value")


def _is_harmless(text: str) -> bool:
    """Return whether `eval(text)` fails, or yields names and values without calling anything."""
    if "${" in text:
        return _REFERENCE.fullmatch(text) is not None
    try:
        tree = ast.parse(text.lstrip(" \t"), mode="eval")  # eval strips these and no other characters
    except (SyntaxError, ValueError):
        return True
    except (RecursionError, MemoryError):
        return False
    return all(isinstance(node, _HARMLESS) for node in ast.walk(tree))


@contextmanager
def _no_other_checkpoint() -> Iterator[None]:
    """Keep fairseq from reading another checkpoint that this one names: its settings would be evaluated unchecked.

    Models that need another one wrap a model and have no layers themselves.
    """
    from fairseq import checkpoint_utils

    def refuse(path: str, *_: Any, **__: Any) -> None:
        raise InputError(f"its model is spread over several files, the next one is {path}")

    original, checkpoint_utils.load_checkpoint_to_cpu = checkpoint_utils.load_checkpoint_to_cpu, refuse
    try:
        yield
    finally:
        checkpoint_utils.load_checkpoint_to_cpu = original
