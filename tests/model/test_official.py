"""Released checkpoints become model directories with the same outputs, in any batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml
from helpers.released import GOLDEN, write_released

from distilmos.cli import main
from distilmos.model.package import load_model_dir
from distilmos.ssl.forward import pad_audio

WIDTHS = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 3}
SMALL = {**WIDTHS, "conv_dim": [32] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}


def import_official(folder, out):
    files = ["--checkpoint", str(folder / "model.pth.tar"), "--config", str(folder / "model_cfg.yaml")]
    return main(["import-official", *files, "--out", str(out)])


def outputs(model, audio):
    """Return the outputs of our network for a single waveform (N,)."""
    with torch.no_grad():
        layers, _ = model.encoder(audio[None], torch.tensor([len(audio)]))
        found = model(audio[None], torch.tensor([len(audio)]))
    logits = torch.cat(found.token_logits)
    return {"layers": torch.cat(layers), "token_logits": logits, "frame_mos": found.frame_mos[0], "mos": found.mos[0]}


@pytest.mark.parametrize("kind", ["w2v2", "wavlm"])
def test_golden_files(tmp_path, kind):
    folder = GOLDEN / f"official_{kind}_small"
    assert import_official(folder, tmp_path / "model") == 0
    model = load_model_dir(tmp_path / "model")
    expected = np.load(folder / "expected.npz")
    torch.testing.assert_close(model.layer_weights(), torch.from_numpy(expected["layer_weights"]), atol=1e-5, rtol=0)
    for index in range(2):
        for name, value in outputs(model, torch.from_numpy(expected[f"wav_{index}"])).items():
            stored = torch.from_numpy(expected[f"{name}_{index}"]).reshape(value.shape)
            torch.testing.assert_close(value, stored, atol=1e-5, rtol=0)


VARIANTS = {
    "strides": {"downsample_strides": [2, 1, 2], "downsample_kernels": [5, 7, 3]},
    "two blocks": {"downsample_strides": [2, 4], "downsample_kernels": [5, 7]},
    "target layers": {"target_layers": [3, 1]},
    "layer norm": {"w2v2_cfg": {"feat_extract_norm": "layer", "conv_bias": True}},
    "large": {"w2v2_cfg": {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}},
    "widths": {"hidden_dim": 40, "w2v2_cfg": {"hidden_size": 48, "conv_dim": [16] * 6 + [24], "num_hidden_layers": 5}},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_variants_without_golden_files(tmp_path, changes):
    settings = {"hidden_dim": 24, "downsample_strides": [1, 1, 1], "downsample_kernels": [5, 3, 3], **changes}
    settings |= {"ssl_backbone": "w2v2", "w2v2_cfg": {**SMALL, **changes.get("w2v2_cfg", {})}}
    reference = write_released(tmp_path / "released", settings)
    assert import_official(tmp_path / "released", tmp_path / "model") == 0
    model = load_model_dir(tmp_path / "model")
    torch.manual_seed(1)
    recordings = [0.1 * torch.randn(length) for length in (3000, 16001, 20480)]
    with torch.no_grad():
        together = model(*pad_audio(recordings)).mos
    for index, audio in enumerate(recordings):
        expected = reference(audio)
        for name, value in outputs(model, audio).items():
            torch.testing.assert_close(value, expected[name], atol=1e-5, rtol=0)
        torch.testing.assert_close(together[index], expected["mos"], atol=1e-5, rtol=0)


def test_other_checkpoints_are_refused(tmp_path, capsys):
    settings = {"ssl_backbone": "w2v2", "w2v2_cfg": SMALL, "hidden_dim": 24}
    settings |= {"downsample_strides": [1, 1, 1], "downsample_kernels": [5, 3, 3]}
    model = write_released(tmp_path / "good", settings)

    def folder(name, weights=None, **changes):
        path = tmp_path / name
        path.mkdir()
        torch.save(weights if weights is not None else {"model": model.state_dict()}, path / "model.pth.tar")
        (path / "model_cfg.yaml").write_text(yaml.safe_dump({**settings, **changes}))
        return path

    weights = model.state_dict()
    missing = {name: value for name, value in weights.items() if name != "decoder.cnn.bias"}
    cases = {
        folder("backbone", ssl_backbone="hubert"): "model_cfg.yaml: |'hubert'",
        folder("kernels", downsample_kernels=[5, 3]): "model_cfg.yaml: |kernels and strides",
        folder("even", downsample_kernels=[5, 3, 4]): "model_cfg.yaml: |odd",
        folder("width", hidden_dim=32): "model.pth.tar: |model_cfg.yaml",
        folder("memory", hidden_dim=10**8): "model.pth.tar: |100000000",
        folder("layer", target_layers=[9]): "model_cfg.yaml: |[9]|1..3",
        folder("targets", target_layers=[1]): "model.pth.tar: |predictors.1.layers.0.bias",
        folder("fewer", w2v2_cfg={**SMALL, "num_hidden_layers": 2}): "model.pth.tar: |2 layers",
        folder("missing", {"model": missing}): "model.pth.tar: |1 |decoder.cnn.bias",
        folder("settings", w2v2_cfg=[1]): "model_cfg.yaml: |list",
        folder("wavlm", ssl_backbone="wavlm", wavlm_cfg="x"): "model_cfg.yaml: |WavLM|str",
        folder("further", {"model": weights | {"ssl.adapter.weight": weights["decoder.cnn.bias"]}}): "adapter.weight",
        folder("list", [1, 2]): "model.pth.tar: |'model'",
    }
    (tmp_path / "good" / "model_cfg.yaml").write_text("- a\n")
    cases[tmp_path / "good"] = "model_cfg.yaml: |key: value"
    # Each error names the file, and values that only this fault shows.
    for path, values in cases.items():
        assert import_official(path, tmp_path / "out") == 2
        error = capsys.readouterr().err
        assert all(value in error for value in values.split("|")), error
        assert not (tmp_path / "out").exists()
    assert main(["import-official", "--hub", "a/b", "--config", "x", "--out", str(tmp_path / "out")]) == 2
