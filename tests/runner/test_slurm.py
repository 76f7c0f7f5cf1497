"""`distilmos run --backend slurm` on a real Slurm."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import cluster as checks
from helpers.cluster import REPOSITORY, TESTS, Cluster, output, wait_for
from helpers.recipes import says

from distilmos.cli import main
from distilmos.data.datadir import Utterance, write_data_dir


def change(cluster: Cluster, old: str, new: str) -> None:
    """Edit the site's configuration."""
    text = cluster.config.read_text()
    assert old in text
    cluster.config.write_text(text.replace(old, new))


def is_alive(cluster: Cluster, job_id: str) -> bool:
    return cluster.tool("squeue", "--noheader", f"--jobs={job_id}") != ""


def job_id(directory: Path, log: str, number: int = 1) -> str:
    return (directory / "q" / log / str(number) / "id").read_text()


def wait_for_start(log: Path) -> None:
    wait_for(lambda: log.exists() and "up" in output(log))


def test_arguments_arrive_exactly_as_given(slurm: Cluster, tmp_path: Path) -> None:
    checks.check_quoting(slurm, tmp_path)


def test_failed_elements_are_named_and_tried_again(slurm: Cluster, tmp_path: Path) -> None:
    checks.check_failures(slurm, tmp_path)


def test_ctrl_c_cancels(slurm: Cluster, tmp_path: Path) -> None:
    checks.check_stop(slurm, tmp_path, lambda job: is_alive(slurm, job))


def test_jobs_of_a_killed_run_are_found_again(slurm: Cluster, tmp_path: Path) -> None:
    checks.check_adoption(slurm, tmp_path)


def test_a_large_array_is_submitted_in_parts(slurm: Cluster, tmp_path: Path) -> None:
    checks.check_chunks(slurm, tmp_path)


def test_a_killed_run_with_a_lost_job_id(slurm: Cluster, tmp_path: Path) -> None:
    command = ["one.log", "sh", "-c", "echo run >>count; echo up; sleep 5"]
    process = slurm.start(*command, cwd=tmp_path)
    wait_for_start(tmp_path / "one.log")
    process.kill()
    process.wait()
    (tmp_path / "q/one/1/id").unlink()
    assert slurm.run(*command, cwd=tmp_path).returncode == 0
    assert (tmp_path / "count").read_text() == "run\n"


