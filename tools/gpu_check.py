"""Check encoders, training with its resume, and throughput on a device against the CPU; see gpu_check.sh."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor

from distilmos.data.archive import load_array, read_scp
from distilmos.data.audio import SAMPLE_RATE
from distilmos.data.datadir import Utterance, write_data_dir
from distilmos.data.dump import dump_audio, merge_shards
from distilmos.errors import PREEMPTED, InputError
from distilmos.files import write_json
from distilmos.inference.predict import PredictOptions, score_audio
from distilmos.inference.torch_runtime import TorchRuntime
from distilmos.markdown import markdown_table
from distilmos.model.config import ModelConfig
from distilmos.model.losses import token_loss
from distilmos.model.networks import EncoderNetwork, build_model
from distilmos.model.package import load_model_dir
from distilmos.provenance import commit, machine, machine_text, now
from distilmos.ssl.config import EncoderConfig, WaveformConfig, WhisperConfig
from distilmos.ssl.encoder import SSLEncoder
from distilmos.ssl.families import create_encoder
from distilmos.ssl.forward import choose_device, pad_audio
from distilmos.ssl.load import embedded_names, load_ssl
from distilmos.tokens.features import dump_features
from distilmos.tokens.forward import ForwardOptions
from distilmos.tokens.kmeans import learn_kmeans
from distilmos.tokens.labels import dump_tokens

FLOAT32_BOUND = 1e-4  # relative difference of hidden states between the device and the CPU
BFLOAT16_BOUND = 0.1
# Dropout has other random numbers on another device, so curves agree only roughly.
MOS_BOUND = 0.3
TOKEN_BOUND = 0.99
RESUME_BOUND = 1e-3  # MOS; 0 on a CPU, whereas some sums on a GPU have no fixed order
SSL, CLUSTERS, STEPS = "whisper_tiny_en", 16, 16
SHAPES = ((64, 10, 5), *[(64, 3, 2)] * 4, *[(64, 2, 2)] * 2)
SMALL: dict[str, EncoderConfig] = {
    "HuBERT, group norm": WaveformConfig(SHAPES, False, "group", 96, 192, 4, 3, 32, 4, False, False),
    "wav2vec 2.0, layer norm": WaveformConfig(SHAPES, True, "layer", 96, 192, 4, 3, 32, 4, True, True),
    "WavLM": WaveformConfig(
        SHAPES, False, "group", 96, 192, 4, 3, 32, 4, False, False,
        relative_buckets=32, relative_distance=80, relative_gate=True,
    ),
    "Whisper, 128 bins": WhisperConfig(96, 192, 4, 3, mel_bins=128),
}  # fmt: skip


@dataclass(frozen=True)
class Check:
    """A measured value; `passed` is None for one without a bound."""

    name: str
    value: str
    bound: str
    passed: bool | None


def main() -> int:
    """Run all checks, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", help="device to check (default: cuda)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="results as JSON")
    args = parser.parse_args()
    try:
        device = choose_device(args.device)
    except InputError as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        return 2
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        checks = [*check_encoders(device), *check_training(device, Path(scratch)), *measure_throughput(device)]
    seconds = time.perf_counter() - started
    rows = [[c.name, c.value, c.bound, {True: "ok", False: "FAILED", None: ""}[c.passed]] for c in checks]
    print(machine_text(machine(device)))
    print(markdown_table(["check", "measured", "bound", "result"], rows))
    print(f"{seconds:.0f} s")
    if args.out:
        content = {"machine": machine(device), "commit": commit(), "time": now(), "seconds": seconds}
        write_json(args.out, {**content, "checks": list(map(asdict, checks))})
    return 0 if all(check.passed is not False for check in checks) else 1


def noise(seconds: float, seed: int = 0) -> Tensor:
    """Return white noise, (N,)."""
    random = np.random.default_rng(seed)
    return torch.from_numpy(0.1 * random.standard_normal(round(seconds * SAMPLE_RATE)).astype(np.float32))


