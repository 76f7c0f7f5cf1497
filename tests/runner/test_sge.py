"""`distilmos run --backend sge` on a real Grid Engine."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from helpers import cluster as checks
from helpers.cluster import Cluster, output, wait_for
from helpers.recipes import says


def is_alive(cluster: Cluster, job_id: str) -> bool:
    return any(line.split()[0] == job_id for line in cluster.tool("qstat").splitlines())


def job_id(directory: Path, log: str) -> str:
    return (directory / "q" / log / "1" / "id").read_text()


def wait_for_start(log: Path) -> None:
    wait_for(lambda: log.exists() and "up" in output(log))


def test_arguments_arrive_exactly_as_given(sge: Cluster, tmp_path: Path) -> None:
    checks.check_quoting(sge, tmp_path)


def test_failed_elements_are_named_and_tried_again(sge: Cluster, tmp_path: Path) -> None:
    checks.check_failures(sge, tmp_path)


def test_ctrl_c_cancels(sge: Cluster, tmp_path: Path) -> None:
    checks.check_stop(sge, tmp_path, lambda job: is_alive(sge, job))


def test_jobs_of_a_killed_run_are_found_again(sge: Cluster, tmp_path: Path) -> None:
    checks.check_adoption(sge, tmp_path)


def test_a_large_array_is_submitted_in_parts(sge: Cluster, tmp_path: Path) -> None:
    checks.check_chunks(sge, tmp_path)


def test_a_killed_run_with_a_lost_job_id(sge: Cluster, tmp_path: Path) -> None:
    command = ["one.log", "sh", "-c", "echo run >>count; echo up; sleep 5"]
    process = sge.start(*command, cwd=tmp_path)
    wait_for_start(tmp_path / "one.log")
    process.kill()
    process.wait()
    (tmp_path / "q/one/1/id").unlink()
    assert sge.run(*command, cwd=tmp_path).returncode == 0
    assert (tmp_path / "count").read_text() == "run\n"


@pytest.mark.slow
def test_a_deleted_job_is_noticed(sge: Cluster, tmp_path: Path) -> None:
    process = sge.start("JOB=1:2", "x.JOB.log", "sh", "-c", "echo up; [ JOB = 1 ] || sleep 120", cwd=tmp_path)
    wait_for_start(tmp_path / "x.2.log")
    sge.tool("qdel", job_id(tmp_path, "x.JOB"), "-t", "2")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert re.search(r"^job 2: failed \d+", err, re.MULTILINE)  # the words of qacct
    assert says((tmp_path / "x.2.log").read_text().splitlines()[-1], job_id(tmp_path, "x.JOB"), "failed")


@pytest.mark.slow
def test_the_time_limit_is_noticed(sge: Cluster, tmp_path: Path) -> None:
    done = sge.run("--time", "0:00:08", "x.log", "sleep", "200", cwd=tmp_path)
    assert done.returncode == 1
    assert re.search(r"^the command: failed \d+", done.stderr, re.MULTILINE)  # the words of qacct


@pytest.mark.slow
def test_at_the_soft_limit_the_job_is_queued_again(sge: Cluster, tmp_path: Path) -> None:
    text = sge.config.read_text()
    sge.config.write_text(f"{text}option time=0:00:40 -l s_rt=0:00:08,h_rt=0:00:40\n")
    script = "import signal, sys, time; from pathlib import Path; p = Path('saved'); d = p.exists()\n"
    script += "def save(*_):\n p.touch()\n sys.exit(75)\n"
    script += "signal.signal(signal.SIGUSR1, save)\nif not d: time.sleep(100)"
    done = sge.run("--time", "0:00:40", "x.log", sys.executable, "-c", script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "x.log").read_text().splitlines()
    assert any(says(line, "SIGUSR1") for line in lines if line.startswith("# Signals"))
    assert [line.rpartition(" ")[2] for line in lines if line.startswith("# Ended")] == ["75", "0"]


def test_a_job_that_asks_for_it_is_queued_again(sge: Cluster, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; p = Path('saved'); d = p.exists(); p.touch(); sys.exit(0 if d else 75)"
    )
    done = sge.run("x.log", sys.executable, "-c", script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "x.log").read_text().splitlines()
    assert [line.rpartition(" ")[2] for line in lines if line.startswith("# Ended")] == ["75", "0"]


def test_resources_reach_the_job(sge: Cluster, tmp_path: Path) -> None:
    options = ["--num-threads", "2", "--mem", "100M", "--gpu", "1", "--time", "0:10:00"]
    text = sge.config.read_text()
    # mem_free is a measured load; it does not show the request.
    sge.config.write_text(text.replace("# prologue module load cuda/12.8", "prologue export GREETING='a  b'"))
    show = 'echo "$GREETING $OMP_NUM_THREADS $NSLOTS"; qstat -j $JOB_ID | grep hard'
    done = sge.run(*options, "x.log", "sh", "-c", show, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = output(tmp_path / "x.log")
    assert first == "a  b 2 2"
    for word in ("ram_free=100M", "gpu=1", "h_rt=600"):
        assert word in second
