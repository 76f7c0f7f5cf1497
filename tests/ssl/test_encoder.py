"""The encoder gives fairseq's hidden states, alone and in any batch."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from distilmos.errors import InputError
from distilmos.ssl.encoder import EncoderConfig, SSLEncoder
from distilmos.ssl.forward import group_by_seconds, pad_audio
from distilmos.ssl.load import embedded_names, load_ssl
from distilmos.ssl.store import load_encoder, save_encoder

fairseq_hubert = pytest.importorskip("fairseq.models.hubert.hubert", reason="fairseq is not installed")


def waveform(samples: int, seed: int = 0) -> torch.Tensor:
    """A tone with noise, not of unit variance and not of zero mean."""
    noise = np.random.default_rng(seed).standard_normal(samples) * 0.03
    tone = 0.2 * np.sin(np.arange(samples) * (0.05 + 0.02 * seed))
    return torch.from_numpy((tone + noise + 0.01).astype(np.float32))


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def write_fairseq_checkpoint(path, *, large: bool, seed: int = 0):
    """A small HuBERT with random weights, in the layout that fairseq's trainer writes; returns fairseq's module."""
    from fairseq.data.dictionary import Dictionary
    from fairseq.tasks.hubert_pretraining import HubertPretrainingConfig
    from omegaconf import OmegaConf

    torch.manual_seed(seed)
    dictionary = Dictionary()
    for unit in range(10):
        dictionary.add_symbol(str(unit))
    task = HubertPretrainingConfig(data="", sample_rate=16000, normalize=large)
    config = fairseq_hubert.HubertConfig(
        label_rate=50,
        extractor_mode="layer_norm" if large else "default",
        conv_bias=large,
        layer_norm_first=large,
        conv_feature_layers="[(32,10,5)] + [(32,3,2)] * 4 + [(32,2,2)] * 2",
        encoder_layers=3,
        encoder_embed_dim=32 if large else 48,
        encoder_ffn_embed_dim=64,
        encoder_attention_heads=4,
        conv_pos=17 if large else 16,
        conv_pos_groups=4,
        final_dim=8,
    )
    module = fairseq_hubert.HubertModel(config, task, [dictionary]).eval()
    for parameter in module.parameters():  # fresh norms are all ones and zeros, which would hide a mistake
        parameter.data += 0.05 * torch.randn_like(parameter)
    model = {**OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True), "_name": "hubert"}
    cfg = {"model": model, "task": {"_name": "hubert_pretraining", "normalize": large}}
    state = {"args": None, "cfg": cfg, "model": module.state_dict(), "task_state": {"dictionaries": [dictionary]}}
    torch.save(state, path)
    return module


def assert_same_layers(encoder: SSLEncoder, module, normalize: bool) -> None:
    audio = waveform(12345)
    layers, frames = encoder(audio[None], torch.tensor([len(audio)]))
    given = torch.nn.functional.layer_norm(audio, audio.shape) if normalize else audio
    for number, layer in enumerate(layers, start=1):
        expected = module.extract_features(given[None], padding_mask=None, mask=False, output_layer=number)[0]
        assert layer.shape == expected.shape == (1, int(frames[0]), encoder.config.embed_dim)
        assert relative(layer, expected) < 1e-5, f"layer {number}"


@pytest.mark.parametrize("large", [False, True], ids=["group norm, post-norm", "layer norm, pre-norm"])
def test_layers_equal_those_of_a_checkpoint_fairseq_wrote(tmp_path, large):
    module = write_fairseq_checkpoint(tmp_path / "hubert.pt", large=large)
    with torch.no_grad():
        assert_same_layers(load_ssl(tmp_path / "hubert.pt"), module, normalize=large)


def test_layers_of_hubert_tiny_equal_fairseqs_own(hubert_tiny_pt):
    from fairseq import checkpoint_utils
    from fairseq.data.dictionary import Dictionary

    with torch.serialization.safe_globals([Dictionary]):
        module = checkpoint_utils.load_model_ensemble_and_task([str(hubert_tiny_pt)])[0][0].eval()
    with torch.no_grad():
        assert_same_layers(load_ssl(hubert_tiny_pt), module, normalize=False)


def test_embedded_encoder_is_faithful_in_half_precision(hubert_tiny_pt):
    audio = waveform(48000, seed=3)[None]
    with torch.no_grad():
        full, _ = load_ssl(hubert_tiny_pt)(audio, torch.tensor([48000]))
        half, _ = load_ssl("hubert_tiny")(audio, torch.tensor([48000]))
    assert max(relative(h, f) for h, f in zip(half, full, strict=True)) < 1e-2


def random_encoder(tmp_path, large: bool) -> SSLEncoder:
    write_fairseq_checkpoint(tmp_path / "hubert.pt", large=large)
    return load_ssl(tmp_path / "hubert.pt")


@pytest.mark.parametrize("large", [False, True], ids=["group norm", "layer norm and input normalisation"])
def test_states_do_not_depend_on_the_batch(tmp_path, large):
    encoder = random_encoder(tmp_path, large)
    recordings = [waveform(samples, seed) for seed, samples in enumerate([400, 1000, 16000, 20001, 48000])]
    with torch.no_grad():
        layers, frames = encoder(*pad_audio(recordings))
        for index, recording in enumerate(recordings):
            alone, count = encoder(recording[None], torch.tensor([len(recording)]))
            assert count.tolist() == [frames[index]] == [encoder.config.num_frames(len(recording))]
            for number, (one, batch) in enumerate(zip(alone, layers, strict=True)):
                difference = (one[0] - batch[index, : frames[index]]).abs().max()
                assert difference < 2e-5, f"recording {index}, layer {number + 1}"


def test_number_of_frames_is_that_of_the_convolutions():
    config = load_ssl("hubert_tiny").config
    assert [config.num_frames(n) for n in (0, 399, 400, 719, 720, 16000)] == [0, 0, 1, 1, 2, 49]


def test_own_form_round_trip(tmp_path):
    encoder = load_ssl("hubert_tiny")
    save_encoder(encoder, tmp_path / "a.safetensors")
    again = load_encoder(tmp_path / "a.safetensors")
    assert again.fingerprint() == encoder.fingerprint()
    assert EncoderConfig.from_dict(encoder.config.to_dict()) == again.config


def test_fingerprint_tells_encoders_apart():
    encoder = load_ssl("hubert_tiny")
    before = encoder.fingerprint()
    with torch.no_grad():
        encoder.norm.bias[0] += 1e-3
    assert encoder.fingerprint() != before


class Command:
    """Runs a shell command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_checkpoint_that_would_run_a_command_is_refused(tmp_path):
    torch.save({"model": {}, "cfg": Command(f"touch {tmp_path}/ran")}, tmp_path / "bad.pt")
    with pytest.raises(InputError, match="refused"):
        load_ssl(tmp_path / "bad.pt")
    assert not (tmp_path / "ran").exists()


