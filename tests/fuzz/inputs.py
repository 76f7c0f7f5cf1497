"""Small valid inputs of every reader, in memory; each function returns a list of them."""

from __future__ import annotations

import argparse
import io
import json
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import kaldiio
import numpy as np
import soundfile
import torch
import yaml
from helpers import corpora
from helpers.ctranslate import model_bin
from helpers.recipes import EGS
from helpers.released import GOLDEN
from helpers.shapes import SMALL as SHAPE

from distilmos.model.calibration import CalibratedTarget, Calibration, add_calibrations
from distilmos.model.config import ModelConfig
from distilmos.model.networks import build_model
from distilmos.model.onnx_export import export_onnx
from distilmos.model.package import save_model_dir
from distilmos.ssl.config import WaveformConfig, WhisperConfig
from distilmos.ssl.store import save_encoder
from distilmos.ssl.waveform import WaveformEncoder
from distilmos.ssl.whisper import sinusoids
from distilmos.ssl.whisper_formats import OPENAI, TRANSFORMERS, WhisperNames
from distilmos.training.checkpoint import Checkpoint, Evaluation, TrainState, save_checkpoint

from .mutations import Files

CONF = EGS.parent / "conf"
# libsndfile's format and subtype, and the rate. The formats of which every subtype has a reader of its own come first.
FORMATS = {
    "wav": [("WAV", "PCM_16", 16000), ("WAV", "FLOAT", 44100), ("WAV", "ULAW", 8000), ("WAV", "IMA_ADPCM", 16000)],
    "wavex": [
        ("WAVEX", "PCM_24", 16000),
        ("WAV", "MS_ADPCM", 16000),
        ("WAV", "GSM610", 8000),
        ("WAV", "DOUBLE", 16000),
    ],
    "rf64": [("RF64", "PCM_16", 16000)],
    "w64": [("W64", "PCM_16", 16000)],
    "flac": [("FLAC", "PCM_16", 16000), ("FLAC", "PCM_24", 48000)],
    "ogg": [("OGG", "VORBIS", 16000), ("OGG", "OPUS", 48000)],
    "mp3": [("MP3", "MPEG_LAYER_III", 16000), ("MP3", "MPEG_LAYER_III", 44100)],
    "aiff": [("AIFF", "PCM_16", 16000), ("AIFF", "FLOAT", 16000)],
    "au": [("AU", "PCM_16", 16000), ("AU", "ULAW", 8000), ("AU", "G721_32", 8000)],
    "caf": [("CAF", "PCM_16", 16000), ("CAF", "ALAC_16", 16000)],
    "sph": [("NIST", "PCM_16", 16000), ("NIST", "ULAW", 8000)],
    "other": [
        *[(name, "PCM_16", 16000) for name in ("AVR", "HTK", "SVX", "MAT4", "MAT5", "MPC2K", "PAF", "PVF")],
        *[("IRCAM", "PCM_16", 16000), ("VOC", "PCM_16", 16000), ("WVE", "ALAW", 8000), ("XI", "DPCM_16", 44100)],
    ],
}


