"""Interface of the schedulers, for `queue` and `element`."""

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
    """The scheduler did not answer; it may answer later."""


class RefusedError(FailedError):
    """The scheduler refuses a job."""


@dataclass(frozen=True)
class Seen:
    """A scheduler's answer about one task.

    Attributes:
        ended: whether the task has ended for good.
        reason: why the scheduler ended it; empty if it ended by itself, because then its exit status will come.
        state: the scheduler's words, to report if no exit status comes.
    """

    ended: bool
    reason: str = ""
    state: str = ""


@dataclass(frozen=True)
class Request:
    """One job to submit.

    Attributes:
        script: the job script. It redirects its own output, so the scheduler's output file is /dev/null.
        job_name: name of the job.
        tasks: number of tasks, 1..tasks.
        max_jobs_run: limit of tasks that run at a time; None for no limit.
        flags: flags from the site's configuration.
    """

    script: Path
    job_name: str
    tasks: int
    max_jobs_run: int | None
    flags: list[str]

    @property
    def limit(self) -> str:
        """The limit after the range, `%N` for Slurm and PBS; empty for no limit."""
        return f"%{self.max_jobs_run}" if self.max_jobs_run else ""


class Scheduler(ABC):
    """The interface of a backend. Any of its methods may raise NoAnswerError."""

    title: str
    # Shell expression for the number of the task, in the job script.
    task: str
    # Messages of failures that may pass.
    temporary: re.Pattern[str]

    @abstractmethod
    def submit(self, request: Request, conf: SiteConf) -> str:
        """Submit a job and return its id.

        Raises:
            RefusedError: with the scheduler's message, if it refuses the job.
        """

    @abstractmethod
    def find(self, job_name: str) -> str | None:
        """Return the id of the job with that name; None if none exists, or it has ended."""

    @abstractmethod
    def poll(self, ids: list[str]) -> dict[tuple[str, int], Seen]:
        """Return (id, task) -> answer for all jobs, with one query; tasks unknown to the scheduler are absent."""

    def explain(self, job_id: str, task: int) -> str:
        """Return in one line why a task that `poll` no longer finds has ended."""
        return f"{self.title} no longer knows the job"

    @abstractmethod
    def cancel(self, ids: list[str]) -> None:
        """Cancel jobs; ignore those that have ended."""

    @abstractmethod
    def array_limit(self) -> int | None:
        """Return the limit of tasks in an array; None if the scheduler does not tell."""

    def launcher(self, num_nodes: int, num_threads: int) -> list[str]:
        """Return the words in front of a command that start it on each of several nodes."""
        raise InputError(f"--num-nodes {num_nodes}: jobs of several nodes are not supported on {self.title}")

    def preamble(self, num_nodes: int) -> list[str]:
        """Return the lines of the job script that a command on several nodes needs."""
        return []

    # On the compute node:

    def preempted(self) -> bool:
        """Return whether this job must make room for another one."""
        return False

    def requeue(self) -> int | None:
        """Queue this job again; return the exit status that it must end with, or None if that is not possible."""
        return None

    def ask(self, command: list[str], unknown: str = "(?!)", environment: Mapping[str, str] | None = None) -> str:
        """Run a command of the scheduler; return its output.

        Args:
            command: program and arguments.
            unknown: pattern of the message for unknown jobs, which counts as an answer.
            environment: additional variables.

        Raises:
            NoAnswerError: if it fails.
        """
        done = self._run(command, environment)
        if done.returncode != 0 and not re.search(unknown, done.stderr + done.stdout):
            raise NoAnswerError((done.stderr.strip() or done.stdout.strip() or f"{command[0]} failed").splitlines()[-1])
        return done.stdout

    def hand_in(self, command: list[str], environment: Mapping[str, str] | None = None) -> str:
        """Run the submitting command; return its output.

        Raises:
            NoAnswerError: if it fails in a way that may pass.
            RefusedError: if the scheduler refuses the job.
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
            # A process group of its own, so that Ctrl-C does not interrupt a submission.
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
                f"{command[0]}: no such command; run this on a machine that submits to {self.title}"
            ) from None
        except subprocess.TimeoutExpired:
            raise NoAnswerError(f"{command[0]} took more than {ANSWER_SECONDS} s") from None


def own_environment() -> dict[str, str]:
    """Return the environment without the variables that describe the surrounding Slurm job.

    A job submitted from within another one would take them for its own settings.
    """
    return {name: value for name, value in os.environ.items() if not re.match("SLURM_(?!CONF$)|SBATCH_JOB", name)}


def scheduler_named(name: str) -> Scheduler:
    """Return the scheduler of a backend: slurm, sge or pbs."""
    module = importlib.import_module(f"distilmos.runner.{name}")
    scheduler: Scheduler = getattr(module, BACKENDS[name])()
    return scheduler
