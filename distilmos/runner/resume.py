"""What is kept of an array that did not get to its end, when its stage is run again.

The runner itself cannot know whether what the elements read is still the same. So it keeps nothing, unless whoever runs
the array has said with `renew` what they read.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import distilmos
from distilmos.files import write_text
from distilmos.runner.jobs import Array, Job
from distilmos.runner.queue import cancel_all
from distilmos.runner.state import INPUTS, LOCAL, QUEUE, State, fingerprint


def renew(directory: str | Path, words: Iterable[str] = (), inputs: Iterable[str | Path] = ()) -> bool:
    """Make `directory` ready for a stage: empty, unless the same stage has stopped half-way there.

    Jobs that still write to it are cancelled before it is emptied. A stage that has got to its end calls `finish`.

    Args:
        directory: what the stage writes; its logs are in `log/`.
        words: what the result depends on, such as options.
        inputs: files, and directories that stand for the files right in them. Names, sizes and times of all files are
            compared, and those of this package's source.

    Returns:
        whether the stage goes on with what is there; never if there are no inputs.

    Raises:
        FailedError: if jobs cannot be cancelled.
    """
    directory = Path(directory)
    mark = directory / "log" / QUEUE / INPUTS
    paths = [Path(path) for path in inputs]
    if paths:
        now = fingerprint(words, [*paths, *sorted(Path(distilmos.__file__).parent.rglob("*.py"))])
        if mark.exists() and mark.read_text(encoding="utf-8") == now:
            return True
    cancel_all(State.below(directory), f"{directory} begins anew")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True, exist_ok=True)
    if paths:
        write_text(mark, now)
    return False


def finish(directory: str | Path) -> None:
    """Tell that a stage has got to its end in `directory`: the next time it begins anew."""
    (Path(directory) / "log" / QUEUE / INPUTS).unlink(missing_ok=True)


def take_up(array: Array) -> tuple[list[Job], Callable[[Job, int], None] | None]:
    """Return the elements that are to be run on this machine, and what is to be called when one has ended.

    Raises:
        FailedError: if jobs of the array that a scheduler has cannot be cancelled.
    """
    state = State.of(array)
    cancel_all([state], "it is run on this machine now")
    if state.inputs is None:
        return array.jobs, None
    if not state.is_of(array):
        state.begin(array)
    done = state.succeeded()
    submission = state.new_submission(LOCAL, array.indices)

    def ended(job: Job, status: int) -> None:
        submission.end(array.first if job.index is None else job.index, status)

    return [array.job(index) for index in array.indices if index not in done], ended
