"""Run one element of an array on a compute node; job scripts call `python -m distilmos.runner.element SUBMISSION TASK`.

The element passes SIGTERM and SIGUSR1 on to its command. If the scheduler's signal ended the command, it leaves no exit
status: then the waiting process asks the scheduler for the reason. A command that exits with PREEMPTED is queued again,
but without a signal from the scheduler only MOST_AGAIN times.
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

# Grid Engine announces the end of a job with SIGUSR2 (qsub -notify), which commands do not handle. It decides itself
# whether to queue such a job again.
PASSED_ON_AS = {signal.SIGUSR2: signal.SIGTERM}
DIED = {128 + number for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL)}
# A scheduler signals the processes of a job one after the other; this one may be the last.
SIGNAL_SECONDS = 1.0
MOST_AGAIN = 20  # a command that asks more often may ask for ever
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


def run_element(directory: Path, task: int) -> int:
    """Run a task of a submission and record its exit status.

    Args:
        directory: of the submission.
        task: number of the task, from 1.

    Returns:
        exit status for the job script: the command's, or one that makes the scheduler queue the job again.
    """
    submission = Submission.read(directory)
    state = State(directory.parent)
    array, working_directory = state.array()
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
        for number in list(received):  # signals that came before the line above
            signal_group(groups[0], PASSED_ON_AS.get(signal.Signals(number), number))
        _, status, usage = os.wait4(running.process.pid, 0)
        groups.clear()
        exit_status = running.end(status, usage)
        if exit_status in {*DIED, PREEMPTED} and not received:
            time.sleep(SIGNAL_SECONDS)
        if received:
            names = ", ".join(dict.fromkeys(signal.Signals(number).name for number in received))
            note(job.log, f"Signals from the scheduler: {names}")
        # A command that does not handle preemption dies of the signal; it starts again from its beginning.
        if exit_status == PREEMPTED and not received and not state.may_run_again(index, MOST_AGAIN):
            note(job.log, f"Has asked {MOST_AGAIN} times to be run again without a signal from the scheduler: failed")
            exit_status = 1  # the waiting process submits an element with PREEMPTED again
        elif exit_status == PREEMPTED or (exit_status in DIED and received and scheduler.preempted()):
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