def sound(form: str = "WAV", subtype: str = "PCM_16", rate: int = 16000, channels: int = 1) -> bytes:
    """Return a tenth of a second of a tone."""
    tone = 0.3 * np.sin(np.arange(rate // 10) * 0.1)
    stream = io.BytesIO()
    soundfile.write(stream, np.stack([tone] * channels, axis=1), rate, subtype, format=form)
    return stream.getvalue()


def audio(kind: str) -> list[Files]:
    """Return a recording of each subtype of a format."""
    made = [sound(*each) for each in FORMATS[kind]]
    if kind == "wav":
        made.append(sound(channels=2))
    if kind == "ogg":
        made.append(made[0] + made[0])  # chained
    if kind == "mp3":
        made.append(b"ID3\4\0\0\0\0\0\x0a" + b"\0" * 10 + made[0])
    return [{"a": data} for data in made]


def archived_audio() -> list[Files]:
    """Return scp files with recordings in archives, as kaldiio writes them."""
    found = []
    for form in (None, "flac", "wav"):
        stream = io.BytesIO()
        tone = (9000 * np.sin(np.arange(1600) * 0.1)).astype(np.int16)
        if form is None:
            kaldiio.save_ark(stream, {"u": (16000, tone)})
        else:
            packed = sound(form.upper())
            stream.write(b"u AUDIO\2" + len(packed).to_bytes(2, "little") + packed)
        found.append({"wav.ark": stream.getvalue(), "wav.scp": b"u wav.ark:2\n"})
    return found


def lists() -> list[Files]:
    """Return a wav.scp and lists of paths, with their audio."""
    wav = sound()
    named = {"wav.scp": b"a a.wav\nb sub/b.wav\n", "list.txt": b"a.wav\nsub/b.wav\n"}
    named |= {"list.csv": b'path,mos\na.wav,3\n"sub/b.wav",4\n', "list.tsv": b"mos\tpath\n3\ta.wav\n"}
    return [{**named, "a.wav": wav, "sub/b.wav": wav}]


def containers() -> list[Files]:
    """Return files of the formats that ffmpeg decodes, with the sizes that `distilmos.data.ffmpeg` follows."""

    def box(name: bytes, content: bytes) -> bytes:
        return (8 + len(content)).to_bytes(4, "big") + name + content

    def item(name: str, content: bytes) -> bytes:
        return bytes.fromhex(name) + content

    mp4 = box(b"ftyp", b"M4A \0\0\2\0") + box(b"moov", box(b"mvhd", bytes(20))) + box(b"mdat", bytes(40))
    large = (1).to_bytes(4, "big") + b"mdat" + (32).to_bytes(8, "big") + bytes(16)
    cluster = item("1f43b67501ffffffffffffff", b"\xe7\x81\0" + b"\xa3\x8a" + bytes(10))
    matroska = item("1a45dfa3", b"\x84" + bytes(4)) + item("1853806701ffffffffffffff", cluster)
    asf = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + (40).to_bytes(8, "little") + bytes(16)
    asf += bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c") + (80).to_bytes(8, "little") + bytes(56)
    frame = bytes.fromhex("fff150800201fc") + bytes(9)
    found = (mp4, mp4 + large, matroska, asf, 4 * frame, b"ID3\4\0\0\0\0\0\3abc" + 4 * frame)
    return [{"a": content} for content in found]


def data_directory(rated: bool = True) -> Files:
    """Return a data directory of four utterances with all tables."""
    names = ("u1", "u2", "u3", "u4")
    files = {f"{name}.wav": sound() for name in names}
    tables: dict[str, list[str]] = {
        "wav.scp": [f"{name} {name}.wav" for name in names],
        "utt2sys": ["u1 s1", "u2 s1", "u3 s2", "u4 s2"],
        "utt2dur": [f"{name} 0.1" for name in names],
        "utt2spk": [f"{name} ann" for name in names],
        "utt2sent": [f"{name} x{name}" for name in names],
        "utt2corpus": [f"{name} here" for name in names],
        "text": ["u1 call me", "u2 h\u00e9 \u4f60"],
        "sys2group": ["s1 clean", "s2 noise"],
        "notes": ["The ratings are simulated."],
    }
    if rated:
        tables["utt2mos"] = ["u1 4", "u2 3.5", "u3 2", "u4 1"]
        tables["sys2mos"] = ["s1 3.75", "s2 1.5"]
        tables["ratings"] = ["u1 l1 5", "u1 l2 3", "u2 l1 4", "u2 l2 3", "u4 l1 1"]
        tables["controls"] = [
            "l1 gold g.wav 5 4 6",
            "l1 reference x 4.7 4.6 5",
            "l2 anchor x 2 1 4.6",
            "l3 trapping t 2 2 2",
        ]
    return files | {name: "".join(f"{line}\n" for line in lines).encode() for name, lines in tables.items()}


def data_directories() -> list[Files]:
    """Return a rated and an unrated data directory, next to a list of utterances and one of labels."""
    found = []
    for rated in (True, False):
        files = {f"data/{name}": content for name, content in data_directory(rated).items()}
        # Their paths are relative to the working directory.
        files["data/wav.scp"] = b"".join(b"u%d data/u%d.wav\n" % (n, n) for n in range(1, 5))
        lists = {"list": b"u1\nu3\n", "systems": b"s2\n", "labels": b"u1 red\nu2 blue\nu3 red\nu4 blue\n"}
        found.append(files | lists)
    return found


def exports() -> list[Files]:
    """Return exports of listening tests in all formats, with their recordings."""
    mushra = "session_test_id,age,session_uuid,trial_id,rating_stimulus,rating_score,rating_time,rating_comment\n"
    mushra += 't,30,p1,wav,a,50,9,"one\ntwo"\nt,30,p1,wav,reference,95,9,\nt,31,p2,wav,anchor70,20,9,\n'
    answers = "WorkerId,Input.tp,Input.tp_ans,Input.gold_url,Input.gold_ovrl_ans,"
    answers += "Answer.q1_url,Answer.q1,Answer.q2_url,Answer.q2\n"
    answers += "W1,http://x/t.wav,2,http://x/g.wav,aHR0cDovL3gvZy53YXZfNA==,http://wav/a.wav,4,http://x/g.wav,5\n"
    answers += "W2,http://x/t.wav,2,http://x/g.wav,aHR0cDovL3gvZy53YXZfNA==,wav/b.wav,1,http://x/t.wav,2\n"
    beaqle = [
        {
            "TestID": "1",
            "Runtime": 3,
            "rating": {"Reference": 100, "1": 20},
            "filename": {"Reference": "a.wav", "1": "b.wav"},
        },
        {"UserName": "ann", "UserEmail": ""},
    ]
    urgent = [{"audio_path": f"/db/{n}.wav", "system_id": "s", "metrics": {"mos": 3.5, "pesq": 2}} for n in "ab"]
    texts = {
        "mushra.csv": mushra,
        "lss.csv": "session_test_id,name,trial_id,stimuli_rating1,stimuli_rating2,stimuli\nt,bo,wav,3,4,a\n",
        "answers.csv": answers,
        "beaqle.txt": json.dumps(beaqle),
        "votes.csv": "HITId,workerid,file,vote,question_type\nh,W1,a.wav,3,MOS_OVRL\nh,W1,a.wav,4,MOS_SIG\n",
        "clips.csv": "file_url,n,MOS,std,95%CI,vote_1\na.wav,2,3.5,0.7,0.9,3\nb.wav,1,2,,,2\n",
        "bench.csv": "wav_path,score,system_id,sample_id,listener_id\n/d/a.wav,3,s,a,L1\n/d/a.wav,4,s,a,L2\n",
        "urgent.jsonl": "".join(f"{json.dumps(line)}\n" for line in urgent),
        "plain.tsv": "listener\tfile\tscore\tsystem\nl1\ta.wav\t5\ts1\nl2\tb.wav\t1\ts2\n",
    }
    places = {"places.csv": "stimulus,file\na.wav,wav/a.wav\n"}
    places["places.yaml"] = "pages:\n- - random\n  - {id: wav, reference: x/b.wav, stimuli: {a: wav/a.wav}}\n"
    audio = {"db/wav/a.wav": sound(), "db/wav/b.wav": sound()}
    named = {name: text.encode() for name, text in places.items()}
    return [{name: text.encode(), **named, **audio} for name, text in texts.items()]


def segmented() -> list[Files]:
    """Return a data directory with segments."""
    tables = data_directories()[0]
    tables["data/wav.scp"] = b"q data/u2.wav\nr data/u1.wav\n"
    tables["data/segments"] = b"u1 r 0 0.05\nu2 r 0.05 0.1\nu3 q 0 0.1\nu4 q 0.02 0.08\n"
    return [tables]


def training_configs() -> list[Files]:
    """Return the training configurations of the repository."""
    named = {path.name: path.read_bytes() for path in CONF.glob("*.yaml")}
    own = b"base: base.yaml\nmodel: distilmos\nkernels: [5, 3]\nstrides: [1, 1]\ncorpus_weights: {a: 1.5}\n"
    return [
        {
            "config.yaml": own,
            "base.yaml": b"seed: 3\nmax_steps: 100\nwarmup_steps: 10\n",
            "set": b"seed=4\nkernels=[3]\nstrides=[1]\n",
        },
        *({"config.yaml": content, **named, "set": b"dropout=0.2\n"} for content in named.values()),
    ]


def site_confs() -> list[Files]:
    """Return the configurations of the schedulers."""
    return [{"site.conf": path.read_bytes()} for path in sorted(CONF.glob("*.conf"))]


# Encoders and models


@cache
def _released(kind: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return weights and settings of a small released model."""
    folder = GOLDEN / f"official_{kind}_small"
    weights = torch.load(folder / "model.pth.tar", weights_only=True)["model"]
    return weights, yaml.safe_load((folder / "model_cfg.yaml").read_text())


def _of_encoder(kind: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix("ssl."): value for name, value in _released(kind)[0].items() if name.startswith("ssl.")}


def _saved(content: Any, zipped: bool = True) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def released_models() -> list[Files]:
    """Return the authors' models."""
    return [
        {"model.pth.tar": _saved({"model": weights}), "model_cfg.yaml": yaml.safe_dump(settings).encode()}
        for weights, settings in map(_released, ("w2v2", "wavlm"))
    ]


def microsoft_checkpoints() -> list[Files]:
    """Return a WavLM in Microsoft's format."""
    settings = {**_released("wavlm")[1]["wavlm_cfg"], "normalize": False, "encoder_layerdrop": 0.05}
    return [{"x.pt": _saved({"cfg": settings, "model": _of_encoder("wavlm")})}]


def fairseq_checkpoints() -> list[Files]:
    """Return checkpoints of HuBERT and wav2vec 2.0: in the newer, the older and s3prl's format, and fine-tuned ones."""
    relative = ("grep_", "relative_attention_bias")
    weights = {
        name: value for name, value in _of_encoder("wavlm").items() if not any(part in name for part in relative)
    }
    shape = _released("wavlm")[1]["wavlm_cfg"]
    model = {key: shape[key] for key in shape if key.startswith(("conv", "encoder"))} | {"layer_norm_first": False}
    task = {"_name": "hubert_pretraining", "normalize": False, "data": "x"}
    cfg = {"model": {"_name": "hubert", **model}, "task": task, "criterion": {"_name": "hubert", "weights": [10.0]}}
    step = {"criterion_name": "x", "optimizer_name": "x", "lr_scheduler_state": {}, "num_updates": 0}
    extra = {"optimizer_history": [step], "extra_state": {"train_iterator": {"epoch": 1}}, "task_state": {}}
    old = argparse.Namespace(arch="wav2vec2", task="audio_pretraining", normalize=True, **model)
    inner = {f"w2v_model.{name}": value for name, value in weights.items()}
    projection = {"proj.weight": torch.ones(3, 8), "proj.bias": torch.ones(3)}
    ctc = {"_name": "hubert_ctc", "w2v_path": "x.pt", "normalize": False, "w2v_args": cfg}
    seq2seq = argparse.Namespace(arch="wav2vec_seq2seq", task="audio_finetuning", w2v_path="x.pt", w2v_args=old)
    fine_tuned = (
        ({"cfg": {"model": ctc, "task": task}, "args": None}, "w2v_encoder."),
        ({"args": seq2seq}, "encoder."),
    )
    return [
        {"x.pt": _saved({"cfg": cfg, "args": None, "model": weights, **extra})},
        {"x.pt": _saved({"args": old, "model": weights, **extra}, zipped=False)},
        *(
            {"x.pt": _saved({**settings, "model": {prefix + name: v for name, v in (inner | projection).items()}})}
            for settings, prefix in fine_tuned
        ),
        {"x.pt": _saved({"model_cfg": cfg["model"], "task_cfg": task, "model_weight": weights})},
    ]


WHISPER = WhisperConfig(embed_dim=8, ffn_dim=32, num_heads=2, num_layers=2, mel_bins=16, max_frames=10)


def _whisper_weights(names: WhisperNames) -> dict[str, torch.Tensor]:
    """Return the weights of an encoder of the shape WHISPER under the names of a library."""
    width, inner = WHISPER.embed_dim, WHISPER.ffn_dim
    shapes = {"conv1": (width, WHISPER.mel_bins, 3), "conv2": (width, width, 3), names.norm: (width,)}
    for index in range(WHISPER.num_layers):
        layer = names.layer.format(index)
        shapes |= {layer + part: (width, width) for part in (names.query, names.key, names.value, names.out)}
        shapes |= {layer + names.ffn_in: (inner, width), layer + names.ffn_out: (width, inner)}
        shapes |= {layer + part: (width,) for part in (names.attention_norm, names.ffn_norm)}
    weights = {names.positions: sinusoids(WHISPER.max_frames, width)}
    for name, shape in shapes.items():
        weights[f"{name}.weight"] = torch.full(shape, 0.1)
        if not name.endswith(names.key):
            weights[f"{name}.bias"] = torch.full(shape[:1], 0.1)
    return {names.prefixes[-1] + name: value for name, value in weights.items()}


def openai_checkpoints() -> list[Files]:
    """Return a Whisper in OpenAI's format."""
    sizes = {"n_mels": WHISPER.mel_bins, "n_audio_ctx": WHISPER.max_frames, "n_audio_state": WHISPER.embed_dim}
    sizes |= {"n_audio_head": WHISPER.num_heads, "n_audio_layer": WHISPER.num_layers, "n_vocab": 60}
    weights = {**_whisper_weights(OPENAI), "decoder.ln.weight": torch.ones(8)}
    return [{"x.pt": _saved({"dims": sizes, "model_state_dict": weights}, zipped)} for zipped in (True, False)]


def whisper_directories() -> list[Files]:
    """Return a Whisper in the format of transformers, as safetensors and as a pickle."""
    from safetensors.torch import save

    sizes = {"d_model": WHISPER.embed_dim, "encoder_ffn_dim": WHISPER.ffn_dim, "num_mel_bins": WHISPER.mel_bins}
    sizes |= {"encoder_attention_heads": WHISPER.num_heads, "encoder_layers": WHISPER.num_layers}
    config = {"model_type": "whisper", **sizes, "max_source_positions": WHISPER.max_frames}
    weights = _whisper_weights(TRANSFORMERS)
    files = {"config.json": json.dumps(config).encode()}
    return [files | {"model.safetensors": save(weights)}, files | {"pytorch_model.bin": _saved(weights)}]


def whisper_binaries() -> list[Files]:
    """Return a Whisper in CTranslate2's format: model.bin, and a wheel with it."""
    stored = {name.removeprefix("encoder."): value.numpy() for name, value in _whisper_weights(OPENAI).items()}
    layers = range(WHISPER.num_layers)
    zeros = np.zeros(WHISPER.embed_dim, np.float32)
    arrays = {
        "encoder/num_heads": np.array(WHISPER.num_heads, np.int8),
        "encoder/position_encodings/encodings": stored[OPENAI.positions],
        **{f"encoder/{n}/{part}": stored[f"{n}.{part}"] for n in ("conv1", "conv2") for part in ("weight", "bias")},
    }
    for source, target in ((OPENAI.layer.format(index), f"encoder/layer_{index}") for index in layers):
        projections = [source + part for part in (OPENAI.query, OPENAI.key, OPENAI.value)]
        for part in ("weight", "bias"):
            joined = np.concatenate([stored.get(f"{name}.{part}", zeros) for name in projections])
            arrays[f"{target}/self_attention/linear_0/{part}"] = joined
            linear = {
                OPENAI.out: "self_attention/linear_1",
                OPENAI.ffn_in: "ffn/linear_0",
                OPENAI.ffn_out: "ffn/linear_1",
            }
            arrays |= {f"{target}/{theirs}/{part}": stored[f"{source}{ours}.{part}"] for ours, theirs in linear.items()}
        for ours, theirs in ((OPENAI.attention_norm, "self_attention"), (OPENAI.ffn_norm, "ffn")):
            for part, name in (("weight", "gamma"), ("bias", "beta")):
                arrays[f"{target}/{theirs}/layer_norm/{name}"] = stored[f"{source}{ours}.{part}"]
    model = model_bin(arrays)
    return [{"model.bin": model}, {"x.zip": _zip({"x/model.bin": model, "x/tokenizer.json": b"{}"})}]


def fairseq_modules() -> list[Files]:
    """Return a checkpoint that fairseq itself loads."""
    from fairseq.models.wav2vec import Wav2Vec2Config, Wav2Vec2Model

    torch.manual_seed(0)
    model = {
        **SHAPE,
        "conv_feature_layers": "[(8,10,5)] + [(8,3,2)] * 4 + [(8,2,2)] * 2",
        "latent_vars": 4,
        "latent_groups": 2,
    }
    weights = Wav2Vec2Model(Wav2Vec2Config(**model)).state_dict()
    task = {"_name": "audio_pretraining", "data": "x", "normalize": False}
    step = {"criterion_name": "x", "optimizer_name": "x", "lr_scheduler_state": {}, "num_updates": 0}
    content = {"cfg": {"model": {"_name": "wav2vec2", **model}, "task": task}, "args": None, "model": weights}
    extra = {"optimizer_history": [step], "extra_state": {"train_iterator": {"epoch": 1}}, "task_state": {}}
    return [{"x.pt": _saved(content | extra)}]


def transformers_directories() -> list[Files]:
    """Return directories of transformers: one file of safetensors, one pickle, and shards with an index."""
    from safetensors.torch import save

    settings = {**_released("w2v2")[1]["w2v2_cfg"], "model_type": "wav2vec2", "architectures": ["Wav2Vec2Model"]}
    weights = {name: value.contiguous() for name, value in _of_encoder("w2v2").items()}
    config = {
        "config.json": json.dumps(settings).encode(),
        "preprocessor_config.json": json.dumps({"do_normalize": True, "sampling_rate": 16000}).encode(),
    }
    names = sorted(weights)
    index: dict[str, Any] = {"metadata": {"total_size": 1}, "weight_map": {}}
    shards: Files = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        shard = f"model-0000{number}-of-00002.safetensors"
        shards[shard] = save({name: weights[name] for name in part}, {"format": "pt"})
        index["weight_map"] |= dict.fromkeys(part, shard)
    return [
        config | {"model.safetensors": save(weights, {"format": "pt"})},
        config | {"pytorch_model.bin": _saved(weights)},
        config | shards | {"model.safetensors.index.json": json.dumps(index).encode()},
    ]


SMALL = WaveformConfig(
    conv_layers=((8, 10, 5), *[(8, 3, 2)] * 4, *[(8, 2, 2)] * 2),
    conv_bias=False,
    conv_norm="group",
    embed_dim=8,
    ffn_dim=8,
    num_heads=2,
    num_layers=2,
    pos_kernel=4,
    pos_groups=2,
    norm_first=False,
    normalize_input=False,
)


@cache
def _encoder() -> WaveformEncoder:
    torch.manual_seed(0)
    return WaveformEncoder(SMALL).eval()


def written(write: Callable[[Path], object]) -> Files:
    """Return the files that `write` writes into a directory."""
    with tempfile.TemporaryDirectory() as root:
        write(Path(root))
        paths = (path for path in Path(root).rglob("*") if path.is_file())
        return {str(path.relative_to(root)): path.read_bytes() for path in sorted(paths)}


def own_encoders() -> list[Files]:
    """Return encoders in our own format."""
    return [
        written(lambda root, half=half: save_encoder(_encoder(), root / "x.safetensors", half=half)) for half in (0, 1)
    ]


def model_directories() -> list[Files]:
    """Return model directories of all three networks."""
    kinds = (
        ModelConfig(hidden_dim=8, kernels=(3,), strides=(1,)),
        ModelConfig(model="sslmos"),
        ModelConfig(model="spectral", hidden_dim=8, kernels=(3,), strides=(1,), spectral_dim=4),
    )
    target = CalibratedTarget(name="MOS", scale=(0, 100), range=(1, 5), coefficients=[50.0, 40.0, 0.0, 1.0])
    calibration = Calibration(name="test", model="0123", data="test", utterances=50, targets=[target])
    written_models = [
        written(lambda root, kind=kind: save_model_dir(root, build_model(kind, SMALL, 5, ("a", "b")), {"seed": 1}))
        for kind in kinds
    ]
    return [files | written(lambda root: add_calibrations(root, [calibration])) for files in written_models]


def onnx_directories() -> list[Files]:
    """Return a model directory with its graph."""
    (files,) = model_directories()[1:2]

    def write(root: Path) -> None:
        for name, content in files.items():
            (root / name).write_bytes(content)
        export_onnx(root)

    return [written(write)]


def training_checkpoints() -> list[Files]:
    """Return a checkpoint of a run."""
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    optimizer.step()
    state = TrainState(step=5, epoch=1, best=[Evaluation(5, 0.5, 0.1)], sums={"loss": 1.0}, log_bytes=10)
    identity = {"seed": 1, "kernels": [3], "train": {"dir": "x", "hash": "y"}}
    checkpoint = Checkpoint(identity, 2, state, {"w": parameter.detach()}, optimizer.state_dict())
    return [written(lambda root: save_checkpoint(root / "last.pt", checkpoint))]


# Features, k-means and tokens


def _ark(values: dict[str, np.ndarray], path: str, **options: Any) -> Files:
    stream = io.BytesIO()
    lines = []
    for name, value in values.items():
        lines.append(f"{name} {path}.ark:{stream.tell() + len(name) + 1}\n")
        kaldiio.save_ark(stream, {name: value}, **options)
    return {f"{path}.ark": stream.getvalue(), f"{path}.scp": "".join(lines).encode()}


def _info(clusters: int) -> bytes:
    values = {"ssl": "hubert_tiny", "fingerprint": "0123", "layers": 2, "clusters": clusters, "kmeans": ""}
    return json.dumps(values, indent=2).encode()


def features() -> list[Files]:
    """Return features of two layers: of single and double precision, and compressed."""
    random = np.random.default_rng(0)
    found = []
    for dtype, options in (("float32", {}), ("float64", {}), ("float32", {"compression_method": 3})):
        values = {name: random.standard_normal((6, 3)).astype(dtype) for name in ("u1", "u2")}
        files = _ark(values, "layer1", **options) | _ark(values, "layer2", **options)
        found.append(files | {"info.json": _info(0)})
    return found


def kmeans() -> list[Files]:
    """Return k-means of two layers."""
    files: Files = {"info.json": _info(4)}
    for layer in (1, 2):
        stream = io.BytesIO()
        np.save(stream, np.arange(12, dtype=np.float32).reshape(4, 3))
        quality = {"layer": layer, "clusters": 4, "frames": 12, "inertia_per_frame": 0.5, "explained_variance": 0.9}
        quality |= {"empty": 0, "tiny": 1, "perplexity": 3.5, "iterations": 7}
        files[f"layer{layer}.npy"] = stream.getvalue()
        files[f"layer{layer}.json"] = json.dumps(quality).encode()
    return [files]


def tokens() -> list[Files]:
    """Return token ids of two layers."""
    values = {"u1": np.array([0, 3, 1], np.int32), "u2": np.array([2, 2], np.int32)}
    return [_ark(values, "layer1") | _ark(values, "layer2") | {"info.json": _info(4)}]


def pooled() -> list[Files]:
    """Return the pooled layers of two utterances."""
    values = {name: np.ones((2, 6), np.float32) for name in ("u1", "u2")}
    return [_ark(values, "pooled") | {"info.json": _info(0)}]


def shards() -> list[Files]:
    """Return the shards of two jobs."""
    files: Files = {}
    for job in (1, 2):
        values = {f"u{job}": np.ones((3, 2), np.float32)}
        files |= _ark(values, f"shards/feats.{job}") | {f"shards/utt2dur.{job}": f"u{job} 0.5\n".encode()}
    return [files]


# Results


def results() -> list[Files]:
    """Return two scored results directories of a data directory."""
    rows = [
        ("u1", "s1", "clean", 4.0, 3.9, 3.75),
        ("u2", "s1", "clean", 3.5, 3.2, 3.75),
        ("u3", "s2", "noise", 2.0, 2.4, 1.5),
    ]
    rows.append(("u4", "s2", "noise", 1.0, 1.5, 1.5))
    header = "utterance\tsystem\tgroup\tmos\tpredicted\tsystem_mos\n"
    scored = (header + "".join("\t".join(map(str, row)) + "\n" for row in rows)).encode()
    entry = {"value": 0.5, "low": 0.4, "high": 0.6, "undefined": 0}
    level = {name: dict(entry) for name in ("MSE", "LCC", "SRCC", "KTAU")}
    measures = {"outlier_ratio": 0.25, "LCC": 0.9, "SRCC": 0.8, "KTAU": None}
    metrics = {
        "set": "test",
        "notes": "",
        "counts": {"utterances": 4, "systems": 2},
        "utterance": level,
        "system": level,
        "p1401": [{"level": "utterance", "mapping": "none", "count": 4, "RMSE": 0.3, "RMSE_star": 0.1} | measures],
    }
    metrics["pairs"] = dict.fromkeys(("utterance", "system"), PAIRS)
    metrics["bootstrap"] = {"samples": 20, "seed": 1, "level": 0.95}
    predicted = "".join(f"{row[0]} {row[4]}\n" for row in rows).encode()
    files: Files = {}
    for name in ("a", "b"):
        files |= {f"{name}/scored.tsv": scored, f"{name}/metrics.json": json.dumps(metrics).encode()}
        files[f"{name}/utt2mos"] = predicted
    data = {f"data/{name}": content for name, content in data_directory().items()}
    data["data/wav.scp"] = b"".join(b"u%d data/u%d.wav\n" % (n, n) for n in range(1, 5))
    return [files | data]


def metrics() -> list[Files]:
    """Return metrics.json of a rated and of an unrated set."""
    scored = results()[0]["a/metrics.json"]
    unrated = {"set": "test", "notes": "", "counts": {"utterances": 4, "systems": 2}}
    return [{"metrics.json": content} for content in (scored, json.dumps(unrated).encode())]


PAIRS = [
    {"low": 0.0, "high": 0.5, "pairs": 4, "accuracy": 0.75},
    {"low": 0.5, "high": None, "pairs": 0, "accuracy": None},
]


def references() -> list[Files]:
    """Return references.json."""
    entry = {"value": 0.5, "low": 0.4, "high": 0.6}
    rows = [
        {"target": "MOS", "name": "length", "levels": {"utterance": {"LCC": entry}}, "pairs": {"utterance": PAIRS}},
        {"target": "MOS", "name": "mean", "levels": {"utterance": {"MSE": entry}, "system": {"MSE": entry}}},
    ]
    return [{"references.json": json.dumps({"rows": rows}).encode()}]


def published() -> list[Files]:
    """Return the tables of published scores of the recipes."""
    return [{"published.tsv": path.read_bytes()} for path in sorted(EGS.glob("*/published.tsv"))]


def journals() -> list[Files]:
    """Return the journal of an interrupted prediction."""
    records = [{"identity": {"model": "x"}}]
    good = {"scores": {"MOS": 3.5}, "seconds": 1.0, "error": None, "file": [32044, 1764000000000000000]}
    records += [{"utterance": f"u{n}.wav", **good} for n in range(3)]
    bad = {"scores": None, "seconds": None, "error": "bad.wav: empty file", "file": None}
    records.append({"utterance": "bad.wav", **bad})
    lines = "".join(json.dumps(record) + "\n" for record in records).encode()
    return [{f"scores{suffix}.partial": lines} for suffix in (".csv", ".jsonl", "")]


def _log() -> bytes:
    levels = {level: {"MSE": 0.2, "LCC": 0.9, "SRCC": 0.9, "KTAU": 0.7} for level in ("utterance", "system")}
    dev = {"regression": 0.4, "token": 2.0, "token_accuracy": [0.3, 0.2], "layer_weights": [0.4, 0.6], **levels}
    data = {name: {"dir": name, "utterances": 4, "seconds": 9.5, "notes": ""} for name in ("train", "dev")}
    hardware = {"cpu": "A CPU", "threads": 2, "gpu": None, "torch": "2.14.1", "python": "3.11.9"}
    start = {"time": "2026-01-05T12:00:00+00:00", "command": ["distilmos", "train"], "commit": "0a1b", "seed": 1}
    rates = {"lr_encoder": 1e-4, "lr_head": 1e-3, "grad_norm": 1.0, "seconds_per_second": 55.0}
    events = [
        {"event": "start", "step": 0, **start, "hardware": hardware, "data": data, "parameters": 1000},
        {"event": "train", "step": 10, "epoch": 0, "loss": 1.0, "regression": 0.5, "token": 3.0, **rates},
        {"event": "resume", "step": 10},
        {"event": "train", "step": 20, "epoch": 1, "loss": 0.8, "regression": 0.4, "token": 2.0, **rates},
        {"event": "dev", "step": 20, **dev, "best": True},
        {"event": "end", "step": 20, "reason": "max_steps", "averaged_steps": [20], "elapsed_seconds": 9.0, "dev": dev},
    ]
    return "".join(json.dumps(event) + "\n" for event in events).encode()


def logs() -> list[Files]:
    """Return the journal of a run."""
    return [{"exp/log.jsonl": _log()}]


def experiments() -> list[Files]:
    """Return an experiment with a final model, and the quality of its k-means."""
    scored = results()[0]
    quality = [
        json.loads(content)
        for name, content in kmeans()[0].items()
        if name.startswith("layer") and name.endswith("json")
    ]
    files = {f"exp/final/{name}": content for name, content in model_directories()[0].items()}
    files |= {
        f"exp/results/{name}": scored[f"a/{name.split('/')[1]}"] for name in ("test/scored.tsv", "test/metrics.json")
    }
    files["exp/results/test/references.json"] = references()[0]["references.json"]
    files |= {"exp/log.jsonl": _log(), "exp/config.yaml": b"model: distilmos\nhidden_dim: 8\ntarget_layers: all\n"}
    files["kmeans/quality.json"] = json.dumps({"ssl": "x", "clusters": 4, "layers": quality}).encode()
    return [files]


def analyses() -> list[Files]:
    """Return analysis.json of an encoder before and after fine-tuning."""
    side = {"probe": 0.4, "agreement": 0.8, "explained_variance": 0.9, "inertia_per_frame": 0.3}
    rows = [{"layer": layer, "chance": 0.1, "before": side, "after": side} for layer in (1, 2)]
    probe = {"accuracy": 0.5, "sd": 0.1}
    layers = [{"layer": layer, "before": probe, "after": probe} for layer in (1, 2)]
    task = {"name": "speaker", "chance": 0.5, "classes": 2, "utterances": 4, "folds_of": "systems", "layers": layers}
    result: dict[str, Any] = dict.fromkeys(("subject", "ssl", "model", "time", "commit", "kmeans"), "x")
    hardware = {"cpu": "A CPU", "threads": 2, "gpu": None, "torch": "2.14.1", "python": "3.11.9"}
    result |= {"hardware": hardware, "seed": 1, "data": ["raw/test"], "notes": "", "utterances": 4, "seconds": 9.0}
    result |= {"frames": 100, "held_out": 2, "left_out": [], "similarity": [[1.0, 0.5], [0.5, 1.0]]}
    result |= {"tokens": rows, "probes": [task]}
    return [
        {
            "analysis/analysis.json": json.dumps(result).encode(),
            "exp/log.jsonl": _log(),
            "exp/config.yaml": b"seed: 1\n",
        }
    ]


# Corpora


@cache
def _corpus(name: str) -> Files:
    design = corpora.Design(systems=3, sizes={"train": 3, "dev": 2, "test": 2}, ratings=2, listeners=3, seconds=0.05)
    return written(lambda root: getattr(corpora, f"write_{name}")(root / "db", design))


def corpus(name: str) -> list[Files]:
    """Return a generated corpus in the published layout."""
    return [_corpus(name)]


def workbooks() -> list[Files]:
    """Return a workbook in the layout of TCD-VoIP."""
    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Subjective Test Scores"
    sheet.append(["Filename", "ConditionID", "sample MOS", "listener  # ->", *range(1, 25)])
    for number in range(1, 4):
        sheet.append([f"C_{number:02d}_ECHO_FA.wav", number, 3.5, None, *[3, 4] * 12])
    stream = io.BytesIO()
    book.save(stream)
    return [{"book.xlsx": stream.getvalue()}]


def archives() -> list[Files]:
    """Return downloads: a zip file with an archive inside, and a tar file."""
    members = {"a.wav": sound(), "list.csv": b"a.wav,3\n"}
    inner = _zip(members)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in {**members, "inner.zip": inner}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return [{"x.zip": _zip({**members, "inner.zip": inner})}, {"x.tgz": packed.getvalue()}]


def _zip(members: Files) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return stream.getvalue()
