"""Forward pass of the encoder, all layers: against the modules of other libraries, and with possible speed-ups.

Shares are relative to the best rate of a 2048 x 2048 matrix product in the same run and the same type.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from checkpoints import write_hubert
from corpus import make_corpus, mixed_lengths
from harness import Goal, Report, Side, parser
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from distilmos.data.audio import SAMPLE_RATE, read_audio
from distilmos.data.packing import pack_by_length
from distilmos.memory import use_huge_pages
from distilmos.ssl.forward import pad_audio
from distilmos.ssl.load import load_ssl
from distilmos.tokens.forward import BATCH_SECONDS
from distilmos.tokens.kmeans import CLUSTERS
from distilmos.tokens.labels import nearest

WHISPER = "whisper_tiny_en"
Sides = dict[str, tuple[str, Callable[[], object]]]  # name -> exact description of the work, the work


def main() -> None:
    """Measure and report."""
    options = parser(__doc__, repeats=3)
    sizes = ("base", "tiny", WHISPER)
    options.add_argument("--size", choices=sizes, default="base", help="HuBERT's size, or an encoder (default: base)")
    options.add_argument("--seconds", type=float, default=120.0, help="seconds of audio (default: 120)")
    args = options.parse_args()
    use_huge_pages()
    with tempfile.TemporaryDirectory() as scratch, torch.inference_mode():
        _compare(Path(scratch), args.size, args.seconds, args.repeats, args.speech)


def _compare(work: Path, size: str, seconds: float, repeats: int, speech: Path | None) -> None:
    if size == WHISPER:
        path, encoder = WHISPER, f"{WHISPER} (4 layers of width 384, 8 M parameters)"
    else:
        path, encoder = str(work / "encoder.pt"), write_hubert(work / "encoder.pt", base=size == "base")
    audio = make_corpus(work / "wav", mixed_lengths(seconds), speech)
    waves = [torch.from_numpy(read_audio(path)) for path in sorted((work / "wav").iterdir())]
    total = sum(map(len, waves)) / SAMPLE_RATE
    packed = pack_by_length([len(wave) for wave in waves], BATCH_SECONDS * SAMPLE_RATE)
    batches = [pad_audio([waves[index] for index in batch]) for batch in packed]
    ours, compiled = load_ssl(path), load_ssl(path)
    compiled.compile_layers()
    report = Report(
        f"forward_{size}",
        "Forward pass of the encoder, all layers",
        f"{audio}; {encoder}, {torch.get_num_threads()} threads.",
    )

    def timed(run: Callable[[], object]) -> Callable[[], dict[str, float]]:
        def measure() -> dict[str, float]:
            started = time.perf_counter()
            run()
            passed = time.perf_counter() - started
            return {"seconds": passed, "audio_per_second": total / passed}

        return measure

    def all_batches(network: Callable[[Tensor, Tensor], object]) -> None:
        for batch in batches:
            network(*batch)

    def in_bfloat16() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            all_batches(ours)

    references = _transformers(waves) if size == WHISPER else _fairseq_and_torchaudio(path, waves, batches)
    sides = {
        **references,
        "distilmos": (f"SSLEncoder in batches of {BATCH_SECONDS:g} padded seconds", lambda: all_batches(ours)),
        "torch.compile": ("the same with compiled transformer layers (--compile)", lambda: all_batches(compiled)),
        "bfloat16": ("SSLEncoder under bfloat16 autocast (--precision bfloat16)", in_bfloat16),
    }
    for _, run in sides.values():
        run()  # warm-up: compilation takes a minute
    report.measure([Side(name, what, timed(run)) for name, (what, run) in sides.items()], repeats)
    with FlopCounterMode(display=False) as counter:
        all_batches(ours)
    for name, dtype in (("distilmos", torch.float32), ("bfloat16", torch.bfloat16)):
        peak = _peak(dtype)
        rate = counter.get_total_flops() / median(run["seconds"] for run in report.runs[name])
        report.facts[f"{name}: share of the peak"] = f"{100 * rate / peak:.0f} % of {peak / 1e9:.0f} GFLOP/s"
    report.facts["tokens that agree between float32 and bfloat16"] = _agreement(ours, batches)
    if size == WHISPER:
        pace = median(run["audio_per_second"] for run in report.runs["distilmos"])
        text = "all layers of whisper_tiny_en: at least 150 s of audio per second"
        report.goals = [Goal(text, f"{pace:.0f} s", pace >= 150)]
    else:
        ratio = median(report.ratio("distilmos"))
        report.goals = [Goal("all layers no slower than fairseq's last one", f"{ratio:.2f} times as fast", ratio >= 1)]
    report.finish()


def _transformers(waves: list[Tensor]) -> Sides:
    """Return transformers' encoder, with the settings of Whisper tiny, as a side."""
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

    encoder = WhisperModel(WhisperConfig()).eval().encoder
    extractor = WhisperFeatureExtractor()

    def run() -> None:
        for wave in waves:
            spectrum = extractor(wave.numpy(), sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
            encoder(spectrum, output_hidden_states=True)

    what = (
        "transformers' encoder of the same size, random weights, one utterance at a time, padded to 30 s as it demands"
    )
    return {"transformers": (what, run)}


def _fairseq_and_torchaudio(path: str, waves: list[Tensor], batches: list[tuple[Tensor, Tensor]]) -> Sides:
    """Return fairseq's module and torchaudio's as sides."""
    theirs, converted = _modules(Path(path))
    last = len(theirs.encoder.layers)
    return {
        "fairseq": (
            "fairseq's module, one utterance at a time, as in simple_kmeans; ONE layer, the last",
            lambda: [
                theirs.extract_features(source=wave[None], padding_mask=None, mask=False, output_layer=last)
                for wave in waves
            ],
        ),
        "torchaudio": (
            "torchaudio's module of the same weights, extract_features, in our batches",
            lambda: [converted.extract_features(*batch) for batch in batches],
        ),
    }


def _modules(checkpoint: Path) -> tuple[Any, Any]:
    """Load fairseq's module and torchaudio's."""
    from fairseq import checkpoint_utils
    from fairseq.data.dictionary import Dictionary
    from torchaudio.models.wav2vec2.utils import import_fairseq_model

    with torch.serialization.safe_globals([Dictionary]):
        models, _, _ = checkpoint_utils.load_model_ensemble_and_task([str(checkpoint)])
    module = models[0].eval()
    return module, import_fairseq_model(module).eval()


def _peak(dtype: torch.dtype, size: int = 2048) -> float:
    """Return the best rate of a matrix product, in floating-point operations per second."""
    left, right = torch.randn(size, size, dtype=dtype), torch.randn(size, size, dtype=dtype)
    times = []
    for _ in range(10):
        started = time.perf_counter()
        left @ right
        times.append(time.perf_counter() - started)
    return 2 * size**3 / min(times)


def _agreement(encoder: torch.nn.Module, batches: list[tuple[Tensor, Tensor]]) -> str:
    """Return the agreement of tokens of the first batch between both types; centroids are frames of the batch."""
    audio, num_samples = batches[0]
    exact, num_frames = encoder(audio, num_samples)
    with torch.autocast("cpu", torch.bfloat16):
        rough, _ = encoder(audio, num_samples)
    shares = []
    for layer, other in zip(exact, rough, strict=True):
        frames = torch.cat([row[:count] for row, count in zip(layer, num_frames.tolist(), strict=True)])
        others = torch.cat([row[:count] for row, count in zip(other.float(), num_frames.tolist(), strict=True)])
        centroids = frames[torch.randperm(len(frames), generator=torch.Generator().manual_seed(0))[:CLUSTERS]]
        shares.append(float((nearest(frames, centroids) == nearest(others, centroids)).float().mean()))
    return f"{100 * min(shares):.1f} to {100 * max(shares):.1f} % of a layer"


if __name__ == "__main__":
    main()
