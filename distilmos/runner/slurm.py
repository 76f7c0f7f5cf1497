"""Slurm."""

from __future__ import annotations

import os
import re

from distilmos.runner.conf import SiteConf
from distilmos.runner.schedulers import NoAnswerError, Request, Scheduler, Seen

# State of an ended job -> reason. `squeue -j` lists ended jobs for some minutes: only the state shows that they ended.
ENDED = {
    "COMPLETED": "",
    "FAILED": "",
    "BOOT_FAIL": "its node did not start",
    "CANCELLED": "scancel, by you or an administrator",
    "DEADLINE": "past its deadline",
    "NODE_FAIL": "its node failed",
    "OUT_OF_MEMORY": "more than its --mem",
    "PREEMPTED": "made room for another job",
    "REVOKED": "revoked",
    "TIMEOUT": "longer than its --time",
}
# Reasons why a job waits for ever.
STUCK = re.compile("requeued held|DependencyNeverSatisfied|BadConstraints|JobHeldAdmin")
ANSWERS = "Invalid job id"


class Slurm(Scheduler):
    """sbatch, squeue, scancel and scontrol."""

    title = "Slurm"
    task = "${SLURM_ARRAY_TASK_ID:-1}"
    temporary = re.compile(
        "Unable to contact|timed out|Connection refused|[Cc]ommunication connection|Zero Bytes|temporarily|try again"
    )

    def submit(self, request: Request, conf: SiteConf) -> str:
        """Submit with sbatch; a single task is a plain job."""
        words = ["--parsable", f"--job-name={request.job_name}", "--output=/dev/null"]
        if request.tasks > 1:
            words.append(f"--array=1-{request.tasks}{request.limit}")
        return self.hand_in([*conf.command, *words, *request.flags, str(request.script)]).partition(";")[0]

    def find(self, job_name: str) -> str | None:
        """Look the name up with squeue."""
        found = self.ask(["squeue", "--noheader", f"--name={job_name}", "--format=%F"]).split()
        return found[0] if found else None

    def poll(self, ids: list[str]) -> dict[tuple[str, int], Seen]:
        """Ask squeue for all states."""
        command = ["squeue", "--noheader", "--states=all", f"--jobs={','.join(ids)}", "--format=%F|%K|%T|%r"]
        # All waiting elements are on one line, which squeue cuts off by default.
        answer = self.ask(command, ANSWERS, {"SLURM_BITSTR_LEN": "0"})
        seen = {}
        for line in answer.splitlines():
            job_id, tasks, state, reason = line.split("|", 3)
            for task in _numbers(tasks):
                seen[job_id, task] = _seen(state, reason)
        return seen

    def explain(self, job_id: str, task: int) -> str:
        """Ask the accounting (sacct), if the site has one."""
        try:
            state = self.ask(["sacct", "--noheader", "--parsable2", f"--jobs={job_id}_{task}", "--format=State"])
        except (NoAnswerError, OSError):
            state = ""
        return state.split("\n")[0].strip() or super().explain(job_id, task)

    def cancel(self, ids: list[str]) -> None:
        """Cancel with scancel."""
        self.ask(["scancel", *ids], ANSWERS)

    def array_limit(self) -> int | None:
        """Return MaxArraySize - 1: the setting is the largest number of a task plus 1, and tasks start at 1."""
        found = re.search(r"^MaxArraySize\s*=\s*(\d+)", self.ask(["scontrol", "show", "config"]), re.MULTILINE)
        return int(found[1]) - 1 if found else None

    def launcher(self, num_nodes: int, num_threads: int) -> list[str]:
        """Start one process on each node; when one ends, the others continue, to write a checkpoint for example."""
        words = [f"--nodes={num_nodes}", f"--ntasks={num_nodes}", "--ntasks-per-node=1"]
        return ["srun", *words, f"--cpus-per-task={num_threads}", "--kill-on-bad-exit=0", "--wait=0"]

    def preamble(self, num_nodes: int) -> list[str]:
        """Set the meeting point of the processes: the first node, and a port that differs between jobs."""
        return [
            'MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
            "MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))",
            f"export MASTER_ADDR MASTER_PORT DISTILMOS_NODES={num_nodes}",
        ]

    def preempted(self) -> bool:
        """Return whether the job is in the grace time of a preemption."""
        preempted = re.search(r"PreemptTime=(\S+)", self._own_job())
        return preempted is not None and preempted[1] != "None"

    def requeue(self) -> int | None:
        """Queue the job again, unless Slurm is ending it: then it was cancelled, or Slurm queues it again itself."""
        state = re.search(r"JobState=(\S+)", self._own_job())
        if state is None or state[1] != "RUNNING":
            return None
        try:
            self.ask(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]])
        except NoAnswerError:
            return None
        return 0

    def _own_job(self) -> str:
        try:
            return self.ask(["scontrol", "--oneliner", "show", "job", os.environ["SLURM_JOB_ID"]])
        except NoAnswerError:
            return ""


def _seen(state: str, reason: str) -> Seen:
    if state in ENDED:
        return Seen(
            True, f"{state}: {ENDED[state]}" if ENDED[state] else "", f"{state} ({reason}) before the command ended"
        )
    if state == "PENDING" and STUCK.search(reason):
        return Seen(True, f"cannot run: {reason}")
    return Seen(False)


def _numbers(tasks: str) -> list[int]:
    """Return the tasks in `3` or in `2-5,8%2` (waiting elements); 1 for a job without tasks, `N/A`."""
    if tasks == "N/A":
        return [1]
    numbers: list[int] = []
    for part in tasks.partition("%")[0].split(","):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers
