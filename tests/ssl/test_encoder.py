"""The encoder computes fairseq's hidden states, for a recording alone and in any batch."""

from __future__ import annotations

import json
import re
import resource
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file

from distilmos.errors import InputError
from distilmos.ssl.config import WaveformConfig, config_from_dict
from distilmos.ssl.forward import group_by_seconds, pad_audio, padded_batches
from distilmos.ssl.load import embedded_names, load_ssl
from distilmos.ssl.store import load_encoder, save_encoder
from distilmos.ssl.waveform import WaveformEncoder

CONFIGS = {
    large: WaveformConfig(
        conv_layers=((32, 10, 5), *[(32, 3, 2)] * 4, *[(32, 2, 2)] * 2),
        conv_bias=large,
        conv_norm="layer" if large else "group",
        embed_dim=32 if large else 48,
        ffn_dim=64,
        num_heads=4,
        num_layers=3,
        pos_kernel=17 if large else 16,
        pos_groups=4,
        norm_first=large,
        normalize_input=large,
    )
    for large in (False, True)
}


def waveform(samples: int, seed: int = 0) -> torch.Tensor:
    """A tone with noise; neither its variance is 1 nor its mean 0."""
    noise = np.random.default_rng(seed).standard_normal(samples) * 0.03
    tone = 0.2 * np.sin(np.arange(samples) * (0.05 + 0.02 * seed))
    return torch.from_numpy((tone + noise + 0.01).astype(np.float32))


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def random_encoder(config: WaveformConfig) -> WaveformEncoder:
    torch.manual_seed(0)
    encoder = WaveformEncoder(config).eval()
    for parameter in encoder.parameters():  # new norms are all ones and zeros, which would hide a mistake
        parameter.data += 0.05 * torch.randn_like(parameter)
    return encoder


def fairseq_model(config: WaveformConfig) -> dict:
    """Settings in fairseq of a HuBERT with the shape of `config`."""
    return {
        "_name": "hubert",
        "label_rate": 50,
        "extractor_mode": {"group": "default", "layer": "layer_norm"}[config.conv_norm],
        "conv_bias": config.conv_bias,
        "layer_norm_first": config.norm_first,
        "conv_feature_layers": " + ".join(f"[{shape}]" for shape in config.conv_layers),
        "encoder_layers": config.num_layers,
        "encoder_embed_dim": config.embed_dim,
        "encoder_ffn_embed_dim": config.ffn_dim,
        "encoder_attention_heads": config.num_heads,
        "conv_pos": config.pos_kernel,
        "conv_pos_groups": config.pos_groups,
        "final_dim": 8,
    }


def fairseq_weights(encoder: WaveformEncoder) -> dict[str, torch.Tensor]:
    """The weights under fairseq's names: the inverse of `convert_weights`."""
    norms = "2.1" if encoder.config.conv_norm == "layer" else "2"
    names = {
        r"conv\.layers\.(\d+)": r"feature_extractor.conv_layers.\1.0",
        r"conv\.norms\.(\d+)": rf"feature_extractor.conv_layers.\1.{norms}",
        "feature_norm": "layer_norm",
        "projection": "post_extract_proj",
        "norm": "encoder.layer_norm",
        "pos_conv": "encoder.pos_conv.0",
        r"(layers\.\d+)\.out": r"encoder.\1.self_attn.out_proj",
        r"(layers\.\d+)\.attention_norm": r"encoder.\1.self_attn_layer_norm",
        r"(layers\.\d+)\.ffn_in": r"encoder.\1.fc1",
        r"(layers\.\d+)\.ffn_out": r"encoder.\1.fc2",
        r"(layers\.\d+)\.ffn_norm": r"encoder.\1.final_layer_norm",
        r"(layers\.\d+)\.qkv": r"encoder.\1.self_attn.{}_proj",
    }
    result = {}
    for name, tensor in encoder.state_dict().items():
        module, _, part = name.rpartition(".")
        source, target = next((old, new) for old, new in names.items() if re.fullmatch(old, module))
        renamed = f"{re.sub(source, target, module)}.{part}"
        if (
            name == "pos_conv.weight"
        ):  # weight normalisation: the gain is the norm, the length of the direction is arbitrary
            gain = tensor.norm(dim=(0, 1), keepdim=True)
            result[f"{renamed}_g"], result[f"{renamed}_v"] = gain, tensor * torch.linspace(0.5, 2, gain.numel())
        elif "{}" in renamed:
            result |= {renamed.format(letter): rows for letter, rows in zip("qkv", tensor.chunk(3), strict=True)}
        else:
            result[renamed] = tensor
    return result


