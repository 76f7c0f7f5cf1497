"""An interrupted stage keeps the results of an array only if commands and inputs are unchanged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.cluster import RUN, Cluster, wait_for
from helpers.recipes import says

from distilmos.errors import FailedError
from distilmos.runner.resume import renew as prepare

SCRIPT = "echo run >>count.JOB; [ JOB != 2 ] || [ -e repaired ]"
RENEW = [sys.executable, "-m", "distilmos.cli", "renew"]


def renew(directory: Path, *arguments: str) -> str:
    """Prepare `out` for a stage that reads `data`."""
    command = [*RENEW, "--input", "data", "--", "out", *arguments]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=True).stdout


def finish(directory: Path) -> None:
    subprocess.run([*RENEW, "--finish", "out"], cwd=directory, check=True)


def array(directory: Path, script: str = SCRIPT) -> int:
    command = [*RUN, "JOB=1:3", "out/log/x.JOB.log", "sh", "-c", script]
    return subprocess.run(command, cwd=directory, capture_output=True, check=False).returncode


def counts(directory: Path) -> list[int]:
    return [len((directory / f"count.{job}").read_text().splitlines()) for job in (1, 2, 3)]


@pytest.fixture
def failed(tmp_path: Path) -> Path:
    """A directory in which element 2 of 3 has failed; now it can succeed."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "wav.scp").write_text(f"a {tmp_path}/a.wav\n")
    (tmp_path / "a.wav").write_bytes(b"audio")
    renew(tmp_path)
    assert array(tmp_path) == 1
    assert counts(tmp_path) == [1, 1, 1]
    (tmp_path / "out" / "shard").touch()
    (tmp_path / "repaired").touch()
    return tmp_path


def test_only_failed_elements_run_again(failed: Path) -> None:
    assert renew(failed).startswith("out: ")
    assert array(failed) == 0
    assert counts(failed) == [1, 2, 1]
    assert (failed / "out" / "shard").exists()
    assert (failed / "out/log/x.1.log").read_text().rstrip().endswith("exit status 0")


def test_a_complete_stage_starts_from_nothing(failed: Path) -> None:
    renew(failed)
    assert array(failed) == 0
    finish(failed)
    assert renew(failed) == ""
    assert not (failed / "out" / "shard").exists()
    assert array(failed) == 0
    assert counts(failed) == [2, 3, 2]


@pytest.mark.parametrize("change", ["table", "audio", "option"])
def test_a_stage_with_other_input_starts_from_nothing(failed: Path, change: str) -> None:
    words = []
    if change == "table":
        (failed / "data" / "utt2sys").write_text("a x\n")
    elif change == "audio":
        os.utime(failed / "a.wav", ns=(0, 0))
    else:
        words = ["--nj=3"]
    assert renew(failed, *words) == ""
    assert not (failed / "out" / "shard").exists()
    assert array(failed) == 0
    assert counts(failed) == [2, 2, 2]


def test_another_command_starts_from_nothing(failed: Path) -> None:
    renew(failed)
    assert array(failed, f"{SCRIPT} # another") == 0
    assert counts(failed) == [2, 2, 2]


@pytest.mark.parametrize("exists", [True, False])
def test_a_linked_directory_is_emptied_and_the_link_stays(tmp_path: Path, exists: bool) -> None:
    (tmp_path / "data").mkdir()
    if exists:
        (tmp_path / "disk" / "log").mkdir(parents=True)
        (tmp_path / "disk" / "layer1.ark").write_bytes(b"of another encoder")
        (tmp_path / "disk" / "link").symlink_to(tmp_path / "data")
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    assert renew(tmp_path) == ""
    assert (tmp_path / "out").is_symlink() and (tmp_path / "data").is_dir()
    assert sorted(str(path.relative_to(tmp_path / "disk")) for path in (tmp_path / "disk").rglob("*")) == [
        "log",
        "log/q",
        "log/q/inputs",
    ]
    assert renew(tmp_path).startswith("out: ")  # an interrupted run continues there


def test_a_file_in_place_of_the_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("precious")
    done = subprocess.run([*RENEW, "out"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, (tmp_path / "out").read_text()) == (2, "precious")
    assert says(done.stderr, "out")


def test_files_that_cannot_be_removed_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "layer1.ark").touch()

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "refused", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(FailedError, match=r"layer1\.ark"):
        prepare(tmp_path)


def test_the_same_on_a_scheduler(failed: Path, slurm: Cluster) -> None:
    renew(failed)
    (failed / "repaired").unlink()
    for expected in ([1, 2, 1], [1, 3, 1]):
        done = slurm.run("JOB=1:3", "out/log/x.JOB.log", "sh", "-c", SCRIPT, cwd=failed)
        assert counts(failed) == expected
        assert says(done.stderr, "out/log/x.JOB.log", 2, 3)
        assert done.returncode == (0 if (failed / "repaired").exists() else 1)
        (failed / "repaired").touch()
        renew(failed)


def test_jobs_are_cancelled_before_their_directory_is_emptied(tmp_path: Path, slurm: Cluster) -> None:
    (tmp_path / "data").mkdir()
    renew(tmp_path)
    process = slurm.start("out/log/x.log", "sh", "-c", "echo up; sleep 60; touch out/late", cwd=tmp_path)
    log = tmp_path / "out/log/x.log"
    wait_for(lambda: log.exists() and "up" in log.read_text())
    process.kill()
    process.wait()
    job_id = (tmp_path / "out/log/q/x/1/id").read_text()
    (tmp_path / "data" / "wav.scp").touch()
    environment = os.environ | slurm.environment
    command = [*RENEW, "--input", "data", "--", "out"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert says(done.stderr, f"job {job_id}", "out")
    assert slurm.tool("squeue", "--noheader", f"--jobs={job_id}") == ""
    assert not (tmp_path / "out/late").exists()
