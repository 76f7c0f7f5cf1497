"""`distilmos run` with a scheduler, as its user runs it, and what every backend has to do right."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
REPOSITORY = TESTS.parent
RUN = [sys.executable, "-m", "distilmos.cli", "run"]
SHOW = "import json, sys; print(json.dumps(sys.argv[1:]))"
# What shells, schedulers and file formats like to change.
ARGUMENTS = [
    "a b",
    "",
    "'",
    '"',
    "$HOME",
    "*",
    "`x`",
    "\\n",
    "new\nline",
    ";",
    "|",
    "ä",
    "%a",
    "\\",
    "~",
    "--time",
    "7",
]


@dataclass
class Cluster:
    """A scheduler.

    Attributes:
        backend: slurm, sge or pbs.
        config: the site's configuration.
        environment: variables that its commands need.
        prefix: words before every command.
    """

    backend: str
    config: Path
    environment: dict[str, str]
    prefix: list[str] = field(default_factory=list)

    def start(self, *arguments: str | Path, cwd: Path) -> subprocess.Popen[str]:
        """Start `distilmos run`."""
        # The tests themselves may run in the background of a script, where SIGINT is ignored: a terminal does not.
        return subprocess.Popen(
            [*self.prefix, *RUN, "--backend", self.backend, "--config", str(self.config), *map(str, arguments)],
            cwd=cwd,
            env=os.environ | {"DISTILMOS_RESULT_SECONDS": "3"} | self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run `distilmos run` to its end."""
        process = self.start(*arguments, cwd=cwd)
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def tool(self, *command: str) -> str:
        """Run a command of the scheduler."""
        environment = os.environ | self.environment
        done = subprocess.run([*self.prefix, *command], env=environment, capture_output=True, text=True, check=False)
        return done.stdout


def output(log: Path) -> list[str]:
    """Return the lines of a log that are the command's."""
    return [line for line in log.read_text().splitlines() if not line.startswith("# ")]


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait until `condition` returns something true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def check_quoting(cluster: Cluster, directory: Path) -> None:
    """Arguments arrive exactly as given, in an array and in a single job, in a directory with a space and JOB."""
    here = directory / "a JOB JOBS dir"
    here.mkdir()
    done = cluster.run("JOB=2:3", "log/x.JOB.log", sys.executable, "-c", SHOW, *ARGUMENTS, "JOBS/a.JOB", cwd=here)
    assert done.returncode == 0, done.stderr
    for job in (2, 3):
        assert json.loads(output(here / f"log/x.{job}.log")[0]) == [*ARGUMENTS, f"JOBS/a.{job}"]
    assert not (here / "log/x.1.log").exists()
    done = cluster.run("--num-threads", "2", "log/one.log", sys.executable, "-c", SHOW, *ARGUMENTS, cwd=here)
    assert done.returncode == 0, done.stderr
    lines = (here / "log/one.log").read_text().splitlines()
    assert lines[0].startswith("# Host ")
    assert f"# Directory {here}" in lines
    assert any(line.startswith("# Started ") for line in lines)
    assert json.loads(output(here / "log/one.log")[0]) == ARGUMENTS
    assert lines[-1].startswith("# Ended ")
    assert "elapsed" in lines[-1]
    assert lines[-1].endswith("exit status 0")


def check_failures(cluster: Cluster, directory: Path) -> None:
    """Failed elements are named with the end of their logs, the others run, --retry runs them again, and them only."""
    script = "echo run >>count.JOB; echo line of JOB; [ JOB != 2 ] || [ $(wc -l <count.JOB) -gt 2 ]"
    done = cluster.run("--retry", "1", "JOB=1:3", "x.JOB.log", "sh", "-c", script, cwd=directory)
    assert done.returncode == 1
    assert re.search(r"\b1\b.*\b3\b.*\b2\b", done.stderr)  # how many of how many, and which
    assert "x.2.log" in done.stderr
    assert "line of 2" in done.stderr
    assert "exit status 1" in done.stderr
    assert "line of 3" not in done.stderr
    assert "Traceback" not in done.stderr
    runs = [len((directory / f"count.{job}").read_text().splitlines()) for job in (1, 2, 3)]
    assert runs == [1, 2, 1]
    # Without word of what they read, all elements are run again.
    done = cluster.run("JOB=1:3", "x.JOB.log", "sh", "-c", script, cwd=directory)
    assert done.returncode == 0, done.stderr
    runs = [len((directory / f"count.{job}").read_text().splitlines()) for job in (1, 2, 3)]
    assert runs == [2, 3, 2]


def check_stop(cluster: Cluster, directory: Path, is_alive: Callable[[str], bool]) -> None:
    """Ctrl-C cancels the jobs, and says so."""
    process = cluster.start("JOB=1:2", "x.JOB.log", "sh", "-c", "echo up; sleep 120", cwd=directory)
    logs = [directory / f"x.{job}.log" for job in (1, 2)]
    wait_for(lambda: all(log.exists() and "up" in log.read_text() for log in logs))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    job_id = (directory / "q/x.JOB/1/id").read_text()
    assert err.count(job_id) >= 2  # submitted, and cancelled
    assert "Traceback" not in err
    wait_for(lambda: not is_alive(job_id))


def check_adoption(cluster: Cluster, directory: Path) -> None:
    """Jobs of a `distilmos run` that was killed are found again, not started twice."""
    command = ["JOB=1:2", "x.JOB.log", "sh", "-c", "echo run >>count.JOB; sleep 4; echo over"]
    process = cluster.start(*command, cwd=directory)
    counts = [directory / f"count.{job}" for job in (1, 2)]
    wait_for(lambda: all(count.exists() for count in counts))
    process.kill()
    process.wait()
    done = cluster.run(*command, cwd=directory)
    assert done.returncode == 0, done.stderr
    job_id = (directory / "q/x.JOB/1/id").read_text()
    assert job_id in done.stderr
    assert [count.read_text() for count in counts] == ["run\n", "run\n"]
    assert "over" in output(directory / "x.2.log")


def check_chunks(cluster: Cluster, directory: Path) -> None:
    """An array beyond the site's limit is submitted in parts, and --max-jobs-run holds over all of them."""
    cluster.config = cluster.config.with_name("small.conf")
    text = cluster.config.with_name(f"{cluster.backend}.conf").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("max_array_size")]
    cluster.config.write_text("\n".join([*lines, "max_array_size 3", ""]))
    body = "import sys, time; from pathlib import Path; me = Path(sys.argv[1]); me.touch(); time.sleep(0.5); "
    body += "print(len(list(Path('live').iterdir()))); time.sleep(0.1); me.unlink()"
    (directory / "live").mkdir()
    command = ["JOB=1:7", "x.JOB.log", sys.executable, "-c", body, "live/JOB"]
    done = cluster.run("--max-jobs-run", "2", *command, cwd=directory)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(": job ") == 3
    assert max(int(output(directory / f"x.{job}.log")[0]) for job in range(1, 8)) <= 2
