"""Reading ahead: what it needs from the system, and reads that stall, of real runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

import pytest
import torch

from distilmos.errors import FailedError
from distilmos.preemption import StopRequest
from distilmos.training import loader
from distilmos.training.batching import BatchPlan
from distilmos.training.checkpoint import load_checkpoint
from distilmos.training.loader import read_batches

CPU = torch.device("cpu")
EX_TEMPFAIL = 75
ENDLESS = {"log_every": 1, "max_steps": 5000, "patience": 5000, "num_workers": 2}
# Holds a write lease on a file: until it ends, or for 45 s (/proc/sys/fs/lease-break-time), Linux blocks who opens it.
HOLDER = """
import fcntl, os, signal, sys, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGIO])
descriptor = os.open(sys.argv[1], os.O_RDWR)
while True:
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        break
    except BlockingIOError:
        time.sleep(0.001)
print("held", flush=True)
while signal.sigwait([signal.SIGIO]):
    print("asked for", flush=True)
"""
# `distilmos train` that gives up earlier.
IMPATIENT = """
import sys
from distilmos.cli import main
from distilmos.training import loader
loader.WARN_SECONDS, loader.STALLED_SECONDS = 2, 4
sys.exit(main(sys.argv[1:]))
"""


class Blocked:
    """A file that cannot be opened."""

    def __init__(self, holder: subprocess.Popen) -> None:
        self._holder = holder
        assert holder.stdout.readline() == "held\n"

    def wait(self) -> None:
        """Wait until somebody tries to open the file."""
        assert self._holder.stdout.readline() == "asked for\n"


@contextmanager
def blocked(path: Path) -> Iterator[Blocked]:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        try:
            yield Blocked(holder)
        finally:
            holder.kill()


@contextmanager
def running(*command: str) -> Iterator[subprocess.Popen]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        try:
            yield run
        finally:
            run.kill()


def train(arguments: list[str], *options: str) -> tuple[str, ...]:
    return sys.executable, "-m", "distilmos.cli", *arguments, *options


def steps(out: Path) -> list[int]:
    log = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    return [event["step"] for event in log if event["event"] == "train"]


def await_steps(run: subprocess.Popen, out: Path, count: int) -> None:
    deadline = time.monotonic() + 300
    while not (out / "log.jsonl").exists() or len(steps(out)) < count:
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def message(run: subprocess.Popen, status: int) -> list[str]:
    """Wait for the end, check the exit status and return the lines on stderr."""
    _, errors = run.communicate(timeout=120)
    assert run.returncode == status, errors
    assert "Traceback" not in errors
    return errors.splitlines()


@pytest.mark.slow
def test_reading_needs_no_processes_and_no_shared_memory(corpus, tmp_path):
    """Docker offers 64 MB of shared memory, less than the batches of a base model."""
    with running(*train(corpus.arguments(tmp_path / "out", **ENDLESS))) as run:
        await_steps(run, tmp_path / "out", 2)
        assert "/dev/shm" not in Path(f"/proc/{run.pid}/maps").read_text()
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
        assert not children.exists() or children.read_text() == ""


@pytest.mark.slow
def test_few_file_handles_are_enough(corpus, tmp_path):
    arguments = corpus.arguments(tmp_path / "out", max_steps=8, num_workers=4)
    with running("bash", "-c", 'ulimit -n 48; exec "$@"', "-", *train(arguments)) as run:
        assert message(run, 0) == []


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "stop"), [(1, signal.SIGTERM), (1, signal.SIGUSR1), (2, signal.SIGTERM)])
def test_a_stop_signal_is_obeyed_while_a_read_is_stalled(corpus, tmp_path, processes, stop):
    out = tmp_path / "out"
    command = train(corpus.arguments(out, **ENDLESS), "--nproc", str(processes))
    with running(*command) as run:
        await_steps(run, out, 2)
        with blocked(corpus.raw("train") / "wav.ark") as file:
            file.wait()
            run.send_signal(stop)
            since = time.monotonic()
            assert len(message(run, EX_TEMPFAIL)) == 1
            assert time.monotonic() - since < 40  # the file opens after 45 s
    done = steps(out)
    assert load_checkpoint(out / "checkpoints" / "last.pt").state.step == done[-1]
    with running(*command) as run:
        await_steps(run, out, len(done) + 1)
        assert steps(out)[: len(done) + 1] == [*done, done[-1] + 1]


@pytest.mark.slow
@pytest.mark.parametrize("file", ["tokens/dev/layer1.ark", "raw/dev/wav.ark"], ids=["inputs", "evaluation"])
def test_a_stop_signal_is_obeyed_outside_of_steps(corpus, tmp_path, file):
    """The last checkpoint stays, if there is one."""
    out = tmp_path / "out"
    with blocked(corpus.root / file) as held, running(*train(corpus.arguments(out, **ENDLESS))) as run:
        held.wait()
        run.send_signal(signal.SIGTERM)
        run.send_signal(signal.SIGUSR1)
        assert len(message(run, EX_TEMPFAIL)) == 1
    if "raw" in file:
        assert steps(out) == [1, 2, 3, 4, 5, 6]
        assert load_checkpoint(out / "checkpoints" / "last.pt").state.step == 5
    else:
        assert not out.exists()


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_stalled_read_ends_the_run_with_one_error(corpus, tmp_path, processes):
    out = tmp_path / "out"
    arguments = corpus.arguments(out, **ENDLESS)
    command = [sys.executable, "-c", IMPATIENT, *arguments]
    if processes > 1:
        launching = "import sys; from distilmos.training.launch import launch; sys.exit(launch(2, 1, sys.argv[1:]))"
        command = [sys.executable, "-c", launching, *command]
    audio = corpus.raw("train") / "wav.ark"
    with running(*command) as run:
        await_steps(run, out, 7)
        with blocked(audio):
            lines = message(run, 1)
    assert [line.count(str(audio)) for line in lines if "failed: " in line] == [1]
    assert load_checkpoint(out / "checkpoints" / "last.pt").state.step >= 5


class Slow:
    """Stands for a reader of a disk that delivers a recording in each `seconds`."""

    def __init__(self, seconds: float, recordings: int) -> None:
        self.seconds = seconds
        self.recordings = recordings

    def read(self, plan, starting):
        for number in range(self.recordings):
            starting(Path(f"audio{number}"))
            time.sleep(self.seconds)
        return plan


def test_a_slow_disk_that_delivers_is_not_stalled(monkeypatch, capsys):
    monkeypatch.setattr(loader, "WARN_SECONDS", 1)
    monkeypatch.setattr(loader, "STALLED_SECONDS", 2)
    plans = [BatchPlan(0, 0, (0,))]
    assert list(read_batches(Slow(1.2, 4), plans, 2, CPU, StopRequest())) == plans
    with pytest.raises(FailedError) as error:
        list(read_batches(Slow(5, 1), plans, 2, CPU, StopRequest()))
    assert str(error.value).startswith("audio0: ")
    assert capsys.readouterr().err.startswith("audio0: ")


@pytest.mark.parametrize("num_workers", [0, 3])
def test_batches_keep_their_order(num_workers):
    plans = [BatchPlan(0, place, (place,)) for place in range(20)]

    class Jittery:
        def read(self, plan, starting):
            time.sleep(0.01 * (plan.place % 3))
            return plan

    assert list(read_batches(Jittery(), iter(plans), num_workers, CPU, StopRequest())) == plans


def test_a_reader_for_the_only_gpu_starts():
    """Its device has no number; torch refuses to choose a device by such a name, with or without a GPU."""
    jobs: SimpleQueue = SimpleQueue()
    jobs.put(None)
    loader._work(None, jobs, torch.device("cuda"))
    assert jobs.empty()
