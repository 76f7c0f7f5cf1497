"""Check a device against the CPU, and measure throughput and memory; see gpu_check.sh."""

from __future__ import annotations

import argparse
import gc
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
import torch.distributed as dist
import torch.multiprocessing as mp
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
from distilmos.training.config import TrainConfig, load_config
from distilmos.training.distributed import World
from distilmos.training.optimizer import make_optimizer

CONF = Path(__file__).parents[1] / "conf"
FLOAT32_BOUND = 1e-4  # relative difference of hidden states between the device and the CPU
BFLOAT16_BOUND = 0.1
# Rounding differs between devices, and a run amplifies it: final scores agree only roughly.
MOS_BOUND = 0.3
TOKEN_BOUND = 0.99
RESUME_BOUND = 1e-3  # MOS; 0 on a CPU, whereas some sums on a GPU have no fixed order
GRADIENT_BOUND = 1e-3  # relative difference of gradients between several processes and one
CURVE_BOUND = 0.1  # mean difference of the logged regression losses (MOS)
SSL, CLUSTERS = "whisper_tiny_en", 16
# Recordings for training, for dev, and steps: as in egs/mini on a GPU, whereas a CPU only shows that the check works.
SIZES = {"cuda": (232, 40, 120), "cpu": (24, 8, 16)}
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
FULL_SHAPES = ((512, 10, 5), *[(512, 3, 2)] * 4, *[(512, 2, 2)] * 2)
RECORDING_SECONDS = 4.0  # of the recordings in the batches that are measured; the mean of BVCC
# Configuration in conf/ -> the shape of its encoder, which gets random weights.
FULL: dict[str, EncoderConfig] = {
    "hubert_base": WaveformConfig(FULL_SHAPES, False, "group", 768, 3072, 12, 12, 128, 16, False, False),
    "wavlm_large": WaveformConfig(
        FULL_SHAPES, False, "layer", 1024, 4096, 16, 24, 128, 16, True, True,
        relative_buckets=320, relative_distance=800, relative_gate=True,
    ),
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
        checks = [
            *check_encoders(device),
            *check_training(device, Path(scratch)),
            *check_processes(device, Path(scratch)),
            *measure_throughput(device),
        ]
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
    train, dev, steps = SIZES[device.type]
    for name, count, seed in (("train", train, 1), ("dev", dev, 2)):
        _write_set(work, name, count, seed)
    layers = range(1, load_ssl(SSL).config.num_layers + 1)
    feats, kmeans = work / "feats", work / "kmeans"
    dump_features(ForwardOptions(SSL, work / "raw/train", feats, str(device)), max_frames=2000, seed=1)
    merge_shards(feats, 1)
    for layer in layers:
        learn_kmeans(feats, layer, CLUSTERS, 1, kmeans)
    for name, where, compiled in (
        ("cpu", "cpu", False),
        ("tokens", str(device), False),
        ("compiled", str(device), True),
    ):
        for part in ("train", "dev"):
            dump_tokens(ForwardOptions(SSL, work / "raw" / part, work / name / part, where, compiled=compiled), kmeans)
            merge_shards(work / name / part, 1)
    agreement = {}
    for name in ("tokens", "compiled"):
        of_layers = []
        for layer in layers:
            ours, theirs = (read_scp(work / which / "train" / f"layer{layer}.scp") for which in ("cpu", name))
            equal = [load_array(ours[utterance]) == load_array(theirs[utterance]) for utterance in ours]
            of_layers.append(np.concatenate(equal).mean())
        agreement[name] = float(min(of_layers))
    scores = {}
    for name, where in (("cpu", "cpu"), ("device", str(device)), ("resumed", str(device))):
        command = _training(work, work / "exp" / name, where, steps)
        if name == "resumed":
            interrupt(command, work / "exp" / name)
        _run(*command)
        events = map(json.loads, (work / "exp" / name / "log.jsonl").read_text().splitlines())
        losses = [event["regression"] for event in events if event["event"] == "train"]
        scores[name] = (_dev_scores(work, work / "exp" / name / "final", device), losses)
    worst = float(np.abs(scores["cpu"][0] - scores["device"][0]).max())
    resumed = float(np.abs(scores["device"][0] - scores["resumed"][0]).max())
    curves = [np.array(scores[name][1]) for name in ("cpu", "device")]
    apart = float(np.abs(curves[0] - curves[1]).mean())
    first, last = (f"{curves[1][place]:.3f}" for place in (0, -1))
    return [
        *(
            Check(
                f"{name} that agree with the CPU, worst layer", f"{same:.2%}", f"{TOKEN_BOUND:.1%}", same >= TOKEN_BOUND
            )
            for name, same in (("tokens", agreement["tokens"]), ("tokens with --compile", agreement["compiled"]))
        ),
        Check("training: losses, device and CPU, mean (MOS)", f"{apart:.3f}", f"{CURVE_BOUND:g}", apart <= CURVE_BOUND),
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
        path = work / "wav" / name / f"{name}{number:03d}.wav"
        samples = np.clip(tone + random.normal(0, 0.01 * 3**level, tone.size), -1, 1)
        soundfile.write(path, samples, SAMPLE_RATE)
        rated.append(Utterance(path.stem, path, f"system{level}", 4.5 - level))
    write_data_dir(work / "data" / name, rated)
    dump_audio(work / "data" / name, work / "raw" / name, 1, 1)
    merge_shards(work / "raw" / name, 1)


def _training(work: Path, out: Path, device: str, steps: int) -> list[Any]:
    settings = {
        "ssl_model": SSL,
        "max_steps": steps,
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
    command: list[Any] = ["train", "--config", CONF / "distilmos.yaml", "--out", out]
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


def check_processes(device: torch.device, work: Path) -> list[Check]:
    """Compare the gradients of two processes that share the device, and of NCCL, with those of one process."""
    alone = _gradients(device, World())
    modes = [("two processes, gloo", "gloo", 2)]
    if device.type == "cuda":
        modes.append(("one process, NCCL", "cpu:gloo,cuda:nccl", 1))
    checks = []
    for name, backend, size in modes:
        out = work / f"gradients_{size}"
        mp.spawn(_process, (size, backend, str(device), out), nprocs=size)
        found = torch.load(out / "gradients.pt", weights_only=True)
        worst = float((found - alone).norm() / alone.norm())
        label = f"gradients: {name}, and without"
        checks.append(Check(label, f"{worst:.1e}", f"{GRADIENT_BOUND:g}", worst <= GRADIENT_BOUND))
    return checks


def _process(rank: int, size: int, backend: str, device: str, out: Path) -> None:
    """Be one of `size` processes that compute the gradients of a batch; the first one writes them to `out`."""
    out.mkdir(exist_ok=True)
    dist.init_process_group(backend, init_method=f"file://{out}/meeting", rank=rank, world_size=size)
    found = _gradients(torch.device(device), World(rank, size))
    on_device = found.to(device)
    dist.all_reduce(on_device)  # with one process, World sums nothing
    if rank == 0:
        torch.save(on_device.cpu() / size, out / "gradients.pt")
    dist.destroy_process_group()


def _gradients(device: torch.device, world: World) -> Tensor:
    """Return all gradients of a batch, of which each process has its share; batch norms see the whole batch."""
    torch.manual_seed(0)
    model = build_model(ModelConfig(dropout=0, encoder_dropout=0), SMALL["HuBERT, group norm"], 16).to(device).train()
    waves = [noise(seconds, seed) for seed, seconds in enumerate((2.0, 1.5, 1.0, 0.5))][world.rank :: world.size]
    audio, num_samples = pad_audio(waves)
    prediction = model(audio.to(device), num_samples.to(device))
    frames = [logits[:, 0].square().sum() for logits in prediction.token_logits]  # a frame that every recording has
    (prediction.mos.square().sum() + torch.stack(frames).sum()).backward()
    world.add_gradients(model.parameters())
    return torch.cat([weight.grad.cpu().flatten() for weight in model.parameters() if weight.grad is not None])


def measure_throughput(device: torch.device) -> list[Check]:
    """Measure training steps, layers and prediction of `SSL` and of the encoders of FULL at the batch sizes of conf/.

    On a CPU, small encoders and batches stand for those of FULL.
    """
    small = {"hubert_base": SMALL["HuBERT, group norm"], "wavlm_large": SMALL["WavLM"]}
    checks = []
    for name, shape in {SSL: load_ssl(SSL).config, **FULL}.items():
        label = f"conf/{name}.yaml"
        config = load_config(CONF / f"{name}.yaml", [] if device.type == "cuda" else ["batch_seconds=30"])
        if device.type == "cpu" and name in small:
            shape, label = small[name], f"{label} with a small encoder"
        checks += _throughput(label, shape, config, device)
        gc.collect()  # the next model needs the memory
    return checks


def _throughput(name: str, shape: EncoderConfig, config: TrainConfig, device: torch.device) -> list[Check]:
    """Measure seconds of audio per second, and the peak memory of the GPU, of DistilMOS with random weights."""
    count = int(config.batch_seconds / RECORDING_SECONDS)
    audio, num_samples = pad_audio([noise(RECORDING_SECONDS, seed) for seed in range(count)])
    batch, counts = audio.to(device), num_samples.to(device)
    torch.manual_seed(0)
    model = build_model(config, shape, 200).to(device)
    assert isinstance(model, EncoderNetwork)
    optimizer = make_optimizer(model, config)
    frames = model.encoder_config.num_frames(batch.shape[1])
    tokens = torch.randint(0, 200, (count, model.encoder_config.num_layers, frames), device=device)

    def step() -> None:
        prediction = model.train()(batch, counts)
        (prediction.mos.mean() + token_loss(prediction.token_logits, tokens).loss).backward()
        optimizer.step()
        optimizer.zero_grad()

    def forward() -> None:
        with torch.inference_mode():
            model.encoder.eval()(batch, counts)

    def predict() -> None:
        waves = ((str(number), [row.numpy()]) for number, row in enumerate(audio))
        list(score_audio(TorchRuntime(model, device), waves, PredictOptions(batch_seconds=config.batch_seconds)))

    checks = []
    for what, run in (("training", step), ("layers", forward), ("prediction", predict)):
        for dtype in (torch.float32, torch.bfloat16) if what != "prediction" else (torch.float32,):
            if device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats(device)
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                rate = count * RECORDING_SECONDS / _seconds(run, device)
            text = f"{rate:.0f} s of audio per second"
            if device.type == "cuda":
                text += f", {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB"
            kind = str(dtype).removeprefix("torch.")
            checks.append(Check(f"{name}, {what}, {kind}, batches of {count * RECORDING_SECONDS:g} s", text, "", None))
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
