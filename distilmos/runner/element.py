"""One element of an array on a compute node: `python -m distilmos.runner.element SUBMISSION TASK`, from a job script.

SIGTERM and SIGUSR1 are passed on to the command. An element that a signal ended leaves no exit status, so that the
waiting side asks the scheduler what has happened; one that asks to be run again (PREEMPTED) is queued again.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from distilmos.errors import PREEMPTED
from distilmos.runner.log import note
from distilmos.runner.process import CANNOT_START, handling, signal_group, start, thread_variables
from distilmos.runner.schedulers import scheduler_named
from distilmos.runner.state import State, Submission

# Grid Engine's announcement of the end (qsub -notify) is SIGUSR2, which nobody handles. It queues such a job again by
# itself, or not at all.
PASSED_ON_AS = {signal.SIGUSR2: signal.SIGTERM}
DIED = {128 + number for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL)}
# A scheduler that signals all processes of a job does so one after the other: ours may be told last.
SIGNAL_SECONDS = 1.0
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


def run_element(directory: Path, task: int) -> int:
    """Run the task with that number, from 1, and leave its exit status.

    Returns:
        what the job script shall exit with: the command's exit status, or what makes the scheduler queue the job again.
    """
    submission = Submission.read(directory)
    array, working_directory = State(directory.parent).array()
    index = submission.indices[task - 1]
    job = array.job(index)
    os.chdir(working_directory)
    received: list[int] = []
    groups: list[int] = []

    def pass_on(number: int) -> None:
        received.append(number)
        for group in groups:
            signal_group(group, PASSED_ON_AS.get(signal.Signals(number), number))

    scheduler = scheduler_named(submission.backend)
    environment = os.environ | thread_variables(submission.num_threads)
    with handling(SIGNALS, pass_on):
        running = start(job, environment, submission.launcher)
        if running is None:
            submission.end(index, CANNOT_START)
            return CANNOT_START
        groups.append(running.process.pid)
        for number in list(received):  # before the line above
            signal_group(groups[0], PASSED_ON_AS.get(signal.Signals(number), number))
        _, status, usage = os.wait4(running.process.pid, 0)
        groups.clear()
        exit_status = running.end(status, usage)
        if exit_status in {*DIED, PREEMPTED} and not received:
            time.sleep(SIGNAL_SECONDS)
        if received:
            names = ", ".join(dict.fromkeys(signal.Signals(number).name for number in received))
            note(job.log, f"Signals {names} came from the scheduler")
        # A command that knows nothing of preemption dies of its announcement, and is begun anew.
        if exit_status == PREEMPTED or (exit_status in DIED and received and scheduler.preempted()):
            answer = None if signal.SIGUSR2 in received else scheduler.requeue()
            if answer is not None:
                note(job.log, "Queued again")
                return answer
        if exit_status != 0 and {signal.SIGTERM, signal.SIGUSR2} & set(received):
            return exit_status
        submission.end(index, exit_status)
    return exit_status


if __name__ == "__main__":
    sys.exit(run_element(Path(sys.argv[1]), int(sys.argv[2])))
