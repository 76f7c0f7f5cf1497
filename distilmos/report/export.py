"""Stage 8: write the final model of an experiment as a directory that is independent of the recipe."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save

from distilmos.data.schema import MOS_SCALE
from distilmos.data.tables import read_yaml
from distilmos.errors import InputError
from distilmos.files import write_text
from distilmos.markdown import markdown_table, number
from distilmos.metrics import METRICS
from distilmos.model.calibration import add_calibrations, read_calibrations
from distilmos.model.directory import CARD, CONFIG, FINAL, WEIGHTS, weights_version
from distilmos.model.networks import EncoderNetwork, MOSNetwork
from distilmos.model.package import load_model_dir, write_model_files
from distilmos.report.experiment import Experiment, read_experiment
from distilmos.scoring.results import score_rows
from distilmos.ssl.store import halve

NO_LICENCE = "not stated; the licences of the training data and of the SSL encoder apply"


def export_model(
    experiment: str | Path, out_dir: str | Path, *, half: bool = False, licence: str | None = None
) -> MOSNetwork:
    """Copy the final model, which gets the name of the experiment, and its calibrations, and write its model card.

    Args:
        experiment: exp/<tag> after training; the card lists the scores of stage 7 if they exist.
        out_dir: exp/<tag>/model.
        half: whether to store the weights as float16; loading converts them back to float32.
        licence: licence of the weights, for the card; None if undecided.

    Returns:
        the final model, with weights as they were trained.

    Raises:
        InputError: if the experiment has no final model, one of its files is faulty, or a weight is too large for
            float16.
    """
    out_dir, final = Path(out_dir), Path(experiment) / FINAL
    if not (final / WEIGHTS).exists():
        raise InputError(f"{final / WEIGHTS}: no such file; finish the training first")
    model = load_model_dir(final)
    calibrations = read_calibrations(final)
    config = {"name": Path(experiment).resolve().name, **read_yaml(final / CONFIG)}
    card = _card(read_experiment(experiment), model, licence or NO_LICENCE)
    weights = save(halve(load_file(final / WEIGHTS))) if half else (final / WEIGHTS).read_bytes()
    write_model_files(out_dir, weights, config)
    write_text(out_dir / CARD, card)
    if calibrations:  # those that the user has made for the exported model stay
        exported = weights_version(out_dir)
        add_calibrations(out_dir, [each.model_copy(update={"model": exported}) for each in calibrations])
    return model


def _card(experiment: Experiment, model: MOSNetwork, licence: str) -> str:
    start = experiment.start
    config = model.config
    encoder = ""
    if isinstance(model, EncoderNetwork):
        shape = model.encoder_config
        encoder = f", encoder with {shape.num_layers} layers of width {shape.embed_dim}"
    lines = [
        f"# {experiment.tag}",
        "",
        f"Predicts {_subject(model)} of a recording of speech.",
        "",
        "```",
        "distilmos predict some.wav --model DIR",
        "```",
        "",
        f"- network: {config.model}, {model.num_parameters:,} parameters{encoder}",
        f"- code: commit {start.get('commit') or 'unknown'}; seed {start.get('seed', 'unknown')}",
        f"- licence: {licence}",
        *(
            f"- {name}: {data['utterances']} utterances, {data['seconds'] / 3600:.2f} hours"
            for name, data in start.get("data", {}).items()
        ),
    ]
    rows = [
        [scored.name, label, *(number(scores[level][name]["value"]) for name in METRICS)]
        for scored in experiment.sets
        for label, level, scores in score_rows(scored.metrics)
    ]
    if rows:
        lines += ["", markdown_table(["test set", "level", *METRICS], rows, left=2).rstrip()]
    notes = [f"{scored.name}: {scored.metrics['notes']}" for scored in experiment.sets if scored.metrics["notes"]]
    if notes:
        lines += ["", *notes]
    return "\n".join(lines) + "\n"


def _subject(model: MOSNetwork) -> str:
    if model.scales == (MOS_SCALE,):
        return "the mean opinion score (MOS, 1 to 5)"
    return " and ".join(f"{scale.name} ({scale.span})" for scale in model.scales)