def test_jobs_of_another_array_with_the_same_logs_are_cancelled(slurm: Cluster, tmp_path: Path) -> None:
    process = slurm.start("one.log", "sh", "-c", "echo up; sleep 60", cwd=tmp_path)
    wait_for_start(tmp_path / "one.log")
    old = job_id(tmp_path, "one")
    process.kill()
    process.wait()
    done = slurm.run("one.log", "echo", "new", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert says(done.stderr, f"job {old}")
    assert not is_alive(slurm, old)
    assert output(tmp_path / "one.log") == ["new"]


def test_a_cancelled_job_is_noticed(slurm: Cluster, tmp_path: Path) -> None:
    process = slurm.start("JOB=1:2", "x.JOB.log", "sh", "-c", "echo up; [ JOB = 1 ] || sleep 120", cwd=tmp_path)
    wait_for_start(tmp_path / "x.2.log")
    slurm.tool("scancel", f"{job_id(tmp_path, 'x.JOB')}_2")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert says(err, 1, 2)
    assert says(err, "job 2", "CANCELLED")
    assert "CANCELLED" in (tmp_path / "x.2.log").read_text().splitlines()[-1]


def test_the_cancellation_of_a_waiting_job_is_noticed(slurm: Cluster, tmp_path: Path) -> None:
    change(slurm, "command sbatch", "command sbatch --begin=now+1hour")
    process = slurm.start("x.log", "true", cwd=tmp_path)
    wait_for(lambda: (tmp_path / "q/x/1/id").exists())
    slurm.tool("scancel", job_id(tmp_path, "x"))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert says(err, "CANCELLED")


@pytest.mark.slow
def test_the_time_limit_is_noticed(slurm: Cluster, tmp_path: Path) -> None:
    change(slurm, " --signal=B:USR1@120 --requeue", "")
    process = slurm.start("--time", "0:01:00", "x.log", "sh", "-c", "echo up; sleep 200", cwd=tmp_path)
    wait_for_start(tmp_path / "x.log")
    # Slurm's limits are whole minutes; move the end closer, so that the test need not wait.
    soon = (datetime.now() + timedelta(seconds=2)).isoformat(timespec="seconds")
    slurm.tool("scontrol", "update", f"JobId={job_id(tmp_path, 'x')}", f"EndTime={soon}")
    _, err = process.communicate(timeout=150)
    assert process.returncode == 1
    assert says(err, "TIMEOUT", "--time")


# Saves its work after a signal and asks to run again; the second run continues.
RESUMING = """
import signal, sys, time
from pathlib import Path
def save(number, _):
    Path("saved").write_text(signal.Signals(number).name)
    sys.exit(75)
for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, save)
if Path("saved").exists():
    print("goes on")
else:
    print("up", flush=True)
    time.sleep(100)
"""


@pytest.mark.slow
def test_a_signal_before_the_limit_queues_the_job_again(slurm: Cluster, tmp_path: Path) -> None:
    change(slurm, "USR1@120", "USR1@50")
    done = slurm.run("--time", "0:01:00", "JOB=1:1", "x.JOB.log", sys.executable, "-c", RESUMING, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "saved").read_text() == "SIGUSR1"
    lines = (tmp_path / "x.1.log").read_text().splitlines()
    assert sum(line.startswith("# Host") for line in lines) == 2
    assert [line.rpartition(" ")[2] for line in lines if line.startswith("# Ended")] == ["75", "0"]
    assert "# Queued again" in lines
    assert "goes on" in lines


@pytest.mark.slow
def test_a_job_that_asks_for_ever_to_be_run_again_fails(slurm: Cluster, tmp_path: Path) -> None:
    # As if it had asked 19 times before.
    command = "echo up; [ -e seen ] || { touch seen; echo 19 >q/x/1.again; }; exit 75"
    done = slurm.run("x.log", "sh", "-c", command, cwd=tmp_path)
    assert done.returncode == 1
    assert says(done.stderr, 20)
    assert output(tmp_path / "x.log").count("up") == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "command"),
    [
        # SIGUSR1 for a command that handles it and continues later; SIGTERM for one that handles nothing.
        (["--time", "0:10:00"], [sys.executable, "-c", RESUMING]),
        ([], ["sh", "-c", "echo up; sleep $((60 * !$(wc -l <hi)))"]),
    ],
)
def test_preemption_runs_the_job_again(slurm: Cluster, tmp_path: Path, command: list[str], options: list[str]) -> None:
    if "high" not in slurm.tool("sinfo", "--noheader", "--format=%P"):
        pytest.skip("this Slurm has no partition 'high' that preempts")
    (tmp_path / "hi").touch()
    node = slurm.tool("sinfo", "--noheader", "--Node", "--format=%N").split()[0]
    whole = ["--exclusive", f"--nodelist={node}"]
    change(slurm, "command sbatch", " ".join(["command sbatch", *whole]))
    process = slurm.start(*options, "x.log", *command, cwd=tmp_path)
    wait_for_start(tmp_path / "x.log")
    high = ["sbatch", "--partition=high", *whole, "--output=/dev/null", f"--wrap=echo over >{tmp_path}/hi; sleep 1"]
    slurm.tool(*high)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert (tmp_path / "hi").read_text() == "over\n"
    lines = (tmp_path / "x.log").read_text().splitlines()
    assert sum(line.startswith("# Host") for line in lines) == 2


def test_a_job_that_is_cancelled_is_not_queued_again(slurm: Cluster, tmp_path: Path) -> None:
    process = slurm.start("x.log", sys.executable, "-c", RESUMING, cwd=tmp_path)
    wait_for_start(tmp_path / "x.log")
    slurm.tool("scancel", job_id(tmp_path, "x"))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert says(err, "CANCELLED")
    assert (tmp_path / "saved").read_text() == "SIGTERM"
    assert not is_alive(slurm, job_id(tmp_path, "x"))