@torch.inference_mode()
def check_encoders(device: torch.device) -> list[Check]:
    """Compare the layers of all families with those on the CPU, in float32 and bfloat16."""
    torch.manual_seed(0)
    encoders: dict[str, SSLEncoder] = {name: create_encoder(shape).eval() for name, shape in SMALL.items()}
    encoders |= {name: load_ssl(name) for name in embedded_names()}
    audio, num_samples = pad_audio([noise(seconds, seed) for seed, seconds in enumerate((4.0, 2.5, 1.0))])
    checks = []
    for name, encoder in encoders.items():
        expected, frames = encoder(audio, num_samples)
        moved = encoder.to(device)
        for dtype, bound in ((torch.float32, FLOAT32_BOUND), (torch.bfloat16, BFLOAT16_BOUND)):
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                found, _ = moved(audio.to(device), num_samples.to(device))
            worst = max(
                float((ours[row, :count].float().cpu() - theirs[row, :count]).norm() / theirs[row, :count].norm())
                for ours, theirs in zip(found, expected, strict=True)
                for row, count in enumerate(frames.tolist())
            )
            kind = str(dtype).removeprefix("torch.")
            checks.append(Check(f"{name}: layers, {kind}", f"{worst:.1e}", f"{bound:g}", worst <= bound))
    return checks


def check_training(device: torch.device, work: Path) -> list[Check]:
    """Train on the CPU and on the device; train again with an interruption; compare the dev scores."""
    for name, count, seed in (("train", 24, 1), ("dev", 8, 2)):
        _write_set(work, name, count, seed)
    layers = range(1, load_ssl(SSL).config.num_layers + 1)
    feats, kmeans = work / "feats", work / "kmeans"
    dump_features(ForwardOptions(SSL, work / "raw/train", feats, str(device)), max_frames=2000, seed=1)
    merge_shards(feats, 1)
    for layer in layers:
        learn_kmeans(feats, layer, CLUSTERS, 1, kmeans)
    agreement = []
    for name, where in (("cpu", "cpu"), ("tokens", str(device))):
        for part in ("train", "dev"):
            dump_tokens(ForwardOptions(SSL, work / "raw" / part, work / name / part, where), kmeans)
            merge_shards(work / name / part, 1)
    for layer in layers:
        ours, theirs = (read_scp(work / name / "train" / f"layer{layer}.scp") for name in ("cpu", "tokens"))
        equal = [load_array(ours[utterance]) == load_array(theirs[utterance]) for utterance in ours]
        agreement.append(np.concatenate(equal).mean())
    scores = {}
    for name, where in (("cpu", "cpu"), ("device", str(device)), ("resumed", str(device))):
        command = _training(work, work / "exp" / name, where)
        if name == "resumed":
            interrupt(command, work / "exp" / name)
        _run(*command)
        events = map(json.loads, (work / "exp" / name / "log.jsonl").read_text().splitlines())
        losses = [event["regression"] for event in events if event["event"] == "train"]
        scores[name] = (_dev_scores(work, work / "exp" / name / "final", device), losses)
    worst = float(np.abs(scores["cpu"][0] - scores["device"][0]).max())
    resumed = float(np.abs(scores["device"][0] - scores["resumed"][0]).max())
    first, last = (f"{scores['device'][1][place]:.3f}" for place in (0, -1))
    same = float(min(agreement))
    return [
        Check("tokens that agree with the CPU, worst layer", f"{same:.2%}", f"{TOKEN_BOUND:.1%}", same >= TOKEN_BOUND),
        Check("training: dev scores, device and CPU (MOS)", f"{worst:.2f}", f"{MOS_BOUND:g}", worst <= MOS_BOUND),
        Check("training: dev scores, resumed (MOS)", f"{resumed:.1e}", f"{RESUME_BOUND:g}", resumed <= RESUME_BOUND),
        Check("training: loss, first and last of the log", f"{first}, {last}", "falls", float(last) < float(first)),
    ]


def _write_set(work: Path, name: str, count: int, seed: int) -> None:
    """Write stage 1's output for tones in noise: louder noise means a lower score."""
    random = np.random.default_rng(seed)
    rated = []
    (work / "wav" / name).mkdir(parents=True)
    for number in range(count):
        level = number % 4
        times = np.arange(round(random.uniform(1, 3) * SAMPLE_RATE)) / SAMPLE_RATE
        tone = 0.3 * np.sin(2 * np.pi * random.uniform(150, 250) * times)
        path = work / "wav" / name / f"{name}{number:02d}.wav"
        samples = np.clip(tone + random.normal(0, 0.01 * 3**level, tone.size), -1, 1)
        soundfile.write(path, samples, SAMPLE_RATE)
        rated.append(Utterance(path.stem, path, f"system{level}", 4.5 - level))
    write_data_dir(work / "data" / name, rated)
    dump_audio(work / "data" / name, work / "raw" / name, 1, 1)
    merge_shards(work / "raw" / name, 1)


