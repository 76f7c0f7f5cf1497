"""Stage 8: write the final model of an experiment as a directory that is independent of the recipe."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save

from distilmos.data.tables import read_lines
from distilmos.errors import InputError
from distilmos.files import atomic_path, write_text
from distilmos.metrics import LEVELS, METRICS
from distilmos.model.networks import EncoderNetwork, MOSNetwork
from distilmos.model.package import CARD, CONFIG, WEIGHTS, load_model_dir

NO_LICENCE = "not stated; the licences of the training data and of the SSL encoder apply"


def export_model(
    experiment: str | Path, out_dir: str | Path, *, half: bool = False, licence: str | None = None
) -> MOSNetwork:
    """Copy the final model, write its model card, and load the copy to prove that it works.

    Args:
        experiment: exp/<tag> after training; the card lists the scores of stage 7 if they exist.
        out_dir: exp/<tag>/model.
        half: whether to store the weights as float16; loading converts them back to float32.
        licence: licence of the weights, for the card; None if undecided.

    Returns:
        the model loaded from `out_dir`.

    Raises:
        InputError: if the experiment has no final model.
    """
    experiment, out_dir = Path(experiment), Path(out_dir)
    final = experiment / "final"
    if not (final / WEIGHTS).exists():
        raise InputError(f"{final / WEIGHTS}: no such file; finish the training first")
    with atomic_path(out_dir / WEIGHTS) as temporary:
        if half:
            tensors = load_file(final / WEIGHTS)
            temporary.write_bytes(save({n: t.half() if t.is_floating_point() else t for n, t in tensors.items()}))
        else:
            shutil.copyfile(final / WEIGHTS, temporary)
    with atomic_path(out_dir / CONFIG) as temporary:
        shutil.copyfile(final / CONFIG, temporary)
    model = load_model_dir(out_dir)
    write_text(out_dir / CARD, _card(experiment, model, licence or NO_LICENCE))
    return model


def _card(experiment: Path, model: MOSNetwork, licence: str) -> str:
    events = [json.loads(line) for line in read_lines(experiment / "log.jsonl")]
    start: dict[str, Any] = next((event for event in events if event["event"] == "start"), {})
    config = model.config
    encoder = ""
    if isinstance(model, EncoderNetwork):
        shape = model.encoder_config
        encoder = f", encoder with {shape.num_layers} layers of width {shape.embed_dim}"
    lines = [
        f"# {experiment.name}",
        "",
        "Predicts the mean opinion score (MOS, 1 to 5) of a recording of speech.",
        "",
        "```",
        "distilmos predict some.wav --model DIR",
        "```",
        "",
        f"- network: {config.model}, {sum(p.numel() for p in model.parameters()):,} parameters{encoder}",
        f"- code: commit {start.get('commit') or 'unknown'}; seed {start.get('seed', 'unknown')}",
    ]
    lines.append(f"- licence: {licence}")
    for name, data in start.get("data", {}).items():
        lines.append(f"- {name}: {data['utterances']} utterances, {data['seconds'] / 3600:.2f} hours")
    results = sorted(experiment.glob("results/*/metrics.json"))
    if results:
        lines += ["", "| test set | level | " + " | ".join(METRICS) + " |", "| --- | --- |" + " ---: |" * len(METRICS)]
    notes = []
    for path in results:
        scored = json.loads(path.read_text(encoding="utf-8"))
        for level in LEVELS:
            if level in scored:
                cells = [_cell(scored[level][name]["value"]) for name in METRICS]
                lines.append(f"| {path.parent.name} | {level} | " + " | ".join(cells) + " |")
        if scored.get("notes"):
            notes.append(f"{path.parent.name}: {scored['notes']}")
    if notes:
        lines += ["", *notes]
    return "\n".join(lines) + "\n"


def _cell(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"
