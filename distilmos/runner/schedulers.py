"""What `queue` and `element` need of a scheduler."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from distilmos.errors import FailedError, InputError
from distilmos.runner.conf import SiteConf

# backend -> its module and class
BACKENDS = {"slurm": "Slurm", "sge": "GridEngine", "pbs": "PBS"}
ANSWER_SECONDS = 60


class NoAnswerError(Exception):
    """The scheduler did not answer; it may do so later."""


class RefusedError(FailedError):
    """The scheduler does not take a job."""


@dataclass(frozen=True)
class Seen:
    """What a scheduler says of one task.

    Attributes:
        ended: whether it has ended for good.
        reason: why the scheduler has ended it; empty if it ended by itself, however, so that its exit status will come.
        state: the scheduler's words, should that not come.
    """

    ended: bool
    reason: str = ""
    state: str = ""


@dataclass(frozen=True)
class Request:
    """One job to be submitted.

    Attributes:
        script: the job script. It sees to its output itself, so that that of the scheduler's job is nothing.
        job_name: its name.
        tasks: number of tasks, 1..tasks.
        max_jobs_run: how many tasks may run at a time; None for any number.
        flags: words for the options, from the site's configuration.
    """

    script: Path
    job_name: str
    tasks: int
    max_jobs_run: int | None
    flags: list[str]

    @property
    def limit(self) -> str:
        """`%N`, or nothing, as Slurm and PBS write the limit behind the range."""
        return f"%{self.max_jobs_run}" if self.max_jobs_run else ""


class Scheduler(ABC):
    """The interface of a backend. Any of its methods may raise NoAnswerError."""

    title: str
    # The number of a task, in the job script.
    task: str
    # What the scheduler says when it may work the next time.
    temporary: re.Pattern[str]

    @abstractmethod
    def submit(self, request: Request, conf: SiteConf) -> str:
        """Submit a job and return its id.

        Raises:
            RefusedError: with the scheduler's message, if it does not take it.
        """

    @abstractmethod
    def find(self, job_name: str) -> str | None:
        """Return the id of the job of that name, if there is one that has not ended."""

    @abstractmethod
    def poll(self, ids: list[str]) -> dict[tuple[str, int], Seen]:
        """Return, with one query, what is known of (id, task) for all jobs; a task that is not in it is not known."""

    def explain(self, job_id: str, task: int) -> str:
        """Return in one line why a task that is not known any more has ended."""
        return f"{self.title} does not know the job any more"

    @abstractmethod
    def cancel(self, ids: list[str]) -> None:
        """Cancel jobs; those that have ended are no error."""

    @abstractmethod
    def array_limit(self) -> int | None:
        """Return the number of tasks that an array may have; None if the scheduler does not tell."""

    def launcher(self, num_nodes: int, num_threads: int) -> list[str]:
        """Return the words before a command of several nodes that start it on each of them."""
        raise InputError(f"--num-nodes {num_nodes}: {self.title} jobs of several nodes are not supported")

    def preamble(self, num_nodes: int) -> list[str]:
        """Return lines of the job script that a command of several nodes needs."""
        return []

    # On the compute node:

    def preempted(self) -> bool:
        """Return whether this job has to make room for another one."""
        return False

    def requeue(self) -> int | None:
        """Have this job queued again; return the exit status that it shall end with, None if that is not possible."""
        return None

    def ask(self, command: list[str], unknown: str = "(?!)", environment: Mapping[str, str] | None = None) -> str:
        """Run a command of the scheduler; return what it prints.

        Args:
            command: the words.
            unknown: pattern of the message that says that there are no such jobs, which is an answer.
            environment: variables in addition.

        Raises:
            NoAnswerError: if it fails.
        """
        done = self._run(command, environment)
        if done.returncode != 0 and not re.search(unknown, done.stderr + done.stdout):
            raise NoAnswerError((done.stderr.strip() or done.stdout.strip() or f"{command[0]} failed").splitlines()[-1])
        return done.stdout

    def hand_in(self, command: list[str], environment: Mapping[str, str] | None = None) -> str:
        """Run the submitting command; return what it prints.

        Raises:
            NoAnswerError: if it may work the next time.
            RefusedError: if the scheduler refuses.
        """
        done = self._run(command, environment)
        if done.returncode != 0:
            message = done.stderr.strip() or done.stdout.strip()
            if self.temporary.search(message):
                raise NoAnswerError(message.splitlines()[-1])
            raise RefusedError(f"{command[0]} refuses the job: {message}")
        return done.stdout.strip()

    def _run(self, command: list[str], environment: Mapping[str, str] | None) -> subprocess.CompletedProcess[str]:
        try:
            # In a group of its own: Ctrl-C on the terminal must not break off a submission half-way.
            return subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=ANSWER_SECONDS,
                env=own_environment() | (dict(environment or {})),
                process_group=0,
                check=False,
            )
        except FileNotFoundError:
            raise InputError(
                f"{command[0]}: no such command: is this a machine that submits to {self.title}?"
            ) from None
        except subprocess.TimeoutExpired:
            raise NoAnswerError(f"{command[0]} took more than {ANSWER_SECONDS} s") from None


def own_environment() -> dict[str, str]:
    """Return the environment without what a job of Slurm finds there about itself.

    Otherwise a job that is submitted from within another one would take that for its own settings.
    """
    return {name: value for name, value in os.environ.items() if not re.match("SLURM_(?!CONF$)|SBATCH_JOB", name)}


def scheduler_named(name: str) -> Scheduler:
    """Return the scheduler of a backend: slurm, sge or pbs."""
    module = importlib.import_module(f"distilmos.runner.{name}")
    scheduler: Scheduler = getattr(module, BACKENDS[name])()
    return scheduler