def _training(work: Path, out: Path, device: str) -> list[Any]:
    settings = {
        "ssl_model": SSL,
        "max_steps": STEPS,
        "warmup_steps": 4,
        "batch_seconds": 12.0,
        "max_seconds": 3.0,
        "eval_every": 8,
        "checkpoint_every": 5,
        "log_every": 2,
        "precision": "float32",
        "encoder_dropout": 0.0,
        "dropout": 0.0,
        "best_metric": "utterance_LCC",
    }
    command: list[Any] = ["train", "--config", Path(__file__).parents[1] / "conf/distilmos.yaml", "--out", out]
    for name in ("train", "dev"):
        command += [f"--{name}", work / "raw" / name, f"--{name}-tokens", work / "tokens" / name]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    return [*command, "--device", device]


def interrupt(command: list[Any], out: Path) -> None:
    """Start a run and send SIGTERM once it has written a checkpoint; exit unless that interrupts it."""
    process = subprocess.Popen(_command(command), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list((out / "checkpoints").glob("*")):
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    if process.returncode != PREEMPTED:
        sys.exit(f"gpu_check: SIGTERM must end the run with status {PREEMPTED}, not {process.returncode}\n{errors}")


def _command(words: list[Any] | tuple[Any, ...]) -> list[str]:
    return [sys.executable, "-m", "distilmos.cli", *map(str, words)]


def _run(*words: Any) -> None:
    done = subprocess.run(_command(words), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"gpu_check: distilmos {words[0]} ended with status {done.returncode}\n{done.stderr}")


def _dev_scores(work: Path, model_dir: Path, device: torch.device) -> np.ndarray:
    runtime = TorchRuntime(load_model_dir(model_dir), device)
    paths = sorted((work / "wav/dev").glob("*.wav"))
    waves = [(path.stem, [soundfile.read(path, dtype="float32")[0]]) for path in paths]
    return np.array([score.mos for score in score_audio(runtime, waves, PredictOptions())])


def measure_throughput(device: torch.device) -> list[Check]:
    """Measure seconds of audio per second: the layers, training steps and prediction of DistilMOS on `SSL`."""
    lengths = [8.0] * (10 if device.type == "cuda" else 2)
    audio, num_samples = pad_audio([noise(seconds, seed) for seed, seconds in enumerate(lengths)])
    batch, counts = audio.to(device), num_samples.to(device)
    torch.manual_seed(0)
    model = build_model(ModelConfig(), load_ssl(SSL), 200).to(device)
    assert isinstance(model, EncoderNetwork)
    model.encoder.conv.requires_grad_(False)
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], 1e-5)
    frames = model.encoder_config.num_frames(batch.shape[1])
    tokens = torch.randint(0, 200, (len(lengths), model.encoder_config.num_layers, frames), device=device)

    def forward() -> None:
        with torch.inference_mode():
            model.encoder(batch, counts)

    def step() -> None:
        prediction = model.train()(batch, counts)
        (prediction.mos.mean() + token_loss(prediction.token_logits, tokens).loss).backward()
        optimizer.step()
        optimizer.zero_grad()

    def predict() -> None:
        waves = ((str(number), [row.numpy()]) for number, row in enumerate(audio))
        list(score_audio(TorchRuntime(model, device), waves, PredictOptions()))

    checks = []
    for name, run in (("layers", forward), ("training", step), ("prediction", predict)):
        for dtype in (torch.float32, torch.bfloat16) if name != "prediction" else (torch.float32,):
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                rate = sum(lengths) / _seconds(run, device)
            label = f"{SSL}, {name}, {str(dtype).removeprefix('torch.')}: seconds of audio per second"
            checks.append(Check(label, f"{rate:.0f}", "", None))
    if device.type == "cuda":
        checks.append(Check("peak GPU memory", f"{torch.cuda.max_memory_allocated(device) / 2**20:.0f} MiB", "", None))
    return checks


def _seconds(run: Callable[[], None], device: torch.device, repeats: int = 3) -> float:
    """Return the shortest time of a call, after two calls to warm up."""
    times = []
    for _ in range(2 + repeats):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        started = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return min(times[2:])


if __name__ == "__main__":
    sys.exit(main())
