"""The `distilmos` command: exit statuses, messages, help."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from distilmos import __version__
from distilmos.cli import main
from distilmos.data.datadir import Utterance, write_data_dir

PIPELINE = [
    "validate-data",
    "dump-audio",
    "dump-feats",
    "learn-kmeans",
    "kmeans-table",
    "dump-tokens",
    "train",
    "predict",
    "score",
    "compare",
    "analyze",
    "report",
    "export",
]


def distilmos(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "distilmos.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "a.wav", np.zeros(1600), 16000)
    write_data_dir(tmp_path / "data", [Utterance("a", tmp_path / "a.wav", "s", mos=3.0)])
    return tmp_path / "data"


def test_help_lists_the_commands_in_the_order_of_the_pipeline() -> None:
    done = distilmos("--help")
    assert done.returncode == 0
    names = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ") and line.split()]
    assert [name for name in names if name in PIPELINE] == PIPELINE


def test_version() -> None:
    assert distilmos("--version").stdout == f"distilmos {__version__}\n"


def test_done_is_0(data: Path, tmp_path: Path) -> None:
    done = distilmos("validate-data", data)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{data}: valid\n", "")
    assert distilmos("dump-audio", data, tmp_path / "raw").returncode == 0
    done = distilmos("merge-archives", tmp_path / "raw", "--jobs", "1")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "raw/wav.scp").exists()


def test_failed_work_is_1(tmp_path: Path) -> None:
    done = distilmos("run", tmp_path / "log", "false")
    assert done.returncode == 1
    assert done.stderr.startswith("distilmos run: failed: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["validate-data"],
        ["validate-data", "--no-such-option", "data"],
        ["validate-data", "nowhere"],
        ["dump-audio", "nowhere", "out"],
        ["dump-audio", "{data}", "out", "--job", "2"],
        ["dump-audio", "{data}", "out", "--job", "one"],
        ["merge-archives", "nowhere", "--jobs", "1"],
    ],
)
def test_bad_usage_and_bad_input_are_2(data: Path, tmp_path: Path, arguments: list[str]) -> None:
    done = distilmos(*(word.format(data=data) for word in arguments))
    assert done.returncode == 2
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "words",
    [
        "learn-kmeans --feats f --out o --layer 1 --clusters 0",
        "learn-kmeans --feats f --out o --layer 1 --seed -1",
        "learn-kmeans --feats f --out o --layer 1 --seed 4294967296",
        "learn-kmeans --feats f --out o --layer 0",
        "score --data d --results r --seed -1",
        "score --data d --results r --samples 0",
        "compare a b --seed -1",
        "compare a b --samples 0",
        "dump-feats --ssl hubert_tiny --data d --out o --max-frames -5",
        "dump-feats --ssl hubert_tiny --data d --out o --max-frames 0",
        "dump-feats --ssl hubert_tiny --data d --out o --seed -1",
        "dump-tokens --ssl hubert_tiny --kmeans k --data d --out o --batch-seconds 0",
        "predict a.wav --model m --batch-seconds nan",
        "predict a.wav --model m --batch-seconds inf",
        "dump-audio d o --job 0",
        "dump-audio d o --jobs 0",
        "merge-archives d --jobs 0",
        "run --num-threads 0 log true",
    ],
)
def test_option_values_out_of_range_are_2_and_named(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words.split())
    assert caught.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"distilmos {words.split()[0]}: error: argument --" in last
    assert " is not a " in last


def test_faults_of_several_directories_are_named_together(data: Path, tmp_path: Path) -> None:
    (data / "utt2mos").write_text("a 7\n")
    done = distilmos("validate-data", data, tmp_path / "nowhere")
    assert done.returncode == 2
    assert f"{data}/utt2mos:1: a: 7.0 is not in 1..5" in done.stderr
    assert f"{tmp_path}/nowhere: no such directory" in done.stderr
    assert done.stdout == ""


def test_a_port_that_no_machine_has() -> None:
    done = distilmos("web", "--port", "80000")
    assert done.returncode == 2
    assert "'80000' is not a whole number of at least 1 and at most 65535" in done.stderr