def test_waiting_for_a_scheduler_that_does_not_answer(slurm: Cluster, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sbatch", "squeue"):
        real = subprocess.run(["which", name], capture_output=True, text=True, check=True).stdout.strip()
        message = "Unable to contact slurm controller (connect failure)"
        text = f'#!/bin/sh\necho x >>"$0.n"\n[ $(wc -l <"$0.n") -gt 2 ] || {{ echo "{message}" >&2; exit 1; }}\n'
        (tools / name).write_text(f'{text}exec {real} "$@"\n')
        (tools / name).chmod(0o755)
    slurm.environment = slurm.environment | {"PATH": f"{tools}:{os.environ['PATH']}"}
    done = slurm.run("x.log", "sh", "-c", "echo run >>count; sleep 3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert says(done.stderr, message)
    assert (tmp_path / "count").read_text() == "run\n"


def test_the_reason_of_a_refusal_is_shown(slurm: Cluster, tmp_path: Path) -> None:
    change(slurm, "command sbatch", "command sbatch --partition=nosuch")
    done = slurm.run("x.log", "true", cwd=tmp_path)
    assert done.returncode == 1
    assert says(done.stderr, "sbatch")
    assert "invalid partition" in done.stderr  # the words of Slurm


def test_resources_reach_the_job(slurm: Cluster, tmp_path: Path) -> None:
    change(slurm, "# prologue module load cuda/12.8", 'prologue export GREETING="a  b"  # a comment')
    show = 'echo "$GREETING $OMP_NUM_THREADS $SLURM_CPUS_PER_TASK $SLURM_MEM_PER_NODE ${CUDA_VISIBLE_DEVICES+gpu}"'
    options = ["--num-threads", "2", "--mem", "300M", "--time", "0:10:00"]
    done = slurm.run(*options, "x.log", "sh", "-c", show, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert output(tmp_path / "x.log") == ["a  b 2 2 300 "]


def test_gpus(slurm: Cluster, tmp_path: Path) -> None:
    if "gpu" not in slurm.tool("sinfo", "--noheader", "--format=%G"):
        pytest.skip("this Slurm has no GPUs")
    done = slurm.run("--gpu", "2", "x.log", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert output(tmp_path / "x.log") == ["0,1"]


@pytest.mark.slow
def test_a_prologue_that_fails_is_shown(slurm: Cluster, tmp_path: Path) -> None:
    change(slurm, "# prologue module load cuda/12.8", "prologue echo no such module; exit 1")
    done = slurm.run("x.log", "true", cwd=tmp_path)
    assert done.returncode == 1
    assert "no such module" in done.stderr
    assert says(done.stderr, "FAILED", "NonZeroExitCode")


def test_a_job_of_two_nodes(slurm: Cluster, tmp_path: Path) -> None:
    if len(slurm.tool("sinfo", "--noheader", "--Node", "--format=%N").split()) < 2:
        pytest.skip("this Slurm has one node")
    show = 'echo "$SLURM_PROCID $SLURMD_NODENAME $MASTER_ADDR $MASTER_PORT $DISTILMOS_NODES"'
    done = slurm.run("--num-nodes", "2", "--num-threads", "2", "x.log", "sh", "-c", show, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = (line.split() for line in sorted(output(tmp_path / "x.log")))
    assert [first[0], second[0]] == ["0", "1"]
    assert first[1] != second[1]
    assert first[2:] == second[2:]
    assert first[2] == first[1]
    assert first[4] == "2"


# Announces that it saves; the second process is done later than the first one.
SAVING = """
import os, signal, sys, time
from pathlib import Path
number = int(os.environ["SLURM_PROCID"])
saved = Path(f"saved.{number}")
def save(*_):
    time.sleep(2 * number)
    saved.touch()
    sys.exit(75)
signal.signal(signal.SIGUSR1, save)
print("goes on" if saved.exists() else "up", flush=True)
if not saved.exists():
    time.sleep(100)
"""


@pytest.mark.slow
def test_the_job_with_torchrun_of_the_guide(slurm: Cluster, tmp_path: Path) -> None:
    if len(slurm.tool("sinfo", "--noheader", "--Node", "--format=%N").split()) < 2:
        pytest.skip("this Slurm has one node")
    random = np.random.default_rng(0)
    for name in ("train", "dev"):
        utterances = []
        for number in range(6):
            path = tmp_path / "wav" / name / f"u{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, 0.1 * number * random.standard_normal(8000), 16000)
            utterances.append(Utterance(path.stem, path, f"s{number}", mos=5 - 0.5 * number))
        write_data_dir(tmp_path / "data" / name, utterances)
        raw = tmp_path / "raw" / name
        assert main(["dump-audio", str(tmp_path / "data" / name), str(raw)]) == 0
        assert main(["merge-archives", str(raw), "--jobs", "1"]) == 0
    settings = ["model=spectral", "spectral_dim=4", "token_weight=0", "best_metric=utterance_LCC", "batch_seconds=2"]
    settings += ["max_seconds=1", "max_steps=4", "warmup_steps=1", "eval_every=2"]
    training = ["--config", str(REPOSITORY / "conf" / "distilmos.yaml"), "--out", str(tmp_path / "exp")]
    training += ["--train", str(tmp_path / "raw" / "train"), "--dev", str(tmp_path / "raw" / "dev")]
    training += [word for setting in settings for word in ("--set", setting)]
    script = re.search(r"```bash\n(#!.*torchrun.*?)```", (REPOSITORY / "egs" / "README.md").read_text(), re.DOTALL)[1]
    changes = {
        r"head=.*": "head=127.0.0.1",  # the nodes of a throw-away Slurm are this machine
        r"--cpus-per-task=\d+ --gpus-per-node=\d+": "--cpus-per-task=1",
        r"--nproc-per-node=4": "--nproc-per-node=1",
        r"distilmos train [^`]*": shlex.join([sys.executable, "-m", "distilmos.cli", "train", *training]) + "\n",
        r"srun torchrun": f"srun {shlex.quote(sys.executable)} -m torch.distributed.run",
    }
    for pattern, replacement in changes.items():
        script, count = re.subn(pattern, lambda _, text=replacement: text, script)
        assert count == 1, pattern
    (tmp_path / "job.sh").write_text(script)
    log = tmp_path / "job.log"
    slurm.tool("sbatch", "--wait", f"--output={log}", f"--chdir={tmp_path}", str(tmp_path / "job.sh"))
    started = json.loads((tmp_path / "exp" / "log.jsonl").read_text().splitlines()[0])
    assert started["hardware"]["processes"] == 2, log.read_text()
    assert (tmp_path / "exp" / "final" / "model.safetensors").exists(), log.read_text()


@pytest.mark.slow
def test_preemption_of_a_job_of_two_nodes(slurm: Cluster, tmp_path: Path) -> None:
    if "high" not in slurm.tool("sinfo", "--noheader", "--format=%P"):
        pytest.skip("this Slurm has no partition 'high' that preempts")
    change(slurm, "command sbatch", "command sbatch --exclusive")
    command = ["--num-nodes", "2", "--time", "0:10:00", "x.log", sys.executable, "-c", SAVING]
    process = slurm.start(*command, cwd=tmp_path)
    wait_for(lambda: (tmp_path / "x.log").exists() and output(tmp_path / "x.log").count("up") == 2)
    slurm.tool("sbatch", "--partition=high", "--nodes=1", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert output(tmp_path / "x.log").count("goes on") == 2


@pytest.mark.slow
@pytest.mark.parametrize("requeue", [False, True])
def test_a_node_that_fails(slurm: Cluster, tmp_path: Path, requeue: bool) -> None:
    if "SLURM_CONF" not in slurm.environment:
        pytest.skip("only a throw-away Slurm may lose a node")
    node = slurm.tool("sinfo", "--noheader", "--Node", "--format=%N").split()[0]
    again = "" if requeue else "--no-requeue"
    change(slurm, "command sbatch", f"command sbatch --nodelist={node} {again}")
    process = slurm.start("x.log", "sh", "-c", "echo up; [ -e short ] || sleep 100", cwd=tmp_path)
    wait_for_start(tmp_path / "x.log")
    (tmp_path / "short").touch()
    slurm.tool("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
    wait_for(lambda: "idle" in slurm.tool("sinfo", "--noheader", f"--nodes={node}", "--format=%T"))
    _, err = process.communicate(timeout=120)
    assert process.returncode == (0 if requeue else 1), err
    assert requeue or says(err, "NODE_FAIL")


@pytest.mark.slow
def test_a_controller_that_is_restarted(slurm: Cluster, tmp_path: Path) -> None:
    if "SLURM_CONF" not in slurm.environment:
        pytest.skip("only a throw-away Slurm may lose its controller")
    place = Path(slurm.environment["SLURM_CONF"]).parent
    process = slurm.start("JOB=1:2", "JOB.log", "sh", "-c", "echo up; sleep 4; echo run >>count.JOB", cwd=tmp_path)
    for number in (1, 2):
        wait_for_start(tmp_path / f"{number}.log")
    controller = int((place / "pids" / "slurmctld").read_text().split()[0])
    os.kill(controller, signal.SIGTERM)
    wait_for(lambda: not is_alive(slurm, job_id(tmp_path, "JOB")))  # squeue is not answered
    wait_for(lambda: (tmp_path / "count.1").exists())  # jobs end meanwhile
    subprocess.run([TESTS / "clusters" / "slurm_up.sh", place], check=True)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert [(tmp_path / f"count.{number}").read_text() for number in (1, 2)] == ["run\n", "run\n"]


@pytest.mark.slow
def test_a_job_that_is_queued_again_by_hand(slurm: Cluster, tmp_path: Path) -> None:
    process = slurm.start("x.log", "sh", "-c", "echo up; [ -e short ] || sleep 100; echo end", cwd=tmp_path)
    wait_for_start(tmp_path / "x.log")
    (tmp_path / "short").touch()
    slurm.tool("scontrol", "requeue", job_id(tmp_path, "x"))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert output(tmp_path / "x.log")[-1] == "end"


def test_the_limit_of_arrays_is_that_of_slurm(slurm: Cluster, tmp_path: Path) -> None:
    found = [line for line in slurm.tool("scontrol", "show", "config").splitlines() if line.startswith("MaxArraySize")]
    code = "from distilmos.runner.schedulers import scheduler_named as s; print(s('slurm').array_limit())"
    environment = os.environ | slurm.environment
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) == int(found[0].split()[-1]) - 1
