"""Every reader refuses broken files with a documented error, and does nothing else with them (see `check`).

A minute of what `make -C tools fuzz` does for longer.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from distilmos.data import ffmpeg
from distilmos.errors import InputError
from fuzz.check import MEMORY, Reader, check, write_files
from fuzz.mutations import ESCAPED
from fuzz.readers import READERS, make_input, seeds

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def no_ffmpeg(monkeypatch):
    """The harness counts starting a program as a finding."""
    monkeypatch.setattr(ffmpeg, "available", lambda: False)


@pytest.mark.parametrize("name", READERS)
def test_valid_inputs_are_accepted(name):
    """Else the mutations would only reach the first check of a reader."""
    for files in seeds(name):
        outcome = check(READERS[name], files)
        assert outcome.refusal == ""
        assert outcome.findings == []


@pytest.mark.parametrize("name", READERS)
def test_broken_inputs_are_refused(name):
    faults = []
    for number in range(READERS[name].examples):
        findings = check(READERS[name], make_input(name, 0, number)).findings
        faults += [
            f"python -m fuzz {name} --start {number}: {each.kind} {each.what}\n{each.trace}" for each in findings
        ]
    assert not faults, "\n".join(faults)


def write_temporary():
    Path(".x.tmp").write_text("")
    raise InputError("x: bad")


def spin():
    while True:
        pass


def allocate(size):
    return np.ones(size, np.uint8)


def convert_memory_error():
    try:
        allocate(MEMORY << 3)
    except MemoryError as error:
        raise InputError(f"x: {error}") from None


FAULTS = {
    "escaped": lambda: {}["x"],
    "hang": spin,
    "memory": lambda: allocate(MEMORY + MEMORY // 4),
    "memory of a refusal": convert_memory_error,
    "executed": lambda: os.system("true"),
    "executed in another process": lambda: subprocess.run(["true"], check=True),
    "connected": lambda: socket.create_connection(("127.0.0.1", 9), 1),
    "opened": lambda: Path("../outside/decoy.wav").read_bytes(),
    "opened by its absolute path": lambda: Path(Path.cwd().parent / "outside" / "decoy.wav").read_bytes(),
    "wrote": lambda: Path("../x").write_text(""),
    "wrote over": lambda: os.rename("a", "../a"),  # noqa: PTH104
    "left": write_temporary,
}


@pytest.mark.parametrize("kind", FAULTS)
def test_the_checks_find_what_readers_must_not_do(kind):
    outcome = check(Reader("faulty", list, FAULTS[kind]), {"a": b"x"})
    assert kind.split()[0] in [finding.kind for finding in outcome.findings]


def test_a_reader_of_lists_may_open_what_they_name():
    files = {"a": b"../outside/decoy.wav"}
    reader = Reader("list", list, lambda: Path(Path("a").read_text()).read_bytes(), confined=False)
    assert check(reader, files).findings == []
    assert check(Reader("archive", list, reader.read), files).findings[0].kind == "opened"
    assert not Path(ESCAPED).exists()


@pytest.mark.slow
def test_by_hand(tmp_path):
    """The same seed gives the same inputs; a kept finding can be run again."""
    command = [sys.executable, "-m", "fuzz"]
    environment = os.environ | {"PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"}
    arguments = ["site_conf", "published", "--seconds", "3", "--jobs", "1", "--out", str(tmp_path / "out")]
    done = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line.startswith(("site", "publ"))}
    assert {name: int(row[0]) > 10 for name, row in rows.items()} == {"site_conf": True, "published": True}
    assert done.stdout.splitlines()[-1].startswith(f"{sum(int(row[0]) for row in rows.values())} inputs ")
    write_files(tmp_path / "old", {"site.conf": b"unknown\n"})
    (tmp_path / "old" / "finding.json").write_text(json.dumps({"reader": "site_conf"}))
    arguments = ["--reproduce", str(tmp_path / "old")]
    done = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "site.conf:1:" in done.stdout
