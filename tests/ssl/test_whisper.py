"""Whisper encoders have the states of transformers' and OpenAI's own, padded to 30 s or not, alone and in any batch."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch

from distilmos.cli import main
from distilmos.errors import InputError
from distilmos.inference.predict import PredictOptions, score_audio
from distilmos.inference.torch_runtime import TorchRuntime
from distilmos.model.config import ModelConfig
from distilmos.model.networks import build_model
from distilmos.ssl.config import WhisperConfig
from distilmos.ssl.forward import hidden_states, pad_audio
from distilmos.ssl.load import ASSETS, PADDED, load_ssl
from distilmos.ssl.store import save_encoder

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

RATE = 16000
LENGTHS = (400, 3000, 16000, 24111)
SETTINGS = {
    "d_model": 48,
    "encoder_layers": 3,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 80,
    "decoder_layers": 1,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 16,
    "vocab_size": 60,
    "pad_token_id": 1,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 3,
}


def make_model(head: str = "WhisperModel", **changes):
    """A transformers model with random weights, also in norms: all ones and zeros would hide a mistake."""
    torch.manual_seed(0)
    model = getattr(transformers, head)(transformers.WhisperConfig(**{**SETTINGS, **changes})).eval()
    for name, parameter in model.named_parameters():
        if "positions" not in name:
            parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def encoder_of(model):
    return getattr(model, "model", model).encoder


def recordings() -> list[torch.Tensor]:
    """Noise with pauses, so that the floor of the spectrum matters."""
    torch.manual_seed(1)
    found = [0.1 * torch.randn(length) for length in LENGTHS]
    for audio in found[2:]:
        audio[5000:9000] *= 1e-6
    return found


@torch.no_grad()
def expected_layers(model, audio: torch.Tensor) -> list[torch.Tensor]:
    """Outputs of the layers before the final norm for 30 s of input, cut to the frames of the recording."""
    extractor = transformers.WhisperFeatureExtractor(feature_size=model.config.num_mel_bins)
    spectra = extractor(audio.numpy(), sampling_rate=RATE, return_tensors="pt").input_features
    layers: list[torch.Tensor] = []
    encoder = encoder_of(model)
    hooks = [
        layer.register_forward_hook(
            lambda _, __, output: layers.append(output[0] if isinstance(output, tuple) else output)
        )
        for layer in encoder.layers
    ]
    encoder(spectra)
    for hook in hooks:
        hook.remove()
    return [layer.reshape(-1, layer.shape[-1])[: (len(audio) // 160 + 1) // 2] for layer in layers]


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).norm() / expected.norm())


@torch.no_grad()
def states_alone_and_in_a_batch(encoder, audio):
    batch, frames = encoder(*pad_audio(audio))
    for index, one in enumerate(audio):
        alone, _ = encoder(one[None], torch.tensor([len(one)]))
        yield one, [layer[0] for layer in alone], [layer[index, : frames[index]] for layer in batch]


@pytest.mark.parametrize("bins", [80, 128])
@pytest.mark.parametrize("head", ["WhisperModel", "WhisperForConditionalGeneration", "WhisperForAudioClassification"])
def test_layers_equal_those_of_transformers_with_padding(tmp_path, head, bins):
    model = make_model(head, num_mel_bins=bins)
    model.save_pretrained(tmp_path)
    for one, alone, batch in states_alone_and_in_a_batch(load_ssl(f"{tmp_path}{PADDED}"), recordings()):
        for found, other, layer in zip(alone, batch, expected_layers(model, one), strict=True):
            assert relative(found, layer) < 1e-5
            assert relative(other, layer) < 1e-5


def openai_checkpoint(model) -> dict:
    """The same weights under OpenAI's names."""
    names = {
        "embed_positions.weight": "positional_embedding",
        "layers.": "blocks.",
        "self_attn.q_proj": "attn.query",
        "self_attn.k_proj": "attn.key",
        "self_attn.v_proj": "attn.value",
        "self_attn.out_proj": "attn.out",
        "self_attn_layer_norm": "attn_ln",
        "fc1": "mlp.0",
        "fc2": "mlp.2",
        "final_layer_norm": "mlp_ln",
        "layer_norm": "ln_post",
    }
    weights = {}
    for name, tensor in encoder_of(model).state_dict().items():
        for theirs, ours in names.items():
            name = name.replace(theirs, ours)
        weights[f"encoder.{name}"] = tensor.half()
    weights["decoder.ln.weight"] = torch.ones(48)
    sizes = {"n_mels": 80, "n_audio_ctx": 1500, "n_audio_state": 48, "n_audio_head": 4, "n_audio_layer": 3}
    return {"dims": {**sizes, "n_vocab": 60}, "model_state_dict": weights}


