"""The configuration of a site, in the syntax of Kaldi's scripts."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.cluster import REPOSITORY

from distilmos.errors import InputError
from distilmos.runner.conf import read_conf

# As in the documentation of Kaldi's queue.pl.
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


def test_a_file_of_kaldi_is_read(tmp_path: Path) -> None:
    conf = read_conf(write(tmp_path, KALDI))
    assert conf.command == ["qsub", "-v", "PATH", "-cwd", "-S", "/bin/bash", "-j", "y", "-l", "arch=*64*"]
    assert conf.flags({}) == ["-q", "all.q"]
    assert conf.flags({"gpu": "2", "mem": "4G", "num_threads": "1"}) == [
        *("-l", "gpu=2", "-q", "g.q", "-l", "mem_free=4G,ram_free=4G")
    ]
    assert conf.flags({"gpu": "0", "mem": "0", "num_threads": "3"}) == ["-q", "all.q", "-pe", "smp", "3"]


def test_lines_of_our_own(tmp_path: Path) -> None:
    text = "command sbatch\nprologue module load x # y\nprologue export A='b  c'\nmax_array_size 20\n"
    conf = read_conf(write(tmp_path, text))
    assert conf.prologue == ["module load x # y", "export A='b  c'"]
    assert conf.max_array_size == 20


def test_a_value_is_one_word(tmp_path: Path) -> None:
    conf = read_conf(write(tmp_path, "command sbatch\noption mem=* --mem='$0 x'\n"))
    assert conf.flags({"mem": "a b"}) == ["--mem=a b x"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "site.conf: has no line 'command ...'"),
        ("command\n", "site.conf:1: expected 'command PROGRAM ...'"),
        ("command a\ncommand b\n", "site.conf:2: a second line 'command'"),
        ("# x\n\ncommand a\noptions gpu=0\n", "site.conf:4: unknown line 'options'"),
        ("command a\noption gpu\n", "site.conf:2: expected 'option NAME=VALUE'"),
        ("command a\noption gpu=0\noption gpu=0 -x\n", "site.conf:3: a second line 'option gpu=0'"),
        ("command a\ndefault gpu=0 x\n", "site.conf:2: unexpected 'x'"),
        ("command a\nmax_array_size none\n", "site.conf:2: expected 'max_array_size N', not 'none'"),
        ("command a 'b\n", "site.conf:1: No closing quotation"),
    ],
)
def test_faults_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        read_conf(write(tmp_path, text))
    assert message in str(error.value)


def test_an_option_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"site.conf: says nothing of --time 1:00:00: it needs a line 'option time="):
        read_conf(write(tmp_path, "command a\n")).flags({"time": "1:00:00"})


@pytest.mark.parametrize("name", ["slurm", "sge", "pbs"])
def test_the_examples_can_be_used(name: str, tmp_path: Path) -> None:
    """Every commented line is a line that may be used."""
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
