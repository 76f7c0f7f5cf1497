"""`distilmos run --backend pbs`, with stand-ins for the tools of OpenPBS and Torque, written after their documentation.

Not run on a real system: these tests do not show what a server does with jobs.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from helpers import cluster as checks
from helpers.cluster import REPOSITORY, Cluster, output, wait_for
from helpers.recipes import says


@pytest.fixture(params=["openpbs", "torque"])
def pbs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """PBS, with a copy of the repository's configuration, changed for Torque as its comments say."""
    root = tmp_path_factory.mktemp("pbs")
    (root / "bin").mkdir()
    for name in ("qsub", "qstat", "qselect", "qdel"):
        (root / "bin" / name).symlink_to(REPOSITORY / "tests" / "helpers" / "pbs_tools.py")
    config = Path(shutil.copy(REPOSITORY / "conf" / "pbs.conf", root))
    if request.param == "torque":
        text = (
            config.read_text().replace("option array=*", "# option array=*").replace("option gpu=*", "# option gpu=*")
        )
        text = text.replace("option num_threads=*", "# option num_threads=*").replace("# # option", "option")
        config.write_text(text)
    environment = {"PBS_STAND_IN": str(root), "PBS_FLAVOUR": request.param}
    return Cluster("pbs", config, environment | {"PATH": f"{root / 'bin'}:{os.environ['PATH']}"})


def is_alive(cluster: Cluster, job_id: str) -> bool:
    return " R " in cluster.tool("qstat", "-t", job_id)


def submitted(cluster: Cluster) -> list[list[str]]:
    log = Path(cluster.environment["PBS_STAND_IN"]) / "qsub.log"
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_arguments_arrive_exactly_as_given(pbs: Cluster, tmp_path: Path) -> None:
    checks.check_quoting(pbs, tmp_path)


def test_failed_elements_are_named_and_tried_again(pbs: Cluster, tmp_path: Path) -> None:
    checks.check_failures(pbs, tmp_path)


def test_ctrl_c_cancels(pbs: Cluster, tmp_path: Path) -> None:
    checks.check_stop(pbs, tmp_path, lambda job: is_alive(pbs, job))


def test_jobs_of_a_killed_run_are_found_again(pbs: Cluster, tmp_path: Path) -> None:
    checks.check_adoption(pbs, tmp_path)


def test_a_killed_run_with_a_lost_job_id(pbs: Cluster, tmp_path: Path) -> None:
    command = ["one.log", "sh", "-c", "echo run >>count; echo up; sleep 4"]
    process = pbs.start(*command, cwd=tmp_path)
    wait_for(lambda: (tmp_path / "count").exists() and (tmp_path / "q/one/1/id").exists())
    process.kill()
    process.wait()
    (tmp_path / "q/one/1/id").unlink()
    assert pbs.run(*command, cwd=tmp_path).returncode == 0
    assert (tmp_path / "count").read_text() == "run\n"


@pytest.mark.slow
def test_a_deleted_job_is_noticed(pbs: Cluster, tmp_path: Path) -> None:
    process = pbs.start("JOB=1:2", "x.JOB.log", "sh", "-c", "echo up; [ JOB = 1 ] || exec sleep 120", cwd=tmp_path)
    log = tmp_path / "x.2.log"
    wait_for(lambda: log.exists() and "up" in output(log))
    job_id = (tmp_path / "q/x.JOB/1/id").read_text()
    pbs.tool("qdel", job_id.replace("[]", "[2]"))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert says(err, "job 2", 271, "Job run at Monday and terminated")
    assert says(err, 1, 2)


def test_the_flags_of_qsub(pbs: Cluster, tmp_path: Path) -> None:
    options = ["--mem", "4G", "--num-threads", "2", "--gpu", "1", "--time", "2:00:00", "--max-jobs-run", "3"]
    assert pbs.run(*options, "JOB=1:4", "x.JOB.log", "true", cwd=tmp_path).returncode == 0
    (words,) = submitted(pbs)
    text = " ".join(words)
    assert "-l mem=4Gb" in text
    assert "-l walltime=2:00:00" in text
    torque = pbs.environment["PBS_FLAVOUR"] == "torque"
    assert ("-l nodes=1:ppn=2" if torque else "-l ncpus=2") in text
    assert ("-t 1-4%3" if torque else "-J 1-4%3") in text


def test_a_command_that_asks_for_it_is_run_again(pbs: Cluster, tmp_path: Path) -> None:
    done = pbs.run("x.log", "sh", "-c", "[ -e saved ] || { touch saved; exit 75; }", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(submitted(pbs)) == 2


def test_more_than_one_node_is_refused(pbs: Cluster, tmp_path: Path) -> None:
    done = pbs.run("--num-nodes", "2", "x.log", "true", cwd=tmp_path)
    assert done.returncode == 2
    assert "num_nodes" in done.stderr