def test_layers_equal_for_all_formats_without_padding(tmp_path):
    model = make_model(encoder_ffn_dim=192)
    for parameter in model.parameters():
        parameter.data = parameter.data.half().float()  # as stored by OpenAI
    model.save_pretrained(tmp_path / "directory")
    encoder = load_ssl(tmp_path / "directory")
    torch.save(openai_checkpoint(model), tmp_path / "openai.pt")
    save_encoder(encoder, tmp_path / "ours.safetensors")
    others = [load_ssl(tmp_path / name) for name in ("openai.pt", "ours.safetensors")]
    assert [other.fingerprint() for other in others] == [encoder.fingerprint()] * 2
    for _, alone, batch in states_alone_and_in_a_batch(encoder, recordings()):
        for found, other in zip(alone, batch, strict=True):
            assert relative(other, found) < 1e-4


@torch.no_grad()
def test_without_padding_the_network_sees_the_recording_alone(tmp_path):
    """As transformers' layers on the spectrum of the recording alone, which has the reflected ends of an STFT."""
    model = make_model()
    model.save_pretrained(tmp_path)
    audio = recordings()[3]
    extractor = transformers.WhisperFeatureExtractor(feature_size=80, chunk_length=30)
    spectrum = torch.from_numpy(extractor._np_extract_fbank_features(audio.numpy()[None], "cpu"))
    network = encoder_of(model)
    x = torch.nn.functional.gelu(network.conv1(spectrum.float()))
    x = torch.nn.functional.gelu(network.conv2(x)).transpose(1, 2)
    x = x + network.embed_positions.weight[: x.shape[1]]
    found, frames = load_ssl(tmp_path)(audio[None], torch.tensor([len(audio)]))
    assert frames.tolist() == [x.shape[1]]
    for layer, ours in zip(network.layers, found, strict=True):
        x = layer(x, None)
        x = x[0] if isinstance(x, tuple) else x
        assert relative(ours, x) < 1e-5


def test_frames_follow_the_length_of_the_recording():
    config = WhisperConfig(48, 80, 4, 3)
    assert [config.num_frames(n) for n in (399, 400, 480, 16000, 16160, config.max_samples)] == [0, 1, 2, 50, 51, 1500]
    assert config.num_frames(config.max_samples + 1) == 1501


