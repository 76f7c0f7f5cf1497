"""`distilmos run` with the local backend."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.recipes import says

RUN = [sys.executable, "-m", "distilmos.cli", "run"]
SHOW = "import json, sys; print(json.dumps(sys.argv[1:]))"


def run(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RUN, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False)


def output(log: Path) -> list[str]:
    return [line for line in log.read_text().splitlines() if not line.startswith("# ")]


def test_arguments_arrive_exactly_as_given(tmp_path: Path) -> None:
    arguments = ["a b", "", "'", '"', "$HOME", "*", "`x`", "\\n", "new\nline", ";", "|", "ä", "--num-threads", "7"]
    # `--=` abbreviates all options of `distilmos run`; words after `--` are another case.
    arguments += ["-h", "--help", "--m", "--=", "--", "--n", "JOB=1:3"]
    done = run("log/one.log", sys.executable, "-c", SHOW, *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert json.loads(output(tmp_path / "log/one.log")[0]) == arguments


@pytest.mark.parametrize("first", ["--", "-x", "--max-jobs-run"])
def test_options_of_the_command_go_to_the_command(tmp_path: Path, first: str) -> None:
    assert run("--num-threads", "2", "one.log", sys.executable, "-c", SHOW, first, "3", cwd=tmp_path).returncode == 0
    assert json.loads(output(tmp_path / "one.log")[0]) == [first, "3"]


def test_job_is_replaced_everywhere(tmp_path: Path) -> None:
    done = run("JOB=2:4", "d/x.JOB.log", sys.executable, "-c", SHOW, "JOB", "a.JOB/JOB", cwd=tmp_path)
    assert done.returncode == 0
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == ["x.2.log", "x.3.log", "x.4.log"]
    assert json.loads(output(tmp_path / "d/x.3.log")[0]) == ["3", "a.3/3"]


def test_only_words_are_replaced(tmp_path: Path) -> None:
    kept = ["/x/JOBS/dump", "/x/myJOB/JOB1", "$SLURM_JOB_ID"]
    done = run("JOB=2:3", "JOBS/x_JOB.log", sys.executable, "-c", SHOW, *kept, "/JOBS/JOB/a-JOB", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(output(tmp_path / "JOBS/x_3.log")[0]) == [*kept, "/JOBS/3/a-3"]
    done = run("N_=2:3", "JOB/x.N_.log", sys.executable, "-c", SHOW, "JOB", "N_", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(output(tmp_path / "JOB/x.2.log")[0]) == ["JOB", "2"]


def test_threads_of_a_job(tmp_path: Path) -> None:
    show = "import os; print(os.environ['OMP_NUM_THREADS'], os.environ['MKL_NUM_THREADS'])"
    assert run("--num-threads", "3", "a.log", sys.executable, "-c", show, cwd=tmp_path).returncode == 0
    assert output(tmp_path / "a.log") == ["3 3"]


def test_no_more_jobs_than_allowed_run_at_a_time(tmp_path: Path) -> None:
    body = "import sys, time; from pathlib import Path; me = Path(sys.argv[1]); me.touch(); time.sleep(0.3); "
    body += "print(len(list(Path('live').iterdir()))); time.sleep(0.1); me.unlink()"
    (tmp_path / "live").mkdir()
    done = run("--max-jobs-run", "2", "JOB=1:5", "x.JOB.log", sys.executable, "-c", body, "live/JOB", cwd=tmp_path)
    assert done.returncode == 0
    seen = [int(output(tmp_path / f"x.{job}.log")[0]) for job in range(1, 6)]
    assert max(seen) == 2


def test_a_gpu_has_one_job_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7,9")
    script = (
        "echo $CUDA_VISIBLE_DEVICES; for g in $(echo $CUDA_VISIBLE_DEVICES | tr , ' '); do mkdir gpu$g || exit 1; done"
    )
    script += "; sleep 0.3; rmdir $(echo gpu$CUDA_VISIBLE_DEVICES | sed 's/,/ gpu/')"
    done = run("--gpu", "2", "--max-jobs-run", "9", "JOB=1:5", "x.JOB.log", "sh", "-c", script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    held = [output(tmp_path / f"x.{job}.log")[0] for job in range(1, 6)]
    assert set(held) == {"3,5", "7,9"}
    done = run("--gpu", "5", "x.log", "true", cwd=tmp_path)
    assert done.returncode == 2
    assert says(done.stderr, "--gpu 5", 4)


@pytest.mark.parametrize("visible", ["", "-1", "NoDevFiles"])
def test_a_machine_without_gpus_runs_jobs_that_ask_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str
) -> None:
    # -1 and NoDevFiles are names that hide all devices, or the later ones.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1a2b,-1,2")
    done = run("--gpu", "1", "x.log", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES", cwd=tmp_path)
    assert (done.returncode, output(tmp_path / "x.log")[0]) == (0, "GPU-1a2b")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert run("--gpu", "1", "--mem", "4G", "--time", "1:00:00", "x.log", "true", cwd=tmp_path).returncode == 0


def test_failed_elements_are_tried_again(tmp_path: Path) -> None:
    script = "echo run >>count.JOB; [ JOB != 2 ] || [ $(wc -l <count.JOB) -gt 1 ]"
    assert run("--retry", "1", "JOB=1:3", "x.JOB.log", "sh", "-c", script, cwd=tmp_path).returncode == 0
    assert [(tmp_path / f"count.{job}").read_text().count("run") for job in (1, 2, 3)] == [1, 2, 1]


def test_log_format(tmp_path: Path) -> None:
    body = "import sys; x = bytearray(200_000_000); print('out'); sys.stdout.flush(); sys.stderr.write('no newline')"
    assert run("a.log", sys.executable, "-c", body, cwd=tmp_path).returncode == 0
    lines = (tmp_path / "a.log").read_text().splitlines()
    assert [line.split()[1] for line in lines[:4]] == ["Host", "Command", "Directory", "Started"]
    assert lines[1].endswith(f"-c '{body.replace(chr(39), chr(39) + chr(34) + chr(39) + chr(34) + chr(39))}'")
    assert lines[2] == f"# Directory {tmp_path}"
    assert lines[4:6] == ["out", "no newline"]
    ended = re.fullmatch(r"# Ended \S+ elapsed [\d.]+ s, peak memory ([\d.]+) MB, exit status 0", lines[6])
    assert ended is not None
    assert 200 < float(ended[1]) < 300
    assert len(lines) == 7


def test_failed_elements_show_their_last_lines_and_the_others_continue(tmp_path: Path) -> None:
    script = "for i in $(seq 30); do echo line $i of JOB; done; [ JOB != 2 ]"
    done = run("--max-jobs-run", "1", "JOB=1:4", "x.JOB.log", "sh", "-c", script, cwd=tmp_path)
    assert done.returncode == 1
    assert says(done.stderr, 1, 4, 2)
    assert "x.2.log" in done.stderr
    assert "line 30 of 2" in done.stderr
    assert "exit status 1" in done.stderr
    assert "line 10 of" not in done.stderr
    assert "of 3" not in done.stderr
    assert "Traceback" not in done.stderr
    assert output(tmp_path / "x.4.log")[-1] == "line 30 of 4"


def test_a_killed_job_has_failed(tmp_path: Path) -> None:
    assert run("a.log", "sh", "-c", "kill -9 $$", cwd=tmp_path).returncode == 1
    assert "exit status 137" in (tmp_path / "a.log").read_text()


def test_a_missing_command_has_failed(tmp_path: Path) -> None:
    done = run("JOB=1:2", "a.JOB.log", "no-such-command-JOB", cwd=tmp_path)
    assert done.returncode == 1
    assert says(done.stderr, 2, "1 2")
    assert any("no-such-command-2" in line for line in output(tmp_path / "a.2.log"))
    assert "exit status 127" in (tmp_path / "a.2.log").read_text()


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        ([], ["LOG COMMAND"]),
        (["a.log"], ["LOG COMMAND"]),
        (["JOB=1:2", "a.JOB.log"], ["LOG COMMAND"]),
        (["JOB=2:1", "a.JOB.log", "true"], ["JOB=2:1"]),
        (["JOB=0:1", "a.JOB.log", "true"], ["JOB=0:1"]),
        (["JOB=1:2", "a.log", "true"], ["a.log", "JOB", 2]),
        (["JOB=1:2", "JOBS/a.log", "true"], ["JOBS/a.log", "JOB", 2]),
        (["JOB=1:2", "--max-jobs-run", "2", "a.JOB.log", "true"], ["'--max-jobs-run'"]),
        (["--num", "2", "a.log", "true"], ["--num"]),
        (["--max-jobs-run", "0", "a.log", "true"], ["--max-jobs-run", "'0'"]),
        (["file/a.log", "true"], ["file/a.log"]),
        (["--time", "60", "a.log", "true"], ["--time 60", "H:MM:SS"]),
        (["--mem", "lots", "a.log", "true"], ["--mem lots", "4G"]),
        (["--num-nodes", "2", "a.log", "true"], ["--num-nodes 2", "slurm"]),
        (["--backend", "slurm", "a.log", "true"], ["conf/slurm.conf"]),
        (["--backend", "slurm", "--config", "no.conf", "a.log", "true"], ["no.conf"]),
    ],
)
def test_bad_usage(tmp_path: Path, arguments: list[str], values: list[object]) -> None:
    (tmp_path / "file").touch()
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert says(done.stderr, *values)
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def wait_for(condition, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_all_jobs_and_what_they_started(tmp_path: Path, number: int, status: int) -> None:
    script = "sleep 60 & echo $! > pid.JOB.child; echo $$ > pid.JOB; wait"
    command = [*RUN, "--max-jobs-run", "2", "JOB=1:3", "x.JOB.log", "sh", "-c", script]
    # Tests may run in the background of a script, which ignores SIGINT; a terminal does not.
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    files = [tmp_path / f"pid.{job}" for job in (1, 2)]
    wait_for(lambda: all(file.exists() and file.read_text().strip() for file in files))
    pids = [int(path.read_text()) for path in tmp_path.glob("pid.*")]
    assert len(pids) == 4
    assert all(map(alive, pids))
    os.kill(process.pid, number)
    assert process.wait(timeout=30) == status
    wait_for(lambda: not any(map(alive, pids)), 2)
    assert "Traceback" not in process.stderr.read()
    assert not (tmp_path / "pid.3").exists()
    assert f"exit status {143}" in (tmp_path / "x.1.log").read_text()


def test_a_second_signal_kills_jobs_that_refuse_to_end(tmp_path: Path) -> None:
    body = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: print('no', flush=True))\n"
    body += "print('up', flush=True)\nwhile True: time.sleep(1)"
    process = subprocess.Popen([*RUN, "x.log", sys.executable, "-c", body], cwd=tmp_path)
    log = tmp_path / "x.log"
    wait_for(lambda: log.exists() and "up" in output(log))
    process.terminate()
    wait_for(lambda: "no" in output(log))
    process.terminate()
    assert process.wait(timeout=30) == 143
    assert "exit status 137" in log.read_text()
