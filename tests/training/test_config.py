"""Settings are typed, and every fault is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from distilmos.errors import InputError
from distilmos.training.config import TrainConfig, load_config

CONF = Path(__file__).resolve().parents[2] / "conf"


def faults_of(path: Path, text: str, *overrides: str) -> list[str]:
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_config(path, overrides)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


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
    # A fault is named in the file that has it.
    (tmp_path / "conf" / "a.yaml").write_text("max_steps: 500\nencoder_rl: 2e-5\n")
    assert faults_of(path, "base: conf/b.yaml\npatience: no\n") == [
        f"{path}:2: patience: input should be a valid integer, found False",
        f"{tmp_path}/conf/a.yaml:2: encoder_rl: no such setting; did you mean encoder_lr?",
    ]
    assert faults_of(path, "base: conf/x.yaml\n") == [f"{path}:1: base: no file 'conf/x.yaml' beside this one"]
    assert faults_of(path, "\nbase: c.yaml\n") == [f"{path}:2: base: c.yaml is based on this file itself"]


def test_every_shipped_file_is_valid():
    paths = [*CONF.glob("*.yaml"), *CONF.parent.glob("egs/*/conf/*.yaml")]
    assert len(paths) >= 22
    for path in paths:
        if path.parent.parent.name != "hubert_tiny":  # that one is fairseq's
            load_config(path)


def test_every_encoder_has_a_baseline_that_differs_in_the_method_alone():
    twins = sorted(CONF.glob("*_sslmos.yaml"))
    assert len(twins) == len(list(CONF.glob("*.yaml"))) / 2 - 1  # distilmos.yaml and sslmos.yaml are the other pair
    for path in twins:
        model = load_config(path.with_name(path.name.replace("_sslmos", "")))
        assert load_config(path) == model.model_copy(update={"model": "sslmos", "token_weight": 0.0})


def test_all_faults_at_once_each_with_its_line(tmp_path):
    path = tmp_path / "c.yaml"
    text = "max_steps: 100\nencoder_rl: 1\nwarmup_steps: 100\nmax_steps: 9\nhead_lr: fast\nfreeze_conv: 1\nn_best: 0\n"
    found = faults_of(path, text, "patience=soon", "seed")
    expected = {
        f"{path}:2: encoder_rl: no such setting; did you mean encoder_lr?",
        f"{path}:3: warmup_steps: must be less than max_steps (100), found 100",
        f"{path}:4: max_steps is already set in {path}:1",
        f"{path}:5: head_lr: input should be a valid number, found 'fast'",
        f"{path}:6: freeze_conv: input should be a valid boolean, found 1",
        f"{path}:7: n_best: input should be greater than 0, found 0",
        "--set patience=soon: patience: input should be a valid integer, found 'soon'",
        "--set seed: expected key=value",
    }
    assert set(found) == expected


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("seed: 1\ngrad_clip: .inf\n", 2, "finite"),
        ("seed: 1\ntoken_weight: .nan\n", 2, "finite"),
        ("best_metric: SRCC\n", 1, "'system_SRCC'"),
        ("seed: 1\nbatch_seconds: 10\n", 2, "max_seconds"),
        ("seed: 1\nkernels: [5, 4, 3]\n", 2, "odd"),
        ("target_layers: some\n", 1, "'all'"),
        ("seed: [1\nmodel: sslmos\n", 2, "not YAML"),
        ("- seed\n", 1, "key: value"),
        ("seed: 1\n? [seed]\n: 2\n", 2, "expected 'key: value'"),
        ("seed: 1\nmodel: !!python/name:os.system\n", 2, "not YAML"),
    ],
)
def test_impossible_values(tmp_path, text, line, words):
    (found,) = faults_of(tmp_path / "c.yaml", text)
    assert found.startswith(f"{tmp_path / 'c.yaml'}:{line}:")
    assert words in found


def test_strides_leave_no_token_per_frame(tmp_path):
    path = tmp_path / "c.yaml"
    (found,) = faults_of(path, "seed: 1\nstrides: [1, 2, 1]\n")
    assert found.startswith(f"{path}:2: strides: strides above 1 need token_weight 0")
    for other in ("token_weight=0", "model=sslmos"):
        assert load_config(path, [other]).strides == (1, 2, 1)


def test_overrides_that_are_no_value_are_faults(tmp_path):
    (tmp_path / "c.yaml").write_text("seed: 1\n")
    assert faults_of(tmp_path / "c.yaml", "", "seed=2024-13-45") == ["--set seed=2024-13-45: not a YAML value"]


def test_overrides_are_validated_together_with_the_file(tmp_path):
    (found,) = faults_of(tmp_path / "c.yaml", "warmup_steps: 50\n", "max_steps=10")
    assert found.startswith(f"{tmp_path / 'c.yaml'}:1: warmup_steps: must be less than max_steps (10)")
