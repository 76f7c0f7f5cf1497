"""All readers of files that a user gives. Each reads the input in the working directory as its command does."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from random import Random
from types import ModuleType
from typing import Any

import numpy as np
from helpers.recipes import EGS

from distilmos.analysis.material import read_material
from distilmos.analysis.result import read_analysis
from distilmos.data.archive import load_array, read_scp
from distilmos.data.audio import audio_seconds, read_audio, stream_audio
from distilmos.data.datadir import read_data_dir
from distilmos.data.download import unpack
from distilmos.data.dump import dump_audio, merge_shards
from distilmos.data.exports.importing import Choices, import_ratings
from distilmos.data.exports.places import Places, read_places
from distilmos.data.ffmpeg import find_format
from distilmos.data.fix import fix_data
from distilmos.data.recordings import find_recordings
from distilmos.data.schema import MOS_SCALE
from distilmos.data.tables import read_json
from distilmos.data.transform import combine_data, listed, split_data, subset_data
from distilmos.errors import InputError, raise_faults
from distilmos.inference.onnx_runtime import OnnxRuntime
from distilmos.inference.output import Journal
from distilmos.model.calibration import read_calibrations
from distilmos.model.directory import ModelInfo, find_model, read_corpora
from distilmos.model.official import load_official
from distilmos.model.package import load_model_dir
from distilmos.ratings.rules import Limits
from distilmos.ratings.screen import screen_ratings
from distilmos.references.result import read_result, reference_rows
from distilmos.report.analysis import write_analysis
from distilmos.report.datacard import write_cards
from distilmos.report.experiment import read_experiment
from distilmos.report.export import export_model
from distilmos.report.overview import read_published
from distilmos.report.page import write_report
from distilmos.runner.conf import read_conf
from distilmos.scoring.compare import compare_results, comparison_table
from distilmos.scoring.p1401 import p1401_table
from distilmos.scoring.results import count_line, p1401_rows, read_metrics, read_scored, score_results, score_table
from distilmos.ssl.fairseq_module import load_fairseq_module
from distilmos.ssl.load import load_ssl
from distilmos.tokens.info import TokenInfo
from distilmos.tokens.kmeans import learn_kmeans, load_centroids, write_quality_table
from distilmos.tokens.labels import read_tokens
from distilmos.tokens.pooled import read_pooled
from distilmos.training.checkpoint import load_checkpoint
from distilmos.training.config import load_config
from distilmos.training.monitor import Monitor

from . import inputs
from .check import DOCUMENTED, Reader
from .mutations import mutate


def in_turn(*reads: Callable[[], object]) -> Callable[[], None]:
    """Return a function that calls all of `reads`; a refusal by one must not hide a fault of the next."""

    def read() -> None:
        refusal: Exception | None = None
        for each in reads:
            try:
                each()
            except DOCUMENTED as error:
                refusal = refusal or error
        if refusal is not None:
            raise refusal

    return read


def read_sound() -> None:
    """Read a recording as `predict`, `validate-data` and `dump-audio` do."""
    in_turn(
        lambda: audio_seconds("a"),
        lambda: read_audio("a"),
        lambda: [part.size for part in stream_audio("a", 0.03)],
    )()


def read_container() -> None:
    """Follow the sizes in a file that ffmpeg would decode."""
    if not Path("a").exists():
        raise InputError("a: no such file")
    with Path("a").open("rb") as file:
        form = find_format(file)
        if form is None:
            raise InputError("a: unknown format")
        try:
            form.end(file, Path("a").stat().st_size)
        except ValueError as error:  # as its docstring says
            raise InputError(f"a: {error}") from None


def read_archived_sound() -> None:
    """Read recordings in an archive."""
    for path, offset in read_scp("wav.scp").values():
        in_turn(partial(audio_seconds, path, offset), partial(read_audio, path, offset))()


def read_lists() -> None:
    """Find and read the recordings of a wav.scp, of and of lists of paths, as `predict` does."""
    columns = {"wav.scp": None, "list.txt": None, "list.csv": "path", "list.tsv": "path"}
    in_turn(*(partial(_read_list, name, column) for name, column in columns.items()))()


def read_segments() -> None:
    """Read the segments of a Kaldi directory, as `predict` and `dump-audio` do."""
    in_turn(lambda: _read_list("data", None), lambda: dump_audio("data", "dump", 1, 1))()


def _read_list(name: str, column: str | None) -> None:
    in_turn(*(partial(_stream, recording) for recording in find_recordings([name], column)))()


def _stream(recording: Any) -> None:
    for part in recording.stream(10.0):
        assert part.size < 16000 * 60


def read_data_directory() -> None:
    """Validate, repair, join, split and describe a data directory."""

    def values() -> None:
        data = read_data_dir("data", rated=False)
        assert data.utterances and data.wavs and data.durations and data.systems
        for found in (data.mos, data.ratings, data.groups, data.system_mos, data.corpora):
            assert isinstance(found, dict)
        for path, offset in data.wavs.values():
            audio_seconds(path, offset)

    in_turn(
        values,
        lambda: read_data_dir("data", rated=Path("data/utt2mos").exists()),
        lambda: combine_data("joined", [("a", "data")]),
        lambda: subset_data("subset", "data", listed("list", None)),
        lambda: subset_data("subset2", "data", listed("systems", "utt2sys")),
        lambda: split_data("parts", "data", {"train": 1, "dev": 1}, "system", 1),
        lambda: read_material([Path("data")], {"colour": Path("labels")}),
        lambda: dump_audio("data", "dump", 1, 1),
        lambda: fix_data("data"),
    )()


def read_data_card() -> None:
    """Write the summary of a data directory."""
    write_cards(["data"])


def read_screening() -> None:
    """Screen the ratings of a data directory."""
    screen_ratings("data", "screened", Limits(min_ratings=1))


def read_exports() -> None:
    """Import the exports of listening tests, with and without a list of the recordings."""
    ours = [path for path in sorted(Path().iterdir()) if path.is_file() and not path.name.startswith("places")]
    for number, path in enumerate(ours):
        listed = [Path("places.csv"), Path("places.yaml")]
        in_turn(*(partial(_import, path, f"out{number}", found) for found in [None, *filter(Path.exists, listed)]))()


def _import(path: Path, out: str, listed: Path | None) -> None:
    places = Places(Path("db"), read_places(listed) if listed else {})
    import_ratings([path], Path(out), places, Choices(system=re.compile("wav")))
    read_data_dir(out)


def read_training_config() -> None:
    """Read a training configuration, alone and with settings of the command line."""
    in_turn(
        lambda: load_config("config.yaml"),
        lambda: load_config("base.yaml" if Path("base.yaml").exists() else "config.yaml", _settings()),
    )()


def _settings() -> list[str]:
    # Arguments of a command hold no NUL.
    return (
        Path("set").read_text("utf-8", "surrogateescape").replace("\0", "").splitlines() if Path("set").exists() else []
    )


def read_site_conf() -> None:
    """Read a scheduler's configuration and the flags for a job."""
    conf = read_conf("site.conf")
    conf.flags({"mem": "4G", "num_threads": "2", "gpu": "0"})