def fairseq_state(encoder: WaveformEncoder) -> dict:
    """The parts of a checkpoint of fairseq's trainer that are plain types."""
    task = {"_name": "hubert_pretraining", "normalize": encoder.config.normalize_input}
    cfg = {"model": fairseq_model(encoder.config), "task": task}
    return {"args": None, "cfg": cfg, "model": fairseq_weights(encoder)}


def write_fairseq_checkpoint(path: Path, encoder: WaveformEncoder):
    """Load the weights into fairseq's own module, save it as fairseq's trainer does, and return it."""
    hubert = pytest.importorskip("fairseq.models.hubert.hubert", reason="fairseq is not installed")
    from fairseq.data.dictionary import Dictionary
    from fairseq.tasks.hubert_pretraining import HubertPretrainingConfig
    from omegaconf import OmegaConf

    dictionary = Dictionary()
    for unit in range(10):
        dictionary.add_symbol(str(unit))
    state = fairseq_state(encoder)
    settings = {key: value for key, value in state["cfg"]["model"].items() if key != "_name"}
    config = hubert.HubertConfig(**settings)
    task = HubertPretrainingConfig(data="", sample_rate=16000, normalize=encoder.config.normalize_input)
    module = hubert.HubertModel(config, task, [dictionary]).eval()
    missing, unexpected = module.load_state_dict(state["model"], strict=False)
    only_pretraining = {"mask_emb", "label_embs_concat", "final_proj.weight", "final_proj.bias"}
    if encoder.config.norm_first:  # the norm after the last layer
        only_pretraining |= {"encoder.layer_norm.weight", "encoder.layer_norm.bias"}
    assert (set(missing), unexpected) == (only_pretraining, [])
    whole = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    state["cfg"]["model"] = {**whole, "_name": "hubert"}
    torch.save({**state, "model": module.state_dict(), "task_state": {"dictionaries": [dictionary]}}, path)
    return module


def assert_same_layers(encoder: WaveformEncoder, module, normalize: bool) -> None:
    audio = waveform(12345)
    layers, frames = encoder(audio[None], torch.tensor([len(audio)]))
    given = torch.nn.functional.layer_norm(audio, audio.shape) if normalize else audio
    for number, layer in enumerate(layers, start=1):
        expected = module.extract_features(given[None], padding_mask=None, mask=False, output_layer=number)[0]
        assert layer.shape == expected.shape == (1, int(frames[0]), encoder.config.embed_dim)
        assert relative(layer, expected) < 1e-5, f"layer {number}"


@pytest.mark.parametrize("large", [False, True], ids=["group norm, post-norm", "layer norm, pre-norm"])
def test_layers_equal_those_of_fairseqs_module_for_a_checkpoint_of_fairseq(tmp_path, large):
    module = write_fairseq_checkpoint(tmp_path / "hubert.pt", random_encoder(CONFIGS[large]))
    with torch.no_grad():
        assert_same_layers(load_ssl(tmp_path / "hubert.pt"), module, normalize=large)


def test_layers_of_the_embedded_encoder_equal_those_of_fairseqs_module(tmp_path):
    embedded = load_ssl("hubert_tiny")
    module = write_fairseq_checkpoint(tmp_path / "hubert.pt", embedded)
    with torch.no_grad():
        for encoder in (embedded, load_ssl(tmp_path / "hubert.pt")):
            assert_same_layers(encoder, module, normalize=False)


def as_s3prl(state: dict) -> dict:
    """As s3prl's upstream/hubert/convert.py writes it."""
    cfg = state["cfg"]
    converted = {"task_cfg": cfg["task"], "model_cfg": cfg["model"], "model_weight": state["model"]}
    return {**converted, "dictionaries_symbols": [["<s>", "</s>"]]}


def as_recognizer(state: dict, name: str, prefix: str) -> dict:
    """As fairseq saves a HuBERT that is fine-tuned for recognition."""
    weights = {f"{prefix}.w2v_model.{key}": value for key, value in state["model"].items()}
    cfg = {
        "model": {"_name": name, "w2v_path": "x.pt", "w2v_args": state["cfg"]},
        "task": {"_name": "audio_finetuning"},
    }
    return {"args": None, "cfg": cfg, "model": {**weights, f"{prefix}.proj.weight": torch.zeros(12, 48)}}


