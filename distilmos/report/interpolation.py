"""Write the models between the pretrained and the fine-tuned encoder of a run, and score them on rated sets."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from distilmos.data.datadir import read_data_dir
from distilmos.data.recordings import find_recordings
from distilmos.data.tables import read_yaml
from distilmos.errors import InputError
from distilmos.files import replaced_directory, write_json, write_text
from distilmos.inference.output import UTT2MOS
from distilmos.inference.predict import PredictOptions, Score
from distilmos.inference.tofile import FileJob, predict_to_file
from distilmos.inference.torch_runtime import TorchRuntime
from distilmos.markdown import markdown_table, number
from distilmos.model.directory import CONFIG, FINAL, LOG
from distilmos.model.networks import EncoderNetwork
from distilmos.model.package import load_model_dir, save_model_dir
from distilmos.provenance import commit, machine, machine_text, now
from distilmos.report.experiment import Experiment, read_experiment
from distilmos.scoring.results import count_line, rated_targets, scale_in, score_results
from distilmos.ssl.forward import choose_device
from distilmos.training.config import TrainConfig, load_config
from distilmos.training.interpolate import interpolate_weights, starting_encoder
from distilmos.training.measure import measure_alone
from distilmos.training.ratedset import RatedSet, read_rated_set

DIRECTORY = "interpolated"
PAGE, RESULT = "INTERPOLATION.md", "interpolation.json"
COLUMNS = (("utterance", "LCC"), ("utterance", "SRCC"), ("utterance", "MSE"), ("system", "LCC"))


@dataclass(frozen=True)
class InterpolationOptions:
    """The run, the points and the data of an interpolation.

    Attributes:
        experiment: finished run, exp/<tag>.
        alphas: weights of the fine-tuned encoder, 0 to 1.
        train: training set of the run, for batch norms and the limit of novelty; None for the directory that the log
            names.
        data: rated data directories to predict and score.
        device: device name, see `choose_device`.
        batch_seconds: see `PredictOptions`.
    """

    experiment: Path
    alphas: tuple[float, ...]
    train: Path | None
    data: tuple[Path, ...]
    device: str = "auto"
    batch_seconds: float = PredictOptions.batch_seconds


def alpha_text(alpha: float) -> str:
    """Return alpha as a user writes it, such as 0.25 or 1."""
    return f"{alpha:.15g}"


def interpolate(options: InterpolationOptions) -> Iterator[Path]:
    """Write EXP/interpolated/alpha_A for each alpha; with `data`, also the scores of all of them on one page.

    An existing directory of the same alpha is replaced. All inputs are read before the first one is written.

    Yields:
        each model directory once it is written; the page at the end.

    Raises:
        InputError: if the run has not ended or has no encoder, if an input is missing, faulty or not that of the run,
            or if a recording cannot be used.
        FailedError: if reading is stalled, or the pretrained encoder cannot be fetched.
    """
    device = choose_device(options.device)
    experiment = read_experiment(options.experiment)
    if not experiment.end:
        raise InputError(f"{experiment.path}: the run has not ended; finish training first")
    config = load_config(experiment.path / CONFIG)
    final = experiment.path / FINAL
    model = load_model_dir(final)
    if not isinstance(model, EncoderNetwork):
        raise InputError(f"{final}: the model has no encoder to interpolate")
    start = starting_encoder(config, experiment.start)
    if start.config != model.encoder.config:
        raise InputError(f"{final}: its encoder has another shape than the one that the run started from")
    train = _training_set(experiment, options.train, config, model)
    sets = _rated_sets(options.data, model)
    about = read_yaml(final / CONFIG).get("about", {})
    if not isinstance(about, dict):
        raise InputError(f"{final / CONFIG}: about: {about!r:.100} is not a mapping")
    before, after = start.state_dict(), model.encoder.state_dict()
    out = experiment.path / DIRECTORY
    rows = []
    for text, alpha in {alpha_text(alpha): alpha for alpha in options.alphas}.items():
        mixed = copy.deepcopy(model)
        mixed.encoder.load_state_dict(interpolate_weights(before, after, alpha))
        if alpha != 1:
            mixed.novelty_limit = None  # it was measured with the encoder of the run
        measure_alone(mixed.to(device), train, config, device)
        origin = {"run": experiment.tag, "start": config.init_model or config.ssl_model, "alpha": alpha}
        with replaced_directory(out / f"alpha_{text}") as directory:
            save_model_dir(directory, mixed, about | {"interpolation": origin})
            scores = {}
            for name, data in sets.items():
                _predict(mixed, data, directory / "results" / name, device, options.batch_seconds)
                scores[name] = score_results(data, directory / "results" / name)
        yield out / f"alpha_{text}"
        rows.append({"alpha": alpha, "directory": f"alpha_{text}", "sets": scores})
    if sets:
        result = {
            "run": str(experiment.path),
            "start": config.init_model or config.ssl_model,
            "time": now(),
            "commit": commit(),
            "hardware": machine(device),
            "train": str(train.path),
            "data": {name: str(path) for name, path in sets.items()},
            "models": rows,
        }
        write_json(out / RESULT, result)
        write_text(out / PAGE, _page(result))
        yield out / PAGE


def _training_set(experiment: Experiment, given: Path | None, config: TrainConfig, model: EncoderNetwork) -> RatedSet:
    """Read the training set; its numbers of utterances and seconds must be those in the log of the run."""
    log = experiment.path / LOG
    noted = (experiment.start.get("data") or {}).get("train", {})
    named = noted.get("dir") or "(unknown)"
    path = given or Path(named)
    if given is None and not path.is_dir():
        raise InputError(f"{log}: names the training set {named}, which does not exist here; give it with --train")
    train = read_rated_set(path, config.max_seconds, model.encoder_config.max_seconds, config.targets)
    found = {"utterances": len(train.utterances), "seconds": train.seconds}
    if differs := [name for name, value in found.items() if value != noted.get(name)]:
        name = differs[0]
        raise InputError(f"{path}: is not the training set of {log}: {name}: {found[name]}, not {noted.get(name)}")
    return train


def _rated_sets(directories: tuple[Path, ...], model: EncoderNetwork) -> dict[str, Path]:
    """Return the name of each set and its directory; each must have ratings of a target of the model."""
    sets: dict[str, Path] = {}
    for path in directories:
        data = read_data_dir(path, rated=False)
        if not data.mos and not {scale.name for scale in model.scales} & set(data.targets):
            raise InputError(f"{path}: has no ratings of {', '.join(scale.name for scale in model.scales)}")
        name = path.resolve().name
        if name in sets:
            raise InputError(f"--data: {sets[name]} and {path} have the same name")
        sets[name] = path
    return sets


def _predict(model: EncoderNetwork, data: Path, out: Path, device: torch.device, batch_seconds: float) -> None:
    """Write the tables that `distilmos predict DATA --out OUT/utt2mos` writes.

    Raises:
        InputError: if a recording cannot be used.
    """

    def refuse_errors(scores: Iterable[Score], _: int) -> Iterator[Score]:
        for score in scores:
            if score.error:
                raise InputError(score.error)
            yield score

    options = PredictOptions(batch_seconds=batch_seconds)
    recordings = find_recordings([str(data)])
    predict_to_file(TorchRuntime(model, device), recordings, options, FileJob(out / UTT2MOS), refuse_errors)


def _page(result: dict[str, Any]) -> str:
    """Return the content of interpolation.json as a page in Markdown."""
    rows, counts = [], []
    for name in result["data"]:
        scored = [(model["alpha"], model["sets"][name]) for model in result["models"]]
        several = "targets" in scored[0][1]
        counts.append(f"- {name}: {count_line(scored[0][1])}")
        for place, target in enumerate(rated_targets(scored[0][1])):
            label = f"{name}, {scale_in(target).name}" if several else name
            for alpha, metrics in scored:
                values = rated_targets(metrics)[place]
                rows.append(
                    [label, alpha_text(alpha), *(number(values[level][metric]["value"]) for level, metric in COLUMNS)]
                )
    return "\n".join(
        [
            f"# {Path(result['run']).resolve().name}: interpolated encoders\n",
            f"The weights of each encoder are (1 - alpha) * those of {result['start']} + alpha * the fine-tuned ones; "
            "the heads are as trained. alpha 1 is the trained model.\n",
            markdown_table(["set", "alpha", *map(" ".join, COLUMNS)], rows, left=2),
            *counts,
            f"- commit: `{result['commit'] or 'unknown'}`; {result['time']}",
            f"- hardware: {machine_text(result['hardware'])}\n",
        ]
    )
