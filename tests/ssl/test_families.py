"""Encoders of transformers, Microsoft and fairseq (wav2vec 2.0) have the states of their own modules, in any batch."""

from __future__ import annotations

import argparse
import json
import re
import tarfile
import tempfile

import pytest
import torch
from helpers.shapes import SMALL

from distilmos.errors import FailedError, InputError
from distilmos.ssl.forward import pad_audio
from distilmos.ssl.load import load_ssl

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

SHAPE = {
    "conv_dim": [32] * 7,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
LARGE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
CLASSES = {"hubert": "HubertModel", "wav2vec2": "Wav2Vec2Model", "wavlm": "WavLMModel"}
LENGTHS = (400, 3000, 16000, 24111)


def make_model(kind, large=False, head=None, **changes):
    """A transformers model with random weights, also in norms: all ones and zeros would hide a mistake."""
    torch.manual_seed(0)
    cls = getattr(transformers, head or CLASSES[kind])
    # Few buckets, so that the recordings reach the logarithmic and the clamped ones.
    wavlm = cls.config_class.model_type == "wavlm"
    relative = {"num_buckets": 24, "max_bucket_distance": 60} if wavlm else {}
    settings = {**SHAPE, **relative, **(LARGE if large else {}), **changes}
    model = cls(cls.config_class(**settings)).eval()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def save(model, directory, normalize):
    """Write a model with its feature extractor."""
    model.save_pretrained(directory)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=normalize).save_pretrained(directory)


def recordings():
    torch.manual_seed(1)
    return [0.1 * torch.randn(length) + 0.02 for length in LENGTHS]


def deviation(encoder, expected):
    """The largest relative difference from `expected(audio)`, the states of all layers, alone and in one batch."""
    audio = recordings()
    with torch.no_grad():
        batch, frames = encoder(*pad_audio(audio))
        worst = 0.0
        for index, one in enumerate(audio):
            alone, _ = encoder(one[None], torch.tensor([len(one)]))
            for layer, (a, b, states) in enumerate(zip(alone, batch, expected(one), strict=True)):
                assert a.shape == states[None].shape, f"layer {layer + 1}"
                for found in (a[0], b[index, : frames[index]]):
                    worst = max(worst, float((found - states).norm() / states.norm()))
    return worst


def hidden_states(model, normalize=None):
    def states(audio):
        if normalize:
            audio = torch.nn.functional.layer_norm(audio, audio.shape, eps=normalize)
        return [state[0] for state in model(audio[None], output_hidden_states=True).hidden_states[1:]]

    return states


@pytest.mark.parametrize("large", [False, True], ids=["group norm, post-norm", "layer norm, pre-norm"])
@pytest.mark.parametrize("kind", CLASSES)
def test_all_layers_equal_those_of_transformers(tmp_path, kind, large):
    model = make_model(kind, large)
    save(model, tmp_path, normalize=large)
    assert deviation(load_ssl(tmp_path), hidden_states(model, 1e-7 if large else None)) < 1e-5