def as_numpy(state: dict) -> dict:
    """With numbers and an array of numpy."""
    numpy = {bool: np.bool_, int: np.int64, float: np.float32}
    settings = {key: numpy.get(type(value), type(value))(value) for key, value in state["cfg"]["model"].items()}
    task = {**state["cfg"]["task"], "normalize": np.bool_(state["cfg"]["task"]["normalize"])}
    extra = {"best": np.float64(3.2), "losses": np.arange(3), "name": np.str_("x")}
    return {**state, "cfg": {"model": settings, "task": task}, "extra_state": extra}


LAYOUTS = {
    "s3prl": as_s3prl,
    "CTC": lambda state: as_recognizer(state, "hubert_ctc", "w2v_encoder"),
    "encoder and decoder": lambda state: as_recognizer(state, "hubert_seq2seq", "encoder"),
    "numpy": as_numpy,
}


@pytest.mark.parametrize("large", [False, True], ids=["base", "large, normalised waveforms"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_other_layouts_have_the_encoder_of_the_original_checkpoint(tmp_path, layout, large):
    state = fairseq_state(random_encoder(CONFIGS[large]))
    torch.save(state, tmp_path / "original.pt")
    torch.save(layout(state), tmp_path / "other.pt")
    original, other = load_ssl(tmp_path / "original.pt"), load_ssl(tmp_path / "other.pt")
    assert other.config == original.config == CONFIGS[large]
    assert other.fingerprint() == original.fingerprint()


def test_numbers_of_numpy_1(tmp_path):
    """Their module was numpy.core."""
    state = fairseq_state(random_encoder(CONFIGS[False]))
    torch.save(as_numpy(state), tmp_path / "new.pt", _use_new_zipfile_serialization=False)
    content = (tmp_path / "new.pt").read_bytes()
    assert b"cnumpy._core.multiarray\n" in content
    (tmp_path / "old.pt").write_bytes(content.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    assert load_ssl(tmp_path / "old.pt").config == CONFIGS[False]


def test_position_embedding_of_fairseq_without_weight_normalisation(tmp_path):
    encoder = random_encoder(CONFIGS[False])
    state = fairseq_state(encoder)
    names = [name for name in state["model"] if name.endswith(("weight_g", "weight_v"))]
    assert len(names) == 2
    state["model"] = {name: value for name, value in state["model"].items() if name not in names}
    state["model"]["encoder.pos_conv.0.weight"] = encoder.pos_conv.weight.detach()
    torch.save(state, tmp_path / "hubert.pt")
    assert load_ssl(tmp_path / "hubert.pt").fingerprint() == encoder.fingerprint()


def test_half_precision_changes_layers_by_less_than_1_percent(tmp_path):
    encoder = random_encoder(CONFIGS[True])
    save_encoder(encoder, tmp_path / "half.safetensors", half=True)
    audio = waveform(48000, seed=3)[None]
    with torch.no_grad():
        full, _ = encoder(audio, torch.tensor([48000]))
        half, _ = load_ssl(tmp_path / "half.safetensors")(audio, torch.tensor([48000]))
    assert max(relative(h, f) for h, f in zip(half, full, strict=True)) < 1e-2


@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-5), (torch.bfloat16, 0.1)])
def test_an_encoder_may_have_other_weights_than_float32(dtype, most):
    encoder = load_ssl("hubert_tiny")
    audio, lengths = waveform(48000, seed=3)[None], torch.tensor([48000])
    with torch.no_grad():
        expected, _ = encoder(audio, lengths)
        found, _ = encoder.to(dtype)(audio.to(dtype), lengths)
    assert found[-1].dtype == dtype
    assert max(relative(ours.float(), theirs) for ours, theirs in zip(found, expected, strict=True)) < most


@pytest.mark.parametrize("large", [False, True], ids=["group norm", "layer norm and input normalisation"])
def test_states_do_not_depend_on_the_batch(large):
    encoder = random_encoder(CONFIGS[large])
    recordings = [waveform(samples, seed) for seed, samples in enumerate([400, 1000, 16000, 20001, 48000])]
    with torch.no_grad():
        layers, frames = encoder(*pad_audio(recordings))
        for index, recording in enumerate(recordings):
            alone, count = encoder(recording[None], torch.tensor([len(recording)]))
            assert count.tolist() == [frames[index]] == [encoder.config.num_frames(len(recording))]
            for number, (one, batch) in enumerate(zip(alone, layers, strict=True)):
                difference = (one[0] - batch[index, : frames[index]]).abs().max()
                assert difference < 2e-5, f"recording {index}, layer {number + 1}"


