"""Settings are typed, and each error names its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from distilmos.errors import InputError
from distilmos.training.config import TrainConfig, load_config

CONF = Path(__file__).resolve().parents[2] / "conf"


def faults_of(path: Path, text: str, *overrides: str) -> list[str]:
    """Load settings that must fail; return the errors."""
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_config(path, overrides)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


def check_faults(found: list[str], expected: dict[str, str]) -> None:
    """Check that each error starts with one of the expected places and names the value that belongs to it."""
    assert len(found) == len(expected), found
    for place, value in expected.items():
        (line,) = (line for line in found if line.startswith(place))
        assert value in line.removeprefix(place), line


def test_shipped_settings_are_the_defaults():
    assert load_config(CONF / "distilmos.yaml") == TrainConfig()
    assert set(load_config(CONF / "distilmos.yaml").model_fields_set) == set(TrainConfig.model_fields)
    assert load_config(CONF / "sslmos.yaml") == TrainConfig(model="sslmos", token_weight=0)


def test_numbers_as_people_write_them(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("encoder_lr: 2e-5\nhead_lr: 1E-3\ngrad_clip: 2\n")
    config = load_config(path, ["weight_decay=5e-2", "kernels=[3, 3, 3]"])
    assert (config.encoder_lr, config.head_lr, config.grad_clip, config.weight_decay) == (2e-5, 1e-3, 2.0, 0.05)
    assert config.kernels == (3, 3, 3)


def test_a_file_can_be_based_on_another(tmp_path):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "a.yaml").write_text("max_steps: 500\nencoder_lr: 2e-5\nhead_lr: 1e-4\n")
    (tmp_path / "conf" / "b.yaml").write_text("base: a.yaml\nencoder_lr: 1e-5\n")
    path = tmp_path / "c.yaml"
    path.write_text("max_steps: 300\nbase: conf/b.yaml\n")
    assert load_config(path, ["head_lr=1e-2"]) == TrainConfig(max_steps=300, encoder_lr=1e-5, head_lr=1e-2)
    # An error names the file that contains it.
    (tmp_path / "conf" / "a.yaml").write_text("max_steps: 500\nencoder_rl: 2e-5\n")
    check_faults(
        faults_of(path, "base: conf/b.yaml\npatience: no\n"),
        {f"{path}:2: patience: ": "False", f"{tmp_path}/conf/a.yaml:2: encoder_rl: ": "encoder_lr"},
    )
    check_faults(faults_of(path, "base: conf/x.yaml\n"), {f"{path}:1: base: ": "'conf/x.yaml'"})
    check_faults(faults_of(path, "\nbase: c.yaml\n"), {f"{path}:2: base: ": "c.yaml"})


def test_every_shipped_file_is_valid():
    paths = [*CONF.glob("*.yaml"), *CONF.parent.glob("egs/*/conf/*.yaml")]
    assert len(paths) >= 22
    for path in paths:
        if path.parent.parent.name != "hubert_tiny":  # that file is for fairseq
            load_config(path)


def test_every_encoder_has_a_baseline_that_differs_only_in_the_method():
    twins = sorted(CONF.glob("*_sslmos.yaml"))
    encoders = [path for path in CONF.glob("*.yaml") if not load_config(path).init_model]
    assert len(twins) == len(encoders) / 2 - 1  # distilmos.yaml and sslmos.yaml are the other pair
    for path in twins:
        model = load_config(path.with_name(path.name.replace("_sslmos", "")))
        assert load_config(path) == model.model_copy(update={"model": "sslmos", "token_weight": 0.0})


def test_all_faults_at_once_each_with_its_line(tmp_path):
    path = tmp_path / "c.yaml"
    text = "max_steps: 100\nencoder_rl: 1\nwarmup_steps: 100\nmax_steps: 9\nhead_lr: fast\nfreeze_conv: 1\nn_best: 0\n"
    found = faults_of(path, text, "patience=soon", "seed")
    expected = {
        f"{path}:2: encoder_rl: ": "encoder_lr",
        f"{path}:3: warmup_steps: ": "max_steps (100)",
        f"{path}:4: max_steps ": f"{path}:1",
        f"{path}:5: head_lr: ": "'fast'",
        f"{path}:6: freeze_conv: ": "found 1",
        f"{path}:7: n_best: ": "found 0",
        "--set patience=soon: patience: ": "'soon'",
        "--set seed: ": "key=value",
    }
    check_faults(found, expected)


@pytest.mark.parametrize(
    ("text", "place", "value"),
    [
        ("seed: 1\ngrad_clip: .inf\n", "2: grad_clip: ", "inf"),
        ("seed: 1\ntoken_weight: .nan\n", "2: token_weight: ", "nan"),
        ("best_metric: SRCC\n", "1: best_metric: ", "'system_SRCC'"),
        ("seed: 1\nbatch_seconds: 10\n", "2: batch_seconds: ", "max_seconds (30)"),
        ("seed: 1\nkernels: [5, 4, 3]\n", "2: kernels: ", "odd"),
        ("target_layers: some\n", "1: target_layers: ", "'all'"),
        ("seed: [1\nmodel: sslmos\n", "2: ", "YAML"),
        ("- seed\n", "1: ", "key: value"),
        ("seed: 1\n? [seed]\n: 2\n", "2: ", "key: value"),
        ("seed: 1\nmodel: !!python/name:os.system\n", "2: ", "python/name:os.system"),
    ],
)
def test_invalid_values(tmp_path, text, place, value):
    check_faults(faults_of(tmp_path / "c.yaml", text), {f"{tmp_path / 'c.yaml'}:{place}": value})


def test_strides_above_1_need_token_weight_0(tmp_path):
    path = tmp_path / "c.yaml"
    check_faults(faults_of(path, "seed: 1\nstrides: [1, 2, 1]\n"), {f"{path}:2: strides: ": "token_weight"})
    for other in ("token_weight=0", "model=sslmos"):
        assert load_config(path, [other]).strides == (1, 2, 1)


@pytest.mark.parametrize("text", ["layer_decay: 0.9", "head_steps: 9", "l2_sp: 0.1", "lora_rank: 8"])
@pytest.mark.parametrize("untrained", ["encoder_lr: 0", "model: spectral\nspectral_dim: 8\ntoken_weight: 0"])
def test_options_for_the_encoder_need_one_that_is_trained(tmp_path, text, untrained):
    path = tmp_path / "c.yaml"
    check_faults(faults_of(path, f"{untrained}\n{text}\n"), {f"{path}:{untrained.count(chr(10)) + 2}: ": "encoder"})


def test_options_for_the_encoder_that_exclude_each_other(tmp_path):
    path = tmp_path / "c.yaml"
    for text, named in {
        "lora_rank: 8\nl2_sp: 0.1": "l2_sp",
        "lora_rank: 8\nfreeze_conv: false": "freeze_conv",
        "head_steps: 90\nwarmup_steps: 10\nmax_steps: 100": "100",
    }.items():
        check_faults(faults_of(path, f"{text}\n"), {f"{path}:1: ": named})


def test_overrides_must_be_yaml_values(tmp_path):
    (tmp_path / "c.yaml").write_text("seed: 1\n")
    check_faults(faults_of(tmp_path / "c.yaml", "", "seed=2024-13-45"), {"--set seed=2024-13-45: ": ""})


def test_overrides_are_validated_together_with_the_file(tmp_path):
    found = faults_of(tmp_path / "c.yaml", "warmup_steps: 50\n", "max_steps=10")
    check_faults(found, {f"{tmp_path / 'c.yaml'}:1: warmup_steps: ": "max_steps (10)"})
    assert "--set max_steps=10" in found[0]  # the other setting may be the wrong one
