"""Grid Engine (Sun, Son of, Univa, Altair)."""

from __future__ import annotations

import re

from distilmos.runner.conf import SiteConf
from distilmos.runner.schedulers import NoAnswerError, Request, Scheduler, Seen

QUEUE_AGAIN = 99  # the exit status with which a job asks to be queued again
ERROR_STATE = "E"  # Eqw: the job could not start and waits for an administrator
ANSWERS = "do(es)? not exist|denied: job|Following jobs"


class GridEngine(Scheduler):
    """qsub, qstat, qdel, qacct and qconf."""

    title = "Grid Engine"
    task = "$SGE_TASK_ID"
    temporary = re.compile("unable to (contact|send)|can't connect|commlib error|got no response|try again|timeout")

    def submit(self, request: Request, conf: SiteConf) -> str:
        """Submit with qsub, always an array."""
        words = ["-terse", "-N", request.job_name, "-o", "/dev/null", "-j", "y", "-S", "/bin/bash"]
        words += ["-t", f"1-{request.tasks}"]
        if request.max_jobs_run:
            words += ["-tc", str(request.max_jobs_run)]
        answer = self.hand_in([*conf.command, *words, *request.flags, str(request.script)])
        return answer.splitlines()[-1].partition(".")[0]  # 12.1-4:1

    def find(self, job_name: str) -> str | None:
        """Look the name up with qstat."""
        found = re.search(r"^job_number:\s*(\d+)", self.ask(["qstat", "-j", job_name], ANSWERS), re.MULTILINE)
        return found[1] if found else None

    def poll(self, ids: list[str]) -> dict[tuple[str, int], Seen]:
        """Ask qstat; ended jobs are not in its answer."""
        seen = {}
        for line in self.ask(["qstat"]).splitlines():
            words = line.split()
            if len(words) < 9 or words[0] not in ids:
                continue
            state = (
                Seen(True, "cannot run: in the error state, see qstat -j") if ERROR_STATE in words[4] else Seen(False)
            )
            for task in _numbers(words[-1]):
                seen[words[0], task] = state
        return seen

    def explain(self, job_id: str, task: int) -> str:
        """Ask the accounting (qacct)."""
        try:
            account = self.ask(["qacct", "-j", job_id, "-t", str(task)])
        except NoAnswerError:
            return super().explain(job_id, task)
        entries = dict(line.split(maxsplit=1) for line in account.splitlines() if len(line.split(maxsplit=1)) == 2)
        return f"failed {entries.get('failed', '?').strip()}, exit status {entries.get('exit_status', '?').strip()}"

    def cancel(self, ids: list[str]) -> None:
        """Cancel with qdel."""
        self.ask(["qdel", *ids], ANSWERS)

    def array_limit(self) -> int | None:
        """Return max_aj_tasks."""
        found = re.search(r"^max_aj_tasks\s+(\d+)", self.ask(["qconf", "-sconf"]), re.MULTILINE)
        return int(found[1]) if found else None

    def requeue(self) -> int | None:
        """Return the exit status that makes Grid Engine queue the job again."""
        return QUEUE_AGAIN


def _numbers(tasks: str) -> list[int]:
    """Return the tasks in `3`, or in `2-4:1,7` (waiting elements)."""
    numbers: list[int] = []
    for part in tasks.split(","):
        span, _, step = part.partition(":")
        first, _, last = span.partition("-")
        numbers += range(int(first), int(last or first) + 1, int(step or 1))
    return numbers