def test_unusable_checkpoints_say_what_they_are(tmp_path):
    (tmp_path / "text.pt").write_text("hello")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"model": {}, "cfg": {"model": {"_name": "data2vec"}}}, tmp_path / "other.pt")
    write_fairseq_checkpoint(tmp_path / "good.pt", large=False)
    state = torch.load(tmp_path / "good.pt", weights_only=False)
    del state["model"]["encoder.layers.1.fc1.weight"]
    torch.save(state, tmp_path / "incomplete.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "good.pt").read_bytes()[:5000])
    for name, message in {
        "text.pt": "text.pt: ",
        "list.pt": "no 'model'",
        "other.pt": "data2vec",
        "incomplete.pt": "encoder.layers.1.fc1.weight",
        "cut.pt": "cut.pt: not readable",
        "missing.pt": "neither a file nor an embedded encoder",
    }.items():
        with pytest.raises(InputError, match=message):
            load_ssl(tmp_path / name)


def test_embedded_names():
    assert embedded_names() == ["hubert_tiny"]


def test_groups_stay_under_the_budget_and_hold_each_recording_once():
    durations = {f"u{i}": seconds for i, seconds in enumerate([1.0, 9.0, 2.5, 30.0, 2.0, 2.0, 0.5])}
    groups = group_by_seconds(durations, 10.0)
    assert sorted(u for group in groups for u in group) == sorted(durations)
    for group in groups:
        assert len(group) == 1 or max(durations[u] for u in group) * len(group) <= 10.0
    assert groups[0] == ["u3"]
