"""Submit arrays of jobs to a scheduler, wait for them, and find them again after an interruption."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from distilmos.errors import PREEMPTED, FailedError, InputError
from distilmos.files import write_text
from distilmos.runner.conf import SiteConf
from distilmos.runner.jobs import Array, Job
from distilmos.runner.log import empty_log, local_time, note
from distilmos.runner.process import StoppedError, handling
from distilmos.runner.schedulers import NoAnswerError, RefusedError, Request, Seen, scheduler_named
from distilmos.runner.state import LOCAL, State, Submission

Answer = TypeVar("Answer")

# Polling intervals grow from the first to the second number of seconds.
INTERVAL_SECONDS = (0.5, 15.0)
INTERVAL_GROWTH = 1.3
# Seconds that an exit status may take to appear on a shared file system: environment variable and default.
RESULT_VARIABLE, RESULT_SECONDS = "DISTILMOS_RESULT_SECONDS", 30.0
# A state in which the scheduler has ended a job must last this long: a job that is queued again passes through some.
SETTLE_SECONDS = 4.0
# Longest wait for a scheduler that does not answer.
SILENCE_SECONDS = 3600.0
# Longest wait for the end of a cancelled job.
CANCEL_SECONDS = 120.0


@dataclass(frozen=True)
class Resources:
    """Resources of each element, and limits of the array.

    Attributes:
        options: option of the site's configuration -> value.
        num_threads: threads of an element.
        num_nodes: nodes of an element.
        max_jobs_run: limit of elements that run at a time; None for no limit.
        retry: number of times that a failed element is submitted again.
    """

    options: dict[str, str]
    num_threads: int = 1
    num_nodes: int = 1
    max_jobs_run: int | None = None
    retry: int = 0


@dataclass
class _Waiting:
    """Submitted elements that have not ended, as far as known.

    Attributes:
        submission: their submission.
        job_id: the scheduler's id.
        tasks: index of each element -> number of its task.
        gone: index -> time when the scheduler first said that the element had ended, and the reason.
    """

    submission: Submission
    job_id: str
    tasks: dict[int, int]
    gone: dict[int, tuple[float, str]] = field(default_factory=dict)


class Queue:
    """Runs one array on a scheduler."""

    def __init__(self, array: Array, backend: str, conf: SiteConf, resources: Resources) -> None:
        """Prepare the array; `run` submits it."""
        self._array, self._backend, self._conf, self._resources = array, backend, conf, resources
        self._scheduler = scheduler_named(backend)
        self._state = State.of(array)
        self._waiting: list[_Waiting] = []
        self._unsubmitted: list[int] = []
        self._tries: dict[int, int] = {}
        self._reasons: dict[Job, str] = {}
        self._stops: list[int] = []
        self._result_seconds = _result_seconds()
        self._patience = _Patience(self._say, self._stops)

    def run(self) -> tuple[list[Job], dict[Job, str]]:
        """Run the elements, except those that an interrupted or failed run of the same array completed.

        Returns:
            the failed elements, and one line for each element that the scheduler ended.

        Raises:
            StoppedError: after SIGINT, SIGTERM or SIGHUP; the jobs are cancelled then.
            FailedError: if the scheduler refuses a job; the jobs are cancelled then. Also if the scheduler does not
                answer for SILENCE_SECONDS; the jobs stay then, and the next run of the same array finds them.
            InputError: if a log cannot be written, or an option is not in the configuration.
        """
        self._conf.flags(self._resources.options)
        with handling([signal.SIGINT, signal.SIGTERM, signal.SIGHUP], self._stops.append):
            try:
                return self._run()
            except (StoppedError, RefusedError) as error:
                cancel_all([self._state], str(error).splitlines()[0], wait=False)
                raise

    def _run(self) -> tuple[list[Job], dict[Job, str]]:
        done = self._take_up()
        under_way = {index for waiting in self._waiting for index in waiting.tasks}
        self._unsubmitted = [index for index in self._array.indices if index not in done | under_way]
        for index in self._unsubmitted:
            empty_log(self._array.job(index).log)
        failed: set[int] = set()
        interval = INTERVAL_SECONDS[0]
        while True:
            self._submit()
            if not self._waiting:
                break
            self._patience.sleep(interval)
            ended = self._collect()
            interval = INTERVAL_SECONDS[0] if ended else _longer(interval)
            for index, status in ended.items():
                if status == PREEMPTED:
                    self._unsubmitted.append(index)
                elif status != 0 and self._tries.get(index, 0) < self._resources.retry:
                    self._tries[index] = self._tries.get(index, 0) + 1
                    self._say(f"{self._name(index)} failed ({self._reason(index, status)}); submitting it again")
                    self._unsubmitted.append(index)
                elif status != 0:
                    failed.add(index)
        jobs = [self._array.job(index) for index in sorted(failed)]
        return jobs, {job: reason for job, reason in self._reasons.items() if job in jobs}

    def _take_up(self) -> set[int]:
        """Find the jobs and results of an earlier run; return the elements that have succeeded."""
        state = self._state
        if not state.is_of(self._array):
            cancel_all([state], "another array uses these logs now")
            state.begin(self._array)
            return set()
        for submission in state.submissions():
            if submission.backend != LOCAL:
                self._adopt(submission)
        if not self._waiting and state.inputs is None:
            state.begin(self._array)
            return set()
        done = state.succeeded()
        if self._waiting:
            jobs = " ".join(waiting.job_id for waiting in self._waiting)
            self._say(f"{self._array.log}: waiting for job {jobs} of an earlier run")
        if done:
            self._say(f"{self._array.log}: {len(done)} of {len(self._array.indices)} are done already")
        return done

    def _adopt(self, submission: Submission) -> None:
        scheduler = scheduler_named(submission.backend)
        job_id = self._ask(lambda: submission.id or scheduler.find(submission.job_name))
        if job_id is None:
            return
        seen = self._ask(lambda: scheduler.poll([job_id]))
        statuses = submission.statuses()
        alive = {
            index: task
            for task, index in enumerate(submission.indices, start=1)
            if index not in statuses and not seen.get((job_id, task), Seen(True)).ended
        }
        if alive and submission.backend != self._backend:
            cancel_all([self._state], f"now runs on {self._scheduler.title}")
        elif alive:
            submission.submitted(job_id)
            self._waiting.append(_Waiting(submission, job_id, alive))

    def _submit(self) -> None:
        """Submit the waiting elements, in arrays of the size that the site allows.

        --max-jobs-run limits one array. So with it, the next array waits for the end of the one before.
        """
        limit = self._resources.max_jobs_run
        while self._unsubmitted and not (limit and self._waiting):
            size = self._array_limit()
            chunk, self._unsubmitted = self._unsubmitted[:size], self._unsubmitted[size:]
            resources = self._resources
            launcher = []
            if resources.num_nodes > 1:
                launcher = self._scheduler.launcher(resources.num_nodes, resources.num_threads)
            submission = self._state.new_submission(self._backend, chunk, resources.num_threads, launcher)
            script = submission.directory / "job.sh"
            write_text(script, self._script(submission))
            request = Request(script, submission.job_name, len(chunk), limit, self._conf.flags(resources.options))
            job_id = self._hand_in(request)
            submission.submitted(job_id)
            tasks = {index: task for task, index in enumerate(chunk, start=1)}
            self._waiting.append(_Waiting(submission, job_id, tasks))
            count = f" ({len(chunk)} jobs)" if len(chunk) > 1 else ""
            self._say(f"{self._array.log}: job {job_id}{count}")

    def _array_limit(self) -> int:
        limits = [self._conf.max_array_size]
        if len(self._unsubmitted) > 1:
            limits.append(self._ask(self._scheduler.array_limit))
        return min((limit for limit in limits if limit), default=len(self._unsubmitted))

    def _hand_in(self, request: Request) -> str:
        def submit() -> str:
            # A submission without an answer may have succeeded.
            if self._patience.silent and (job_id := self._scheduler.find(request.job_name)):
                return job_id
            return self._scheduler.submit(request, self._conf)

        return self._patience.ask(submit)

    def _script(self, submission: Submission) -> str:
        directory = shlex.quote(str(submission.directory))
        lines = ["#!/bin/bash", f"task={self._scheduler.task}", f'exec >>{directory}/"$task".out 2>&1']
        lines += self._conf.prologue
        if self._resources.num_nodes > 1:
            lines += self._scheduler.preamble(self._resources.num_nodes)
        # -P: do not import modules from the directory in which the job starts.
        python = shlex.quote(sys.executable)
        lines.append(f'exec {python} -P -m distilmos.runner.element {directory} "$task"')
        return "\n".join(lines) + "\n"

    def _collect(self) -> dict[int, int]:
        """Return ended element -> exit status; -1 if it left none."""
        ended: dict[int, int] = {}
        failed = []
        for waiting in self._waiting:
            for index, status in waiting.submission.statuses(waiting.tasks).items():
                ended[index] = status
                failed += [(waiting, index)] if status > 128 else []
        left = [waiting for waiting in self._waiting if set(waiting.tasks) - set(ended)]
        if left or failed:
            ids = sorted({waiting.job_id for waiting in [*left, *(waiting for waiting, _ in failed)]})
            seen = self._ask(lambda: self._scheduler.poll(ids))
            for waiting, index in failed:
                # The scheduler may have killed the command, for using too much memory for example.
                reason = seen.get((waiting.job_id, waiting.tasks[index]), Seen(False)).reason
                if reason:
                    job = self._array.job(index)
                    self._reasons[job] = f"{self._name(index)}: {reason}"
                    note(job.log, f"{self._scheduler.title} job {waiting.job_id}: {reason}")
            for waiting in left:
                for index in set(waiting.tasks) - set(ended):
                    if self._has_vanished(waiting, index, seen.get((waiting.job_id, waiting.tasks[index]))):
                        ended[index] = -1
        for waiting in self._waiting:
            for index in ended:
                waiting.tasks.pop(index, None)
        self._waiting = [waiting for waiting in self._waiting if waiting.tasks]
        return dict(sorted(ended.items()))

    def _has_vanished(self, waiting: _Waiting, index: int, seen: Seen | None) -> bool:
        """Return whether an element has ended without an exit status; if so, note the reason in its log."""
        task = waiting.tasks[index]
        if seen is not None and not seen.ended:
            waiting.gone.pop(index, None)  # it was queued again
            return False
        since, reason = waiting.gone.setdefault(index, (time.monotonic(), seen.reason if seen else ""))
        # No exit status will come if the scheduler ended the element.
        if time.monotonic() - since < (SETTLE_SECONDS if reason else self._result_seconds):
            waiting.submission.refresh()
            return False
        reason = reason or (seen.state if seen else "")
        reason = reason or self._ask(lambda: self._scheduler.explain(waiting.job_id, task))
        job = self._array.job(index)
        self._reasons[job] = f"{self._name(index)}: {reason}"
        output = waiting.submission.output(index)
        if output.exists() and not job.log.read_bytes():
            job.log.write_bytes(output.read_bytes())
        note(
            job.log,
            f"Ended {local_time()} without an exit status, {self._scheduler.title} job {waiting.job_id}: {reason}",
        )
        if seen is not None and reason.startswith("cannot run"):
            self._ask(lambda: self._scheduler.cancel([waiting.job_id]))
        return True

    def _reason(self, index: int, status: int) -> str:
        return self._reasons.get(self._array.job(index), f": exit status {status}").partition(": ")[2]

    def _name(self, index: int) -> str:
        return "the command" if self._array.name is None else f"job {index}"

    def _ask(self, question: Callable[[], Answer]) -> Answer:
        return self._patience.ask(question)

    def _say(self, text: str) -> None:
        print(f"{self._backend}: {text}", file=sys.stderr, flush=True)


def _result_seconds() -> float:
    given = os.environ.get(RESULT_VARIABLE, "")
    if given and not re.fullmatch(r"\d+(\.\d+)?", given):
        raise InputError(f"{RESULT_VARIABLE}: {given!r} is not a number of seconds")
    return float(given or RESULT_SECONDS)


def _longer(interval: float) -> float:
    return min(interval * INTERVAL_GROWTH, INTERVAL_SECONDS[1])


class _Patience:
    """Waits, for some time or for an answer of the scheduler, until a signal comes."""

    def __init__(self, say: Callable[[str], None], stops: list[int]) -> None:
        """Report with `say`; the list `stops` receives the signals."""
        self._say, self._stops = say, stops
        self.silent = False

    def sleep(self, seconds: float) -> None:
        """Wait.

        Raises:
            StoppedError: after a signal.
        """
        until = time.monotonic() + seconds
        while not self._stops and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))
        if self._stops:
            raise StoppedError(self._stops[0])

    def ask(self, question: Callable[[], Answer]) -> Answer:
        """Ask until an answer comes.

        Raises:
            FailedError: if none comes within SILENCE_SECONDS.
            StoppedError: after a signal.
        """
        began, interval = time.monotonic(), INTERVAL_SECONDS[0]
        while True:
            try:
                answer = question()
            except NoAnswerError as error:
                if not self.silent:
                    self._say(f"no answer, waiting: {error}")
                self.silent = True
                if time.monotonic() - began > SILENCE_SECONDS:
                    message = f"no answer for {SILENCE_SECONDS / 60:.0f} minutes: {error}"
                    raise FailedError(f"{message}; submitted jobs continue, the same command finds them") from None
                self.sleep(interval)
                interval = _longer(interval)
                continue
            if self.silent:
                self._say("answers again")
            self.silent = False
            return answer


def cancel_all(states: list[State], why: str, wait: bool = True) -> None:
    """Cancel the jobs of arrays that have not ended, and report it.

    Args:
        states: of the arrays.
        why: for the message.
        wait: return only after the jobs have ended, so that they no longer write files.

    Raises:
        FailedError: if a job does not end, or the scheduler does not answer.
    """
    for submission in (submission for state in states for submission in state.submissions()):
        if submission.backend == LOCAL or len(submission.statuses()) == len(submission.indices):
            continue
        scheduler = scheduler_named(submission.backend)
        try:
            job_id = submission.id or scheduler.find(submission.job_name)
            if job_id is None or all(seen.ended for seen in scheduler.poll([job_id]).values()):
                continue
            scheduler.cancel([job_id])
            print(f"{submission.backend}: cancelled job {job_id}: {why}", file=sys.stderr, flush=True)
            until = time.monotonic() + CANCEL_SECONDS
            while wait and not all(seen.ended for seen in scheduler.poll([job_id]).values()):
                if time.monotonic() > until:
                    raise FailedError(f"{scheduler.title} job {job_id} was cancelled, but has not ended")
                time.sleep(1)
        except NoAnswerError as error:
            raise FailedError(f"{scheduler.title} does not answer; its jobs may continue: {error}") from None
