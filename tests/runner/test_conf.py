"""Configuration of a site's scheduler, in the syntax of Kaldi's scripts."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.cluster import REPOSITORY

from distilmos.errors import InputError
from distilmos.runner.conf import read_conf

# From the documentation of Kaldi's queue.pl.
KALDI = """# Default configuration
command qsub -v PATH -cwd -S /bin/bash -j y -l arch=*64*
option mem=* -l mem_free=$0,ram_free=$0
option mem=0          # Do not add anything to qsub_opts
option num_threads=* -pe smp $0
option num_threads=1  # Do not add anything to qsub_opts
option max_jobs_run=* -tc $0
default gpu=0
option gpu=0 -q all.q
option gpu=* -l gpu=$0 -q g.q
"""


def write(directory: Path, text: str) -> Path:
    path = directory / "site.conf"
    path.write_text(text)
    return path


def test_a_configuration_of_kaldi(tmp_path: Path) -> None:
    conf = read_conf(write(tmp_path, KALDI))
    assert conf.command == ["qsub", "-v", "PATH", "-cwd", "-S", "/bin/bash", "-j", "y", "-l", "arch=*64*"]
    assert conf.flags({}) == ["-q", "all.q"]
    assert conf.flags({"gpu": "2", "mem": "4G", "num_threads": "1"}) == [
        *("-l", "gpu=2", "-q", "g.q", "-l", "mem_free=4G,ram_free=4G")
    ]
    assert conf.flags({"gpu": "0", "mem": "0", "num_threads": "3"}) == ["-q", "all.q", "-pe", "smp", "3"]


def test_lines_that_kaldi_does_not_have(tmp_path: Path) -> None:
    text = "command sbatch\nprologue module load x # y\nprologue export A='b  c'\nmax_array_size 20\n"
    conf = read_conf(write(tmp_path, text))
    assert conf.prologue == ["module load x # y", "export A='b  c'"]
    assert conf.max_array_size == 20


def test_a_value_is_one_word(tmp_path: Path) -> None:
    conf = read_conf(write(tmp_path, "command sbatch\noption mem=* --mem='$0 x'\n"))
    assert conf.flags({"mem": "a b"}) == ["--mem=a b x"]


@pytest.mark.parametrize(
    ("text", "line", "value"),
    [
        ("", None, "'command ...'"),
        ("command\n", 1, "command PROGRAM"),
        ("command a\ncommand b\n", 2, "'command'"),
        ("# x\n\ncommand a\noptions gpu=0\n", 4, "'options'"),
        ("command a\noption gpu\n", 2, "option NAME=VALUE"),
        ("command a\noption gpu=0\noption gpu=0 -x\n", 3, "option gpu=0"),
        ("command a\ndefault gpu=0 x\n", 2, "'x'"),
        ("command a\nmax_array_size none\n", 2, "'none'"),
        ("command a 'b\n", 1, ""),
    ],
)
def test_faults_name_the_line(tmp_path: Path, text: str, line: int | None, value: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputError) as error:
        read_conf(path)
    assert str(error.value).startswith(f"{path}:{line}: " if line else f"{path}: ")
    assert value in str(error.value)


def test_an_option_without_a_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"site\.conf: .*--time 1:00:00.*option time="):
        read_conf(write(tmp_path, "command a\n")).flags({"time": "1:00:00"})


@pytest.mark.parametrize("name", ["slurm", "sge", "pbs"])
def test_the_examples_are_valid(name: str, tmp_path: Path) -> None:
    """Every line that is commented out is valid."""
    path = REPOSITORY / "conf" / f"{name}.conf"
    conf = read_conf(path)
    wanted = {"mem": "4G", "num_threads": "2", "gpu": "1", "time": "1:00:00"}
    assert "4G" in " ".join(conf.flags(wanted))
    keywords = ("command ", "option ", "prologue ", "max_array_size ")
    examples = [line[2:] for line in path.read_text().splitlines() if line[2:].startswith(keywords) and line[0] == "#"]
    assert len(examples) > 3
    for example in examples:
        start = "" if example.startswith("command ") else "command x\n"
        read_conf(write(tmp_path, f"{start}{example}\n"))
