"""The networks, whose scores do not depend on the batch, and the losses."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from entmax import entmax15 as reference_entmax15

from distilmos.errors import InputError
from distilmos.model.config import ModelConfig
from distilmos.model.losses import (
    NO_TOKEN,
    ScorePairs,
    contrastive_loss,
    likelihood_loss,
    regression_loss,
    token_loss,
    utterance_pairs,
)
from distilmos.model.mixing import entmax15
from distilmos.model.networks import build_model
from distilmos.model.package import load_model_dir, save_model_dir
from distilmos.model.spectral import HOP, WINDOW
from distilmos.ssl.forward import pad_audio
from distilmos.ssl.load import load_ssl
from distilmos.ssl.waveform import WaveformEncoder


def test_entmax_equals_the_reference_package_with_gradient():
    generator = torch.Generator().manual_seed(0)
    for scale in (0.0, 0.1, 1.0, 5.0, 50.0):
        scores = (torch.randn(12, generator=generator, dtype=torch.float64) * scale).requires_grad_()
        upstream = torch.randn(12, generator=generator, dtype=torch.float64)
        ours, theirs = entmax15(scores), reference_entmax15(scores, dim=0)
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=0)
        (grad,) = torch.autograd.grad(ours @ upstream, scores, retain_graph=True)
        (expected,) = torch.autograd.grad(theirs @ upstream, scores)
        torch.testing.assert_close(grad, expected, atol=1e-7, rtol=0)
    assert entmax15(torch.tensor([9.0, 0.0, 0.0])).tolist() == [1.0, 0.0, 0.0]


def recordings() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, generator=generator) * 0.1 for n in (400, 1500, 16000, 20000, 20001, 64000)]


def trained_looking(config: ModelConfig) -> torch.nn.Module:
    """A network with norms and layer weights away from their initial values."""
    torch.manual_seed(0)
    model = build_model(config, load_ssl("hubert_tiny"), 50)
    for name, tensor in model.state_dict().items():
        if not name.startswith("encoder.") and tensor.is_floating_point():
            tensor.add_(0.05 * torch.rand_like(tensor))
    if model.spectral is not None:  # its inputs are far from the start values of its norms
        for module in model.spectral.modules():
            module.momentum = 1
        model.train()(*pad_audio(recordings()))
    return model.eval()


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(),
        ModelConfig(strides=(2, 1, 3)),
        ModelConfig(target_layers=(2, 5)),
        ModelConfig(model="sslmos"),
        ModelConfig(regression_loss="nll"),
        ModelConfig(normalize_level=True),
        ModelConfig(spectral_dim=16, strides=(2, 1, 3)),
        ModelConfig(model="sslmos", spectral_dim=16),
        ModelConfig(model="spectral", spectral_dim=16),
    ],
    ids=[
        "distilmos",
        "strides",
        "two target layers",
        "sslmos",
        "expected errors",
        "normalised level",
        "spectra and strides",
        "sslmos with spectra",
        "spectra alone",
    ],
)
def test_scores_alone_and_in_any_batch_are_the_same(config):
    model = trained_looking(config)
    waves = recordings()
    with torch.no_grad():
        batch = model(*pad_audio(waves))
        pair = model(*pad_audio([waves[1], waves[5]]), with_tokens=False)
        assert pair.token_logits == []
        for index, wave in enumerate(waves):
            alone = model(wave[None], torch.tensor([len(wave)]))
            frames = int(alone.num_frames[0])
            assert frames == alone.frame_mos.shape[1] == batch.num_frames[index]
            assert abs(alone.mos[0] - batch.mos[index]) <= 1e-4
            if config.regression_loss == "nll":
                torch.testing.assert_close(alone.log_errors[0], batch.log_errors[index], atol=1e-4, rtol=0)
            torch.testing.assert_close(alone.frame_mos[0], batch.frame_mos[index, :frames], atol=1e-4, rtol=0)
            for one, many in zip(alone.token_logits, batch.token_logits, strict=True):
                torch.testing.assert_close(one[0], many[index, :frames], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(pair.mos, batch.mos[[1, 5]], atol=1e-4, rtol=0)


def test_padding_does_not_enter_the_batch_statistics_of_training():
    wave, samples = 0.1 * torch.randn(2, 19440), torch.tensor([19440, 10160])
    found = []
    for audio in (wave, torch.nn.functional.pad(wave, (0, 12800))):
        torch.manual_seed(0)
        config = ModelConfig(dropout=0.0, encoder_dropout=0.0, spectral_dim=16)
        model = build_model(config, load_ssl("hubert_tiny"), 50).train()
        model(audio, samples)
        found.append({name: value.clone() for name, value in model.named_buffers() if "running" in name})
    assert len(found[0]) == 2 * (3 + 4)
    torch.testing.assert_close(found[0], found[1])


def test_spectra_are_heard_whatever_their_level():
    """A click of one sample changes the scores of its time the most; twice the level changes none."""
    model = trained_looking(ModelConfig(model="spectral", spectral_dim=16))
    with torch.no_grad():
        wave = recordings()[3][None]
        clicked = wave.clone()
        clicked[0, 9000] += 2
        plain, loud, click = (model(audio, torch.tensor([20000])).frame_mos[0] for audio in (wave, 2 * wave, clicked))
    torch.testing.assert_close(loud, plain, atol=1e-4, rtol=0)
    heard = (click - plain).abs()
    assert 26 <= heard.argmax() <= 30


@pytest.mark.parametrize("normalised", [True, False])
def test_gain_changes_a_score_unless_the_level_is_normalised(normalised: bool):
    torch.manual_seed(0)
    config = ModelConfig(model="sslmos", head="statistics", normalize_level=normalised)
    model = build_model(config, load_ssl("whisper_tiny_en"), None).eval()
    torch.nn.init.normal_(model.linear.weight)  # the initial ones hardly use the features, which are not standardised
    wave = recordings()[5] * torch.linspace(0, 1, 64000)
    audio = torch.stack([wave, 3 * wave, wave / 3, -wave, 0 * wave])
    with torch.no_grad():
        scores = model(audio, torch.full((5,), 64000)).mos
    assert scores.isfinite().all()
    torch.testing.assert_close(scores[3], scores[0], atol=1e-4, rtol=0)
    assert ((scores[1:3] - scores[0]).abs() < 1e-3).all() == normalised


def test_standardised_statistics_give_the_same_scores():
    torch.manual_seed(0)
    model = build_model(ModelConfig(model="sslmos", head="statistics"), load_ssl("hubert_tiny"), None).eval()
    audio, samples = pad_audio(recordings())
    with torch.no_grad():
        model.statistics.mean.normal_()
        before = model(audio, samples)
        pooled = model.statistics.pool(*model.hidden_states(audio, samples))
        model.statistics.standardise(model.linear, pooled.numpy())
        after = model(audio, samples)
        novelty = model.statistics.novelty(pooled)
    torch.testing.assert_close(after.frame_scores, before.frame_scores, atol=1e-4, rtol=1e-4)
    assert novelty.mean() == pytest.approx(1, abs=1e-3)
    assert after.novelty is None  # there is no limit yet


def test_deviations_of_spectra_over_time_count():
    model = trained_looking(ModelConfig(model="spectral", spectral_dim=16))
    wave, samples = recordings()[3][None], torch.tensor([20000])
    weight = model.spectral.deviation.weight
    seen = []
    model.spectral.blocks[-1].register_forward_hook(lambda _module, _inputs, outputs: seen.append(outputs[0]))
    with torch.no_grad():
        full = model(wave, samples)
        channels = seen[0][0, :, : full.num_frames[0]].numpy()
        squares = np.square(channels - channels.mean(1, keepdims=True))
        expected = weight[0].numpy() @ (squares / channels.std(1, keepdims=True))  # mean over time: of the deviations
        weight.zero_()
        mean = model(wave, samples)
    np.testing.assert_allclose((full.mos - mean.mos).numpy(), [expected.mean()], atol=1e-4)
    np.testing.assert_allclose((full.frame_mos - mean.frame_mos)[0].numpy(), expected, atol=1e-4)


def test_spectra_need_frames_that_they_can_follow():
    encoder = load_ssl("hubert_tiny")
    for kernel, stride in ((10, 4), (5, 5)):
        shapes = ((encoder.config.conv_layers[0][0], kernel, stride), *encoder.config.conv_layers[1:])
        other = WaveformEncoder(replace(encoder.config, conv_layers=shapes))
        with pytest.raises(ValueError, match=f"{WINDOW} samples at multiples of {HOP}"):
            build_model(ModelConfig(model="sslmos", spectral_dim=16), other, None)


def test_a_single_frame_has_no_statistics_to_train_on():
    torch.manual_seed(0)
    model = build_model(ModelConfig(dropout=0.0, encoder_dropout=0.0), load_ssl("hubert_tiny"), 50)
    buffers = {name: buffer.clone() for name, buffer in model.feature_processor.named_buffers()}
    wave, samples = 0.1 * torch.randn(1, 500), torch.tensor([500])
    trained = model.train()(wave, samples)
    assert trained.num_frames.tolist() == [1]
    trained.mos.sum().backward()
    gradients = {name: p.grad for name, p in model.feature_processor.named_parameters() if name.endswith("pw.weight")}
    assert gradients and all(gradient.abs().sum() > 0 for gradient in gradients.values())
    for name, buffer in model.feature_processor.named_buffers():
        assert torch.equal(buffer, buffers[name])
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(wave, samples).mos, trained.mos)


def test_target_layers_choose_the_predictors():
    assert len(build_model(ModelConfig(target_layers=(1, 6)), load_ssl("hubert_tiny"), 50).predictors) == 2
    for layers in ((0,), (7,), (2, 2)):
        with pytest.raises(ValueError):
            build_model(ModelConfig(target_layers=layers), load_ssl("hubert_tiny"), 50)


def test_token_loss_is_the_mean_over_layers_of_the_cross_entropy_over_valid_frames():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 1, 4, 3, generator=generator)  # layers, B, T, K
    tokens = torch.tensor([[[0, 1, 2, NO_TOKEN], [2, 2, 0, NO_TOKEN]]])
    losses = token_loss(list(logits), tokens)
    log_probabilities = logits.log_softmax(-1)
    expected = -np.mean([log_probabilities[layer, 0, t, tokens[0, layer, t]] for layer in range(2) for t in range(3)])
    assert losses.loss.item() == pytest.approx(expected, rel=1e-5)
    assert losses.frames == 3
    assert losses.correct.tolist() == [
        sum(int(logits[layer, 0, t].argmax() == tokens[0, layer, t]) for t in range(3)) for layer in range(2)
    ]


def test_regression_losses():
    predicted, rated = torch.tensor([3.0, 3.0, 3.0]), torch.tensor([3.2, 4.0, 1.0])
    pairs = utterance_pairs(predicted[:, None], rated[:, None], torch.ones(1))
    assert regression_loss(pairs, "l1", 0.0).item() == pytest.approx((0.2 + 1 + 2) / 3)
    assert regression_loss(pairs, "mse", 0.0).item() == pytest.approx((0.04 + 1 + 4) / 3)
    assert regression_loss(pairs, "mse", 0.25).item() == pytest.approx((1 + 4) / 3)
    weighted = ScorePairs(predicted, rated, torch.tensor([0.5, 0.25, 0.25]))
    assert regression_loss(weighted, "l1", 0.0).item() == pytest.approx(0.1 + 0.25 + 0.5)


def test_the_likelihood_is_best_where_the_expected_error_is_the_mean_error():
    rated = torch.tensor([1.0, 2.0, 4.0])
    pairs = ScorePairs(rated + torch.tensor([0.3, -0.3, 0.9]), rated, torch.full((3,), 1 / 3))
    log_errors = torch.full((3,), math.log(0.5), requires_grad=True)
    loss = likelihood_loss(pairs, log_errors)
    assert loss.item() == pytest.approx(
        -torch.distributions.Laplace(pairs.predicted, 0.5).log_prob(rated).mean().item()
    )
    loss.backward()
    assert log_errors.grad.sum().item() == pytest.approx(0, abs=1e-6)
    assert log_errors.grad[2] < 0 < log_errors.grad[0]  # it should expect more of the last and less of the first


def test_missing_labels_do_not_count():
    none = float("nan")
    predicted = torch.tensor([[3.0, 1.0], [3.0, 2.0], [4.0, 3.0]], requires_grad=True)
    rated = torch.tensor([[3.5, none], [none, 4.0], [none, none]])
    pairs = utterance_pairs(predicted, rated, torch.tensor([1.0, 3.0]))
    loss = regression_loss(pairs, "l1", 0.0)
    assert loss.item() == pytest.approx((1 * 0.5 + 3 * 2) / 4)
    loss.backward()
    assert predicted.grad.tolist() == [[-0.25, 0], [0, -0.75], [0, 0]]
    empty = regression_loss(utterance_pairs(predicted[2:], rated[2:], torch.ones(2)), "mse", 0.0)
    assert empty.item() == 0


def test_contrastive_loss():
    predicted, rated = torch.tensor([3.0, 3.0, 3.5]), torch.tensor([3.2, 4.0, 1.0])
    # Differences: predicted 0, -0.5, -0.5; rated -0.8, 2.2, 3.0.
    assert contrastive_loss(predicted, rated, 0.0).item() == pytest.approx((0.8 + 2.7 + 3.5) / 3)
    assert contrastive_loss(predicted, rated, 1.0).item() == pytest.approx((0 + 1.7 + 2.5) / 3)
    assert contrastive_loss(predicted + 1, rated, 0.0).item() == contrastive_loss(predicted, rated, 0.0).item()
    assert contrastive_loss(predicted[:1], rated[:1], 0.0).item() == 0


def test_model_directory_round_trip(tmp_path):
    model = trained_looking(ModelConfig(target_layers=(3,), hidden_dim=32))
    save_model_dir(tmp_path / "m", model, {"seed": 3})
    again = load_model_dir(tmp_path / "m")
    wave = recordings()[2]
    with torch.no_grad():
        assert again(wave[None], torch.tensor([len(wave)])).mos == model(wave[None], torch.tensor([len(wave)])).mos


def test_damaged_model_directories_are_refused(tmp_path):
    save_model_dir(tmp_path / "m", trained_looking(ModelConfig(model="sslmos")))
    config, weights = tmp_path / "m" / "config.yaml", tmp_path / "m" / "model.safetensors"
    text, data = config.read_text(), weights.read_bytes()
    newer, unknown = text.replace("format: 1", "format: 3"), text.replace("sslmos", "sslmoss")
    norm = text.replace("conv_norm: group", "conv_norm: batch")
    assert norm != text
    for damaged in (newer, unknown, norm, "a: [", "!!python/name:os.system"):
        config.write_text(damaged)
        with pytest.raises(InputError, match=r"config\.yaml"):
            load_model_dir(tmp_path / "m")
    config.write_text(text)
    weights.write_bytes(data[:1000])
    with pytest.raises(InputError, match=r"model\.safetensors"):
        load_model_dir(tmp_path / "m")
    weights.unlink()
    weights.mkdir()
    with pytest.raises(InputError, match=r"model\.safetensors"):
        load_model_dir(tmp_path / "m")
    save_model_dir(tmp_path / "d", trained_looking(ModelConfig()))
    config = tmp_path / "d" / "config.yaml"
    text = config.read_text()
    config.write_text(re.sub(r"clusters: \d+", "clusters: -1", text))
    with pytest.raises(InputError, match=r"d/config\.yaml: .*-1"):
        load_model_dir(tmp_path / "d")


@pytest.mark.parametrize(
    ("pattern", "damaged", "value"),
    [
        (r"hidden_dim: \d+", "hidden_dim: 100000000", "100000000"),
        (r"clusters: \d+", "clusters: 100000000000", "100000000000"),
        (r"num_layers: \d+", "num_layers: 100000000", "num_layers .*100000000"),
        (r"encoder:\n(  .*\n)+", "encoder: [7]\n", r"\[7\]"),
    ],
)
def test_a_damaged_size_of_a_model_is_named_and_asks_for_no_memory(tmp_path, pattern, damaged, value):
    save_model_dir(tmp_path, trained_looking(ModelConfig()))
    config = tmp_path / "config.yaml"
    text = config.read_text()
    config.write_text(re.sub(pattern, damaged, text, count=1))
    assert config.read_text() != text
    with pytest.raises(InputError, match=rf"(?s)^{tmp_path}/(config\.yaml|model\.safetensors): .*{value}"):
        load_model_dir(tmp_path)
