"""The `distilmos` command: exit statuses, errors, help."""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from distilmos import __version__, commands, provenance
from distilmos.cli import GROUPS, main
from distilmos.data.datadir import Utterance, write_data_dir
from distilmos.errors import PREEMPTED


def distilmos(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "distilmos.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "a.wav", np.zeros(1600), 16000)
    write_data_dir(tmp_path / "data", [Utterance("a", tmp_path / "a.wav", "s", mos=3.0)])
    return tmp_path / "data"


def test_help_lists_every_command_in_one_group() -> None:
    """A module of `distilmos.commands` with `add_arguments` is a command; packages there are not."""
    names = [module.name for module in pkgutil.iter_modules(commands.__path__)]
    modules = {name: importlib.import_module(f"{commands.__name__}.{name}") for name in names}
    expected = sorted(name.replace("_", "-") for name, module in modules.items() if hasattr(module, "add_arguments"))
    listed = [name for group in GROUPS.values() for name in group]
    assert sorted(listed) == expected
    done = distilmos("--help")
    assert done.returncode == 0
    first_words = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")]
    assert [word for word in first_words if not word.startswith("-")] == listed


def test_groups_follow_the_pipeline() -> None:
    """The stages in the help texts never go down within a group."""
    for group in ("data", "stages"):
        numbers = [int(found[1]) for text in GROUPS[group].values() if (found := re.search(r"\(stage (\d)\)", text))]
        assert numbers == sorted(numbers), group


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
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ("pass", 0, ""),
        ("raise InputError('x:3: no')", 2, "local.py: error: x:3: no\n"),
        ("raise FailedError('no')", 1, "local.py: failed: no\n"),
        ("open('nowhere')", 1, "local.py: failed: .*'nowhere'\n"),
        ("raise PreemptedError('stopped')", PREEMPTED, "local.py: stopped; .*\n"),
        ("warnings.warn('x: odd', InputWarning)", 0, "local.py: warning: x: odd\n"),
        ("import gradio_", 2, "local.py: error: .*gradio_.*\n"),
    ],
)
def test_scripts_of_recipes_report_as_commands_do(tmp_path: Path, body: str, status: int, said: str) -> None:
    script = tmp_path / "local.py"
    script.write_text(f"import warnings\nfrom distilmos.errors import *\ndef main():\n    {body}\nrun_main(main)\n")
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == status
    assert re.fullmatch(said, done.stderr)


def test_the_commit_is_that_of_the_code(tmp_path: Path) -> None:
    """A repository around the installed package is another one."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    package = tmp_path / "distilmos"
    package.mkdir()
    (package / "provenance.py").write_bytes(Path(provenance.__file__).read_bytes())
    (tmp_path / "notes").touch()

    def found() -> str:
        command = [sys.executable, "-c", "import provenance; print(provenance.commit())"]
        return subprocess.run(command, cwd=package, capture_output=True, text=True, check=True).stdout.strip()

    assert found() == "None"
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "notes"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "notes"], check=True)
    assert found() == "None"
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "code"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert found() == head
    (tmp_path / "notes").write_text("changed")
    assert found() == f"{head}-dirty"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("no-such-command", "no-such-command"),
        ("validate-data", "DIR"),
        ("validate-data --no-such-option data", "--no-such-option"),
        ("validate-data nowhere", "nowhere"),
        ("dump-audio nowhere out", "nowhere"),
        ("dump-audio {data} out --job 2", "2"),
        ("dump-audio {data} out --job one", "one"),
        ("merge-archives nowhere --jobs 1", "nowhere"),
    ],
)
def test_bad_usage_and_bad_input_are_2(data: Path, words: str, named: str) -> None:
    done = distilmos(*words.format(data=data).split())
    assert done.returncode == 2
    assert re.search(rf"\b{named.strip('-')}\b", done.stderr.partition(": error: ")[2])
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("words", "option", "value"),
    [
        ("learn-kmeans --feats f --out o --layer 1", "--clusters", "0"),
        ("learn-kmeans --feats f --out o --layer 1", "--seed", "-1"),
        ("learn-kmeans --feats f --out o --layer 1", "--seed", "4294967296"),
        ("learn-kmeans --feats f --out o", "--layer", "0"),
        ("score --data d --results r", "--seed", "-1"),
        ("score --data d --results r", "--samples", "0"),
        ("compare a b", "--seed", "-1"),
        ("compare a b", "--samples", "0"),
        ("dump-feats --ssl hubert_tiny --data d --out o", "--max-frames", "-5"),
        ("dump-feats --ssl hubert_tiny --data d --out o", "--max-frames", "0"),
        ("dump-feats --ssl hubert_tiny --data d --out o", "--seed", "-1"),
        ("dump-tokens --ssl hubert_tiny --kmeans k --data d --out o", "--batch-seconds", "0"),
        ("predict a.wav --model m", "--batch-seconds", "nan"),
        ("predict a.wav --model m", "--batch-seconds", "inf"),
        ("dump-audio d o", "--job", "0"),
        ("dump-audio d o", "--jobs", "0"),
        ("merge-archives d", "--jobs", "0"),
        ("web", "--port", "80000"),
        ("run", "--num-threads", "0"),
    ],
)
def test_option_values_out_of_range_are_2_and_named(
    words: str, option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*words.split(), option, value])
    assert caught.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"argument {option}: " in last
    assert f"'{value}'" in last


def test_faults_of_several_directories_are_listed_together(data: Path, tmp_path: Path) -> None:
    (data / "utt2mos").write_text("a 7\n")
    done = distilmos("validate-data", data, tmp_path / "nowhere")
    assert done.returncode == 2
    assert re.search(f"{data}/utt2mos:1: .*7", done.stderr)
    assert f"{tmp_path}/nowhere: " in done.stderr
    assert done.stdout == ""