@pytest.mark.parametrize("kind", CLASSES)
def test_each_norm_order_works_with_each_front_end(tmp_path, kind):
    for settings in ({"do_stable_layer_norm": True}, {"feat_extract_norm": "layer"}):
        model = make_model(kind, **settings)
        save(model, tmp_path, normalize=False)
        assert deviation(load_ssl(tmp_path), hidden_states(model)) < 1e-5


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("tokenizer", [False, True])
def test_the_preprocessor_decides_whether_the_waveform_is_normalised(tmp_path, normalize, tokenizer):
    model = make_model("wav2vec2", large=True)
    model.save_pretrained(tmp_path)
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=normalize)
    if tokenizer:
        (tmp_path / "vocab.json").write_text(json.dumps({"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4}))
        words = transformers.Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"))
        transformers.Wav2Vec2Processor(feature_extractor=extractor, tokenizer=words).save_pretrained(tmp_path)
    else:
        extractor.save_pretrained(tmp_path)
    assert deviation(load_ssl(tmp_path), hidden_states(model, 1e-7 if normalize else None)) < 1e-5


@pytest.mark.parametrize("large", [False, True], ids=["base", "large"])
def test_without_a_preprocessor_the_front_end_decides_and_a_message_says_so(tmp_path, capfd, large):
    model = make_model("wavlm", large)
    model.save_pretrained(tmp_path)
    capfd.readouterr()
    assert deviation(load_ssl(tmp_path), hidden_states(model, 1e-7 if large else None)) < 1e-5
    assert capfd.readouterr().err.startswith(f"{tmp_path}: ")


@pytest.mark.parametrize("head", ["HubertForCTC", "Wav2Vec2ForCTC", "WavLMForCTC", "WavLMForSequenceClassification"])
def test_models_with_a_head(tmp_path, head):
    model = make_model(None, head=head, vocab_size=12)
    save(model, tmp_path, normalize=True)
    assert deviation(load_ssl(tmp_path), hidden_states(model.base_model, 1e-7)) < 1e-5


@pytest.mark.parametrize("kind", CLASSES)
def test_position_embedding_without_weight_normalisation(tmp_path, kind):
    model = make_model(kind)
    torch.nn.utils.parametrize.remove_parametrizations(model.encoder.pos_conv_embed.conv, "weight")
    assert "encoder.pos_conv_embed.conv.weight" in model.state_dict()
    save(model, tmp_path, normalize=False)
    assert deviation(load_ssl(tmp_path), hidden_states(model)) < 1e-5


def test_shards_pickled_weights_and_models_with_a_head(tmp_path):
    model = make_model("hubert", head="HubertForCTC", vocab_size=12)
    model.save_pretrained(tmp_path / "shards", max_shard_size="100kB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    (tmp_path / "bin").mkdir()
    torch.save(model.state_dict(), tmp_path / "bin" / "pytorch_model.bin")
    model.config.save_pretrained(tmp_path / "bin")
    paths = [tmp_path / "shards", tmp_path / "bin", tmp_path / "bin" / "pytorch_model.bin"]
    for path in paths:
        assert deviation(load_ssl(path), hidden_states(model.hubert)) < 1e-5


# transformers' names of a WavLM -> Microsoft's.
MICROSOFT = {
    "feature_projection.layer_norm": "layer_norm",
    "feature_projection.projection": "post_extract_proj",
    "encoder.pos_conv_embed.conv": "encoder.pos_conv.0",
    "parametrizations.weight.original0": "weight_g",
    "parametrizations.weight.original1": "weight_v",
    "masked_spec_embed": "mask_emb",
    r"(layers\.\d+)\.layer_norm": r"\1.self_attn_layer_norm",
    "attention.rel_attn_embed": "self_attn.relative_attention_bias",
    "attention.gru_rel_pos_linear": "self_attn.grep_linear",
    "attention.gru_rel_pos_const": "self_attn.grep_a",
    r"attention\.(.)_proj": r"self_attn.\1_proj",
    "attention.out_proj": "self_attn.out_proj",
    "feed_forward.intermediate_dense": "fc1",
    "feed_forward.output_dense": "fc2",
    r"(conv_layers\.\d+)\.conv": r"\1.0",
}


def microsoft_checkpoint(model, large):
    """{"cfg", "model"} in Microsoft's format, with the weights of transformers' WavLM."""
    norm = "2.1" if large else "2"
    weights = {}
    for name, tensor in model.state_dict().items():
        name = re.sub(r"(conv_layers\.\d+)\.layer_norm", rf"\1.{norm}", name)
        for source, target in MICROSOFT.items():
            name = re.sub(source, target, name)
        weights[name] = tensor
    cfg = {
        "extractor_mode": "layer_norm" if large else "default",
        **SMALL,
        "conv_bias": large,
        "layer_norm_first": large,
        "normalize": large,
        "relative_position_embedding": True,
        "num_buckets": 24,
        "max_distance": 60,
        "gru_rel_pos": True,
        "encoder_layerdrop": 0.05,
    }
    return {"cfg": cfg, "model": weights}


@pytest.mark.parametrize("large", [False, True], ids=["base", "large"])
def test_wavlm_in_microsofts_format(tmp_path, large):
    model = make_model("wavlm", large)
    torch.save(microsoft_checkpoint(model, large), tmp_path / "WavLM.pt")

    expected = hidden_states(model, normalize=1e-5 if large else None)
    assert deviation(load_ssl(tmp_path / "WavLM.pt"), expected) < 1e-5


def test_relative_positions_without_gate(tmp_path):
    checkpoint = microsoft_checkpoint(make_model("wavlm"), large=False)
    torch.save(checkpoint, tmp_path / "gated.pt")
    checkpoint["cfg"]["gru_rel_pos"] = False
    torch.save(checkpoint, tmp_path / "plain.pt")
    plain, gated = load_ssl(tmp_path / "plain.pt"), load_ssl(tmp_path / "gated.pt")
    for layer in gated.layers:  # a gate that is always 1: update 1, reset 0
        torch.nn.init.zeros_(layer.gate.weight)
        layer.gate.bias.data = torch.tensor([1e3] * 4 + [-1e3] * 4)
    with torch.no_grad():
        audio = recordings()
        for one, other in zip(plain(*pad_audio(audio))[0], gated(*pad_audio(audio))[0], strict=True):
            assert torch.allclose(one[3], other[3], atol=1e-5)


def test_training_in_bfloat16_reaches_every_weight(tmp_path):
    make_model("wavlm", large=True).save_pretrained(tmp_path)
    encoder = load_ssl(tmp_path).train()
    with torch.autocast("cpu", torch.bfloat16):
        layers, _ = encoder(*pad_audio(recordings()))
    sum(layer.float().square().mean() for layer in layers).backward()
    assert [name for name, value in encoder.named_parameters() if value.grad is None or not value.grad.any()] == []


def test_other_models_and_damaged_directories_are_named(tmp_path):
    model = make_model("hubert")
    model.save_pretrained(tmp_path / "good")
    config = json.loads((tmp_path / "good" / "config.json").read_text())

    def write(name, **changes):
        directory = tmp_path / name
        directory.mkdir()
        (directory / "config.json").write_text(json.dumps({**config, **changes}))
        return directory

    cases = {
        write("data2vec", model_type="data2vec-audio"): "data2vec-audio.*hubert, wav2vec2, wavlm",
        write("adapter", adapter_attn_dim=16): "adapter_attn_dim 16",
        write("activation", hidden_act="relu"): "hidden_act 'relu'",
        write("shape", conv_dim=[1, 2]): r"zip\(\)",
        write("stable", do_stable_layer_norm="false"): "do_stable_layer_norm 'false'",
        write("empty"): "model.safetensors.*pytorch_model.bin",
        tmp_path / "nothing": "hubert_tiny.*hubert_base",
    }
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "config.json").write_text("hubert")
    cases[tmp_path / "text"] = "/config.json:1: "
    cut = write("cut")
    (cut / "model.safetensors").write_bytes((tmp_path / "good" / "model.safetensors").read_bytes()[:20000])
    cases[cut] = "/model.safetensors: "
    cases[cut / "model.safetensors"] = ": "
    folder = write("folder")
    (folder / "model.safetensors").mkdir()
    cases[folder] = "/model.safetensors: "
    other = write("other", hidden_size=64)
    (other / "model.safetensors").write_bytes((tmp_path / "good" / "model.safetensors").read_bytes())
    cases[other] = ": .*(?s:.)*size mismatch"
    for path, value in cases.items():
        with pytest.raises(InputError, match=f"^{path}.*{value}"):
            load_ssl(path)


def test_a_hub_id_that_cannot_be_fetched_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FailedError, match=r"^someone/some-model: "):
        load_ssl("someone/some-model")


FAIRSEQ = {
    **SMALL,
    "conv_feature_layers": "[(32, 10, 5)] + [(32, 3, 2)] * 4 + [(32,2,2)] + [(32,2,2)]",
    "quantize_targets": True,
    "latent_vars": 8,
    "final_dim": 8,
}


def make_wav2vec2(large):
    """A wav2vec 2.0 of fairseq with random weights, and its settings."""
    wav2vec2 = pytest.importorskip("fairseq.models.wav2vec.wav2vec2", reason="fairseq is not installed")
    torch.manual_seed(0)
    changes = {"extractor_mode": "layer_norm", "layer_norm_first": True, "conv_bias": True} if large else {}
    settings = {**FAIRSEQ, **changes}
    module = wav2vec2.Wav2Vec2Model(wav2vec2.Wav2Vec2Config(**settings)).eval()
    for parameter in module.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return module, settings


def described(settings, normalize, older):
    """The settings in a checkpoint of fairseq.

    Older ones, such as the published wav2vec_small.pt, have the command line in `args` instead of `cfg`.
    """
    if older:
        arguments = {"arch": "wav2vec2", "task": "audio_pretraining", "normalize": normalize, **settings}
        return {"args": argparse.Namespace(**arguments)}
    task = {"_name": "audio_pretraining", "data": "", "normalize": normalize}
    return {"args": None, "cfg": {"model": {"_name": "wav2vec2", **settings}, "task": task}}


def states_of_fairseq(module, encoder, normalize):
    def states(audio):
        frames = encoder.config.num_frames(len(audio))  # fairseq pads to an even number with masked frames
        if normalize:
            audio = torch.nn.functional.layer_norm(audio, audio.shape)
        results = module.extract_features(audio[None], padding_mask=None)["layer_results"]
        return [result[0][:frames, 0] for result in results]

    return states


@pytest.mark.parametrize("older", [False, True], ids=["cfg", "command line"])
@pytest.mark.parametrize("large", [False, True], ids=["group norm, post-norm", "layer norm, pre-norm"])
def test_wav2vec2_of_fairseq(tmp_path, large, older):
    module, settings = make_wav2vec2(large)
    torch.save({**described(settings, large, older), "model": module.state_dict()}, tmp_path / "wav2vec2.pt")
    encoder = load_ssl(tmp_path / "wav2vec2.pt")
    assert deviation(encoder, states_of_fairseq(module, encoder, large)) < 1e-5


@pytest.mark.parametrize("older", [False, True], ids=["cfg", "command line"])
@pytest.mark.parametrize("normalize", [False, True])
def test_the_encoder_of_fairseqs_ctc_model(tmp_path, normalize, older):
    """The model of fairseq. The settings of pretraining in it say whether waveforms are normalised."""
    asr = pytest.importorskip("fairseq.models.wav2vec.wav2vec2_asr", reason="fairseq is not installed")
    from omegaconf import OmegaConf

    module, settings = make_wav2vec2(large=True)
    pretraining = described(settings, normalize, older=False)["cfg"]
    config = OmegaConf.structured(
        asr.Wav2Vec2CtcConfig(w2v_path="/elsewhere/wav2vec2.pt", data="", normalize=normalize, dropout=0.1)
    )
    OmegaConf.set_struct(config, False)
    config.w2v_args = pretraining
    model = asr.Wav2VecCtc(config, asr.Wav2VecEncoder(config, output_size=12)).eval()
    encoder = model.w2v_encoder.w2v_model
    missing, unknown = encoder.load_state_dict(module.state_dict(), strict=False)
    assert missing == [] and all(name.startswith(("quantizer", "project_q", "final_proj")) for name in unknown)
    if older:
        inner = described(settings, normalize, older=True)["args"]
        arguments = {"arch": "wav2vec_ctc", "task": "audio_finetuning", "w2v_args": inner, "w2v_path": config.w2v_path}
        about = {"args": argparse.Namespace(**arguments)}
    else:
        outer = {**OmegaConf.to_container(config, enum_to_str=True), "_name": "wav2vec_ctc", "normalize": normalize}
        about = {"args": None, "cfg": {"model": outer, "task": {"_name": "audio_finetuning"}}}
    path = tmp_path / "ctc.pt"
    torch.save({**about, "model": model.state_dict()}, path)
    loaded = load_ssl(path)
    assert deviation(loaded, states_of_fairseq(encoder, loaded, normalize)) < 1e-5
    if not older:
        for change, value in ({"w2v_args": None}, "/elsewhere/wav2vec2.pt"), ({"layer_type": "trf_adp"}, "trf_adp"):
            changed = {**about["cfg"], "model": {**outer, **change}}
            torch.save({"cfg": changed, "model": model.state_dict()}, path)
            with pytest.raises(InputError, match=f"^{path}: .*{value}"):
                load_ssl(path)


def test_tar_checkpoints_are_refused_without_temporary_files(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text('{"model_type": "hubert"}')
    (tmp_path / "preprocessor_config.json").write_text('{"do_normalize": false}')
    with tarfile.open(tmp_path / "pytorch_model.bin", "w") as packed:
        packed.addfile(tarfile.TarInfo("storages"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(InputError, match=f"^{tmp_path / 'pytorch_model.bin'}: "):
        load_ssl(tmp_path)