def test_number_of_frames():
    config = load_ssl("hubert_tiny").config
    assert [config.num_frames(n) for n in (0, 399, 400, 719, 720, 16000)] == [0, 0, 1, 1, 2, 49]


def test_saved_encoder_loads_unchanged(tmp_path):
    encoder = load_ssl("hubert_tiny")
    save_encoder(encoder, tmp_path / "a.safetensors")
    again = load_encoder(tmp_path / "a.safetensors")
    assert again.fingerprint() == encoder.fingerprint()
    assert config_from_dict(encoder.config.to_dict()) == again.config


def test_fingerprint_tells_encoders_apart():
    encoder = load_ssl("hubert_tiny")
    before = encoder.fingerprint()
    with torch.no_grad():
        encoder.norm.bias[0] += 1e-3
    assert encoder.fingerprint() != before


def test_unusable_checkpoints_are_named(tmp_path):
    (tmp_path / "text.pt").write_text("hello")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"model": {}, "cfg": {"model": {"_name": "data2vec"}}}, tmp_path / "other.pt")
    torch.save({"model": {1: torch.zeros(2)}, "cfg": {"model": {"_name": "hubert"}}}, tmp_path / "integers.pt")
    endless = {"_name": "hubert", "conv_feature_layers": "[(1,1,1)] * 99999999999999999"}
    torch.save({"model": {}, "cfg": {"model": endless}}, tmp_path / "endless.pt")
    state = fairseq_state(random_encoder(CONFIGS[False]))
    torch.save(state, tmp_path / "good.pt")
    assert load_ssl(tmp_path / "good.pt").config == CONFIGS[False]
    del state["model"]["encoder.layers.1.fc1.weight"]
    torch.save(state, tmp_path / "incomplete.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "good.pt").read_bytes()[:5000])
    for name, value in {
        "text.pt": "",
        "list.pt": "'model'",
        "other.pt": "data2vec",
        "integers.pt": r"feature_extractor\.conv_layers\.0\.0\.weight",
        "endless.pt": "99999999999999999",
        "incomplete.pt": r"encoder\.layers\.1\.fc1\.weight",
        "cut.pt": "",
        "missing.pt": "hubert_tiny.*hubert_base",
    }.items():
        with pytest.raises(InputError, match=rf"^{tmp_path}/{name}: .*({value})"):
            load_ssl(tmp_path / name)


MALFORMED = {
    "cfg is text": ({"cfg": "text"}, "'cfg'.* str"),
    "cfg.model is text": ({"cfg": {"model": "hubert"}}, "'model'.* str"),
    "cfg.task is text": ({"task": "hubert_pretraining"}, "'task'.* str"),
    "weights are text": ({"model": "text"}, "'model'"),
    "a weight is text": ({"weights": {"layer_norm.weight": "text"}}, r"'layer_norm\.weight'"),
    "a weight of another rank": ({"weights": {"encoder.pos_conv.0.weight_v": torch.zeros(3)}}, r"\(16\) .*\(3\)"),
    "normalize is a reference": ({"task": {"normalize": "${model.normalize}"}}, r"\$\{model\.normalize\}"),
    "arguments of an encoder with CTC are a list": (
        {
            "cfg": {"model": {"_name": "hubert_ctc", "w2v_args": [1]}},
            "weights": {"w2v_encoder.w2v_model.x": torch.zeros(1)},
        },
        "'w2v_args'.* list",
    ),
    "no convolutions": ({"settings": {"conv_feature_layers": "[]"}}, r"conv_layers .*\(\)"),
    "a convolution without stride": ({"settings": {"conv_feature_layers": "[(32,10,0)]"}}, r"\(32, 10, 0\)"),
    "no layers": ({"settings": {"encoder_layers": 0}}, "num_layers .*0"),
    "many convolutions": ({"settings": {"conv_feature_layers": "[(1,1,1)] * 9999"}}, "9999"),
    "a stride of minutes": ({"settings": {"conv_feature_layers": "[(32,10,9999999)]"}}, "9999999"),
    "many layers": ({"settings": {"encoder_layers": 99999}}, "num_layers .*99999"),
    "a weight of one value": (
        {"weights": {"encoder.layers.0.fc1.weight": torch.zeros(1).expand(10**9)}},
        r"model\.encoder\.layers\.0\.fc1\.weight",
    ),
    "a sparse weight": ({"weights": {"layer_norm.bias": torch.ones(4).to_sparse()}}, r"model\.layer_norm\.bias"),
    "groups": ({"settings": {"conv_pos_groups": 5}}, "5 groups .*48"),
    "heads": ({"settings": {"encoder_attention_heads": 5}}, "5 heads .*48"),
}


@pytest.mark.parametrize(("changes", "value"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_checkpoints_are_named_with_the_faulty_value(tmp_path, changes, value):
    state = fairseq_state(random_encoder(CONFIGS[False]))
    state["model"] |= changes.get("weights", {})
    state["cfg"]["model"] |= changes.get("settings", {})
    if "task" in changes:
        state["cfg"]["task"] = changes["task"]
    state |= {key: changes[key] for key in ("cfg", "model") if key in changes}
    torch.save(state, tmp_path / "bad.pt")
    with pytest.raises(InputError, match=rf"^{tmp_path}/bad\.pt: .*{value}"):
        load_ssl(tmp_path / "bad.pt")


def test_embedded_names():
    assert embedded_names() == ["hubert_tiny", "whisper_tiny_en"]


def test_unreadable_recordings_are_left_out_of_batches_and_named_at_the_end(tmp_path):
    for index in range(5):
        soundfile.write(tmp_path / f"u{index}.wav", waveform(8000 + index, index), 16000)
    for index in (1, 4):
        soundfile.write(tmp_path / f"u{index}.wav", np.full(8000, np.nan), 16000, subtype="FLOAT")
    wavs = {f"u{index}": (tmp_path / f"u{index}.wav", None) for index in range(5)}
    read = {}
    with pytest.raises(InputError) as caught:
        for group, audio, num_samples in padded_batches(wavs, dict.fromkeys(wavs, 0.5), batch_seconds=1.0):
            assert audio.shape == (len(group), num_samples.max())
            read |= dict(zip(group, num_samples.tolist(), strict=True))
    assert read == {"u0": 8000, "u2": 8002, "u3": 8003}
    named = [index for index in range(5) if f"u{index}: {tmp_path}/u{index}.wav: " in str(caught.value)]
    assert named == [1, 4]


def test_groups_fit_the_budget_and_hold_each_recording_once():
    durations = {f"u{i}": seconds for i, seconds in enumerate([1.0, 9.0, 2.5, 30.0, 2.0, 2.0, 0.5])}
    groups = group_by_seconds(durations, 10.0)
    assert sorted(u for group in groups for u in group) == sorted(durations)
    for group in groups:
        assert len(group) == 1 or max(durations[u] for u in group) * len(group) <= 10.0
    assert groups[0] == ["u3"]


def test_a_tar_file_is_not_unpacked(tmp_path, monkeypatch):
    """torch.load would first make a directory in TMPDIR."""
    (tmp_path / "config.json").write_text('{"model_type": "hubert"}')
    with tarfile.open(tmp_path / "pytorch_model.bin", "w"):
        pass
    monkeypatch.setattr(tempfile, "mkdtemp", lambda *_, **__: pytest.fail("a directory was made"))
    with pytest.raises(InputError, match=rf"^{tmp_path}/pytorch_model\.bin: "):
        load_ssl(tmp_path)


@pytest.mark.parametrize(
    ("changes", "value"),
    [
        (8, "8"),
        ({"num_layers": 99999}, "num_layers .*99999"),
        ({"ffn_dim": 10**12}, "1000000000000"),
        ({"family": "whisper"}, "family|conv_layers"),
    ],
)
def test_a_damaged_shape_is_named_and_asks_for_no_memory(tmp_path, changes, value):
    encoder = random_encoder(CONFIGS[False])
    shape = {**encoder.config.to_dict(), **changes} if isinstance(changes, dict) else changes
    save_file(encoder.state_dict(), tmp_path / "a.safetensors", metadata={"encoder": json.dumps(shape)})
    with pytest.raises(InputError, match=rf"(?s)^{tmp_path}/a\.safetensors: .*({value})"):
        load_ssl(tmp_path / "a.safetensors")


def test_a_damaged_length_in_a_bare_pickle_asks_for_no_memory(tmp_path):
    state = fairseq_state(random_encoder(CONFIGS[False]))
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert load_ssl(tmp_path / "old.pt").config == CONFIGS[False]
    content = (tmp_path / "old.pt").read_bytes()
    assert b"X\x10\0\0\0protocol_version" in content
    (tmp_path / "old.pt").write_bytes(content.replace(b"X\x10\0\0\0protocol", b"X\xff\xff\xff\xffprotocol"))
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), hard))
    try:
        with pytest.raises(InputError, match=rf"^{tmp_path}/old\.pt: ") as caught:
            load_ssl(tmp_path / "old.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert not isinstance(caught.value.__context__, MemoryError)
