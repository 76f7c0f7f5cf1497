"""OpenPBS, PBS Professional and Torque. Not run on a real system: the tests use stand-ins for their tools."""

from __future__ import annotations

import re

from distilmos.errors import FailedError
from distilmos.runner.conf import SiteConf
from distilmos.runner.schedulers import NoAnswerError, Request, Scheduler, Seen

# C: completed (Torque), F: finished, X: finished element. E, exiting, has not ended yet.
ENDED = "CFX"
ANSWERS = "Unknown Job|has finished|Unknown job|invalid state for job|already been finished|Request invalid for state"
_ID = re.compile(r"(\d+)(?:\[(\d*)\])?")


class PBS(Scheduler):
    """qsub, qstat, qselect and qdel."""

    title = "PBS"
    task = "${PBS_ARRAY_INDEX:-${PBS_ARRAYID:-1}}"
    temporary = re.compile("[Cc]annot connect|Connection refused|No route|timed out|try again|[Ee]xpired")

    def submit(self, request: Request, conf: SiteConf) -> str:
        """Submit with qsub; a single task is a plain job, because an array has at least two."""
        words = ["-N", request.job_name, "-o", "/dev/null", "-j", "oe", "-S", "/bin/bash"]
        if request.tasks > 1:
            words += conf.flags({"array": f"1-{request.tasks}{request.limit}"}, defaults=False)
        return _number(self.hand_in([*conf.command, *words, *request.flags, str(request.script)]))

    def find(self, job_name: str) -> str | None:
        """Look the name up with qselect."""
        found = self.ask(["qselect", "-N", job_name]).split()
        return _number(found[0]) if found else None

    def poll(self, ids: list[str]) -> dict[tuple[str, int], Seen]:
        """Ask qstat; ended jobs are not in its answer, or have a state in ENDED."""
        seen = {}
        for line in self.ask(["qstat", "-t", *ids], ANSWERS).splitlines():
            words, found = line.split(), _ID.match(line)
            if found and found[2] != "" and len(words) >= 6:
                seen[_number(line), int(found[2] or 1)] = Seen(words[-2] in ENDED)
        return seen

    def explain(self, job_id: str, task: int) -> str:
        """Ask qstat for its record of the ended job."""
        one = job_id.replace("[]", f"[{task}]")
        try:
            record = self.ask(["qstat", "-x", "-f", one])
        except NoAnswerError:
            return super().explain(job_id, task)
        record = re.sub(r"\n\t", "", record)  # long values continue on the next line
        found = [re.search(rf"^\s*{name} = (.*)", record, re.MULTILINE) for name in ("Exit_status", "comment")]
        facts = [f"{name} {match[1]}" for name, match in zip(("exit status", "comment:"), found, strict=True) if match]
        return ", ".join(facts) or super().explain(job_id, task)

    def cancel(self, ids: list[str]) -> None:
        """Cancel with qdel."""
        self.ask(["qdel", *ids], ANSWERS)

    def array_limit(self) -> int | None:
        """Return None: PBS does not tell users; the site's configuration has the limit."""
        return None


def _number(job_id: str) -> str:
    """Return `12` for 12.server, and `12[]` for 12[].server and 12[3].server."""
    found = _ID.match(job_id)
    if found is None:
        raise FailedError(f"PBS answers {job_id!r}, which is not a job id")
    return found[1] if found[2] is None else f"{found[1]}[]"