FAULTS = {
    "another activation": ({"config": {"activation_function": "relu"}}, "relu"),
    "a size that is text": ({"config": {"d_model": "48"}}, "48"),
    "heads that do not divide": ({"config": {"encoder_attention_heads": 5}}, "5"),
    "80 bins for a 128-bin model": ({"config": {"num_mel_bins": 128}}, "128"),
    "more layers than weights": ({"config": {"encoder_layers": 4}}, "layers.3"),
    "fewer layers than weights": ({"config": {"encoder_layers": 2}}, "layers.2"),
    "a decoder alone": ({"drop": "encoder."}, "decoder"),
    "an adapter": ({"add": "encoder.layers.0.fc1.lora_A.weight"}, "lora_A"),
    "an unknown head": ({"add": "speaker_head.weight"}, "speaker_head"),
    "learned positions": ({"positions": True}, "embed_positions"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_directories_are_refused(tmp_path, fault):
    changes, named = FAULTS[fault]
    model = make_model()
    model.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**settings, **changes.get("config", {})}))
    weights = dict(model.state_dict())
    if "drop" in changes:
        weights = {name: value for name, value in weights.items() if not name.startswith(changes["drop"])}
    if "add" in changes:
        weights[changes["add"]] = torch.zeros(2)
    if "positions" in changes:
        weights["encoder.embed_positions.weight"] = torch.randn(1500, 48)
    (tmp_path / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=named) as error:
        load_ssl(tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("fault", ["no size", "dims are a list", "no weight"])
def test_faulty_checkpoints_of_openai_are_refused(tmp_path, fault):
    checkpoint = openai_checkpoint(make_model(encoder_ffn_dim=192))
    named = {"no size": "n_audio_state", "dims are a list": "dims", "no weight": "mlp.2.bias"}[fault]
    if fault == "no size":
        del checkpoint["dims"]["n_audio_state"]
    elif fault == "no weight":
        del checkpoint["model_state_dict"]["encoder.blocks.1.mlp.2.bias"]
    else:
        checkpoint["dims"] = [48]
    torch.save(checkpoint, tmp_path / "w.pt")
    with pytest.raises(InputError, match=named):
        load_ssl(tmp_path / "w.pt")


def test_only_whisper_can_be_padded(tmp_path, capsys):
    with pytest.raises(InputError, match="hubert_tiny:padded"):
        load_ssl(f"hubert_tiny{PADDED}")
    assert main(["fetch-ssl", "hubert_tiny:padded"]) == 2
    assert "hubert_tiny:padded: " in capsys.readouterr().err
    assert main(["fetch-ssl", "whisper_tiny_en:padded"]) == 0
    (tmp_path / "e.pt").touch()
    command = ["dump-feats", "--data", str(tmp_path), "--out", str(tmp_path / "feats"), "--device", "cpu"]
    assert main([*command, "--ssl", f"{tmp_path}/e.pt:padded", "--backend", "fairseq"]) == 2
    assert f"{tmp_path}/e.pt:padded: " in capsys.readouterr().err
    with pytest.raises(InputError, match=r"whisper_tiny_en:padding: .*:padded"):
        load_ssl("whisper_tiny_en:padding")


@pytest.mark.parametrize("width", [1, 2, 5])
def test_widths_without_sines_and_cosines_are_refused(width):
    with pytest.raises(ValueError, match=f"embed_dim is {width};"):
        WhisperConfig(width, 4, 1, 1)


def test_the_embedded_encoder_has_the_weights_of_its_card():
    card = (ASSETS / "whisper_tiny_en.md").read_text()
    content = (ASSETS / "whisper_tiny_en.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() in card
    encoder = load_ssl("whisper_tiny_en")
    assert round(sum(parameter.numel() for parameter in encoder.parameters()) / 1e6, 1) == 7.6
    for _, alone, batch in states_alone_and_in_a_batch(encoder, recordings()):
        for found, other in zip(alone, batch, strict=True):
            assert relative(other, found) < 1e-4


def test_long_recordings_are_scored_in_windows_and_longer_windows_are_refused():
    torch.manual_seed(0)
    model = build_model(ModelConfig(hidden_dim=16), load_ssl("whisper_tiny_en"), 10).eval()
    longest = model.encoder_config.max_samples
    noise = (0.1 * torch.randn(longest + 320)).numpy()
    inputs = [("whole", [noise[:longest]]), ("windows", [noise])]
    whole, windows = score_audio(TorchRuntime(model, torch.device("cpu")), inputs, PredictOptions())
    with torch.no_grad():
        expected = model(torch.from_numpy(noise[None, :longest]), torch.tensor([longest]))
    assert whole.mos == pytest.approx(expected.mos.item(), abs=1e-4)
    assert (len(whole.frame_mos), len(windows.frame_mos)) == (1500, 1501)
    with pytest.raises(InputError, match="31"):
        list(score_audio(TorchRuntime(model, torch.device("cpu")), inputs, PredictOptions(window_seconds=31)))


def test_recordings_that_are_too_long_are_named():
    encoder = load_ssl("whisper_tiny_en")
    durations = {"short": 30.0, "long": 30.1}
    with pytest.raises(InputError, match=r"long: 30\.1") as error:
        next(hidden_states(encoder, {}, durations, torch.device("cpu"), 60.0))
    assert "short" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "value"),
    [
        ({"n_audio_state": 2, "n_audio_head": 2}, "embed_dim .*2"),
        ({"n_mels": 10**9}, "mel_bins .*1000000000"),
        ({"n_audio_ctx": 10**9}, "max_frames .*1000000000"),
        ({"n_audio_layer": 10**9}, "num_layers .*1000000000"),
    ],
)
def test_damaged_sizes_are_named_and_ask_for_no_memory(tmp_path, changes, value):
    checkpoint = openai_checkpoint(make_model(encoder_ffn_dim=192))
    checkpoint["dims"] |= changes
    torch.save(checkpoint, tmp_path / "w.pt")
    with pytest.raises(InputError, match=rf"^{tmp_path}/w\.pt: .*{value}"):
        load_ssl(tmp_path / "w.pt")