def read_model_directory() -> None:
    """Find and load a model directory."""
    in_turn(
        lambda: read_corpora("."),
        lambda: load_model_dir(find_model(".")),
        lambda: [target.calibrate(np.ones(3)) for each in read_calibrations(".") for target in each.targets],
    )()


def read_onnx() -> None:
    """Open the graph of a model directory, and score a second with it."""
    with OnnxRuntime(Path()).lanes(30.0) as score:
        score([np.zeros(16000, np.float32)])


def read_features() -> None:
    """Read features, as k-means does."""
    in_turn(
        *(partial(load_array, location) for location in _locations("layer2.scp")),
        lambda: learn_kmeans(".", 1, 2, 1, "kmeans"),
    )()


def _locations(name: str) -> list[tuple[Path, int | None]]:
    try:
        return list(read_scp(name).values())
    except DOCUMENTED:
        return []


def read_kmeans() -> None:
    """Read centroids, and collect their quality."""
    in_turn(lambda: load_centroids(".", TokenInfo.read(".")), lambda: write_quality_table("."))()


def read_token_ids() -> None:
    """Read token ids, as training does."""
    read_tokens(".", (1, 2), {"u1": 3, "u2": 2}, "0123")


def read_results() -> None:
    """Read, score and compare results directories."""
    in_turn(
        lambda: [text(read_metrics("a")) for text in (score_table, count_line)],
        lambda: read_scored("a"),
        lambda: comparison_table(compare_results("a", "b", samples=5)),
        lambda: score_results("data", "b", samples=5),
    )()


def read_journal() -> None:
    """Continue an interrupted prediction and write its file."""
    for path in Path().glob("*.partial"):
        journal = Journal(
            path.with_suffix(""),
            (MOS_SCALE,),
            ModelInfo("x", "", 320, 400, None, (MOS_SCALE,)),
            {"model": "x"},
            resume=True,
        )
        for _, name, _ in journal.scored():
            journal.admit(name)
        journal.finish()


def read_log() -> None:
    """Read the journal of a run for a report, then continue it."""
    in_turn(lambda: read_experiment("exp"), lambda: Monitor(Path("exp"), 100, 1, 10).close())()


def read_metrics_json() -> None:
    """Read metrics.json and write its table."""
    scores = read_metrics(".")
    assert score_table(scores) and count_line(scores) and p1401_table(p1401_rows(scores))


def read_download() -> None:
    """Unpack an archive with another one inside, as `distilmos download` does."""
    in_turn(*(partial(unpack, path, f"{path.name} unpacked", ("inner.zip",)) for path in _files(".zip", ".tgz")))()


def _files(*suffixes: str) -> list[Path]:
    return sorted(path for path in Path().iterdir() if path.suffix in suffixes and path.is_file())


@cache
def _script(path: Path) -> ModuleType:
    """Import a script that is not part of the package."""
    spec = importlib.util.spec_from_file_location("fuzz_" + "_".join(path.with_suffix("").parts[-3:]), path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look for it there
    sys.path.insert(0, str(path.parent))  # it may import its neighbours
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


def _prepare(recipe: str, script: str = "prepare") -> ModuleType:
    return _script(EGS / recipe / "local" / f"{script}.py")


def read_whisper_binary() -> None:
    """Convert CTranslate2's model, as tools/convert_whisper.py does."""
    tool = _script(EGS.parent / "tools" / "convert_whisper.py")
    model, _ = tool.read_inputs(sorted(Path().iterdir()))
    tool.convert(tool.read_model(model, "model"), "model")


def prepare(recipe: str, root: str, *options: str, script: str = "prepare") -> None:
    """Run stage 0 of a recipe."""
    former = sys.argv
    sys.argv = ["prepare.py", "--db_root", root, "--datadir", "prepared", "--allow_partial", "true", *options]
    try:
        _prepare(recipe, script).main()
    finally:
        sys.argv = former


def read_workbook() -> None:
    """Read the workbook of TCD-VoIP."""
    _, faults = _prepare("tcdvoip").read_scores(Path("book.xlsx"))
    raise_faults(faults, "book.xlsx")


def is_audio(name: str) -> bool:
    """Return whether a file is a recording."""
    return PurePosixPath(name).suffix.lower() == ".wav"


CORPORA = {
    "bvcc": "db/main",
    "somos": "db",
    "nisqa": "db",
    "hablamos": "db/HablaMOS",
    "ttsds2": "db",
    "speechocean762": "db/speechocean762",
    "p835": "db",
}

READERS = {
    reader.name: reader
    for reader in (
        *(Reader(f"audio_{kind}", partial(inputs.audio, kind), read_sound) for kind in inputs.FORMATS),
        Reader("audio_archive", inputs.archived_audio, read_archived_sound, confined=False),
        Reader("containers", inputs.containers, read_container),
        Reader("lists", inputs.lists, read_lists, is_audio, confined=False),
        Reader("segments", inputs.segmented, read_segments, is_audio, confined=False),
        Reader(
            "data_directory",
            inputs.data_directories,
            read_data_directory,
            is_audio,
            confined=False,
            share=3.0,
            examples=60,
        ),
        Reader("data_card", inputs.data_directories, read_data_card, is_audio, confined=False, share=0.5, examples=8),
        Reader(
            "screening",
            lambda: inputs.data_directories()[:1],
            read_screening,
            is_audio,
            confined=False,
            share=0.5,
            examples=8,
        ),
        Reader("exports", inputs.exports, read_exports, is_audio, confined=False),
        Reader("training_config", inputs.training_configs, read_training_config, confined=False, share=2.0),
        Reader("site_conf", inputs.site_confs, read_site_conf),
        Reader("fairseq", inputs.fairseq_checkpoints, lambda: load_ssl("x.pt"), share=2.0),
        Reader("microsoft", inputs.microsoft_checkpoints, lambda: load_ssl("x.pt")),
        Reader("transformers", inputs.transformers_directories, lambda: load_ssl(Path()), share=2.0),
        Reader("whisper_openai", inputs.openai_checkpoints, lambda: load_ssl("x.pt")),
        Reader("whisper_transformers", inputs.whisper_directories, lambda: load_ssl(Path())),
        Reader("whisper_binary", inputs.whisper_binaries, read_whisper_binary),
        Reader("own_encoder", inputs.own_encoders, lambda: load_ssl("x.safetensors")),
        Reader("model_directory", inputs.model_directories, read_model_directory, share=2.0),
        Reader("onnx", inputs.onnx_directories, read_onnx, share=2.0),
        Reader("released_model", inputs.released_models, lambda: load_official("model.pth.tar", "model_cfg.yaml")),
        Reader("training_checkpoint", inputs.training_checkpoints, lambda: load_checkpoint("last.pt")),
        Reader("features", inputs.features, read_features, confined=False),
        Reader("kmeans", inputs.kmeans, read_kmeans),
        Reader("tokens", inputs.tokens, read_token_ids, confined=False),
        Reader("pooled", inputs.pooled, lambda: read_pooled(".", ["u1", "u2"]), confined=False),
        Reader("shards", inputs.shards, lambda: merge_shards(".", 2)),
        Reader("results", inputs.results, read_results, is_audio, confined=False),
        Reader("metrics", inputs.metrics, read_metrics_json),
        Reader("references", inputs.references, lambda: reference_rows(read_result(Path()))),
        Reader("published", inputs.published, lambda: read_published("published.tsv")),
        Reader("journal", inputs.journals, read_journal),
        Reader("log", inputs.logs, read_log),
        Reader("experiment", inputs.experiments, lambda: read_experiment("exp", "kmeans")),
        Reader("export", inputs.experiments, lambda: export_model("exp", "out")),
        Reader("report", inputs.experiments, lambda: write_report("exp", "kmeans"), share=0.5, examples=3),
        Reader("analysis", inputs.analyses, lambda: write_analysis("analysis", "exp"), share=0.5, examples=6),
        Reader(
            "analysis_json", inputs.analyses, lambda: [read_analysis("analysis"), read_json("analysis/analysis.json")]
        ),
        Reader("download", inputs.archives, read_download),
        *(
            Reader(
                f"corpus_{name}", partial(inputs.corpus, name), partial(prepare, name, root), is_audio, confined=False
            )
            for name, root in CORPORA.items()
        ),
        Reader(
            "corpus_bvcc_ood",
            partial(inputs.corpus, "bvcc_ood"),
            partial(prepare, "bvcc", "db/ood", script="ood"),
            is_audio,
            confined=False,
        ),
        Reader(
            "corpus_mos_bench",
            partial(inputs.corpus, "mos_bench"),
            lambda: prepare("mos_bench", "db", "--sets", " ".join(_prepare("mos_bench").READERS)),
            is_audio,
            confined=False,
        ),
        Reader("workbook", inputs.workbooks, read_workbook),
    )
}
if find_spec("fairseq") is not None:
    fairseq = Reader(
        "fairseq_module", inputs.fairseq_modules, lambda: load_fairseq_module("x.pt"), share=0.5, examples=10
    )
    READERS[fairseq.name] = fairseq


@cache
def seeds(name: str) -> tuple[inputs.Files, ...]:
    """Return the valid inputs of a reader."""
    return tuple(READERS[name].seeds())


def make_input(name: str, seed: int, number: int) -> inputs.Files:
    """Return the broken input of a reader with this number."""
    rng = Random(f"{name} {seed} {number}")
    return mutate(rng.choice(seeds(name)), rng, READERS[name].fixed)
