"""Continue an interrupted stage: keep its results only if its inputs are unchanged.

The runner does not know the inputs of an array. So it keeps nothing, unless `renew` has recorded them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import distilmos
from distilmos.errors import FailedError, InputError
from distilmos.files import write_text
from distilmos.runner.jobs import Array, Job
from distilmos.runner.queue import cancel_all
from distilmos.runner.state import INPUTS, LOCAL, QUEUE, State, fingerprint


def renew(directory: str | Path, words: Iterable[str] = (), inputs: Iterable[str | Path] = ()) -> bool:
    """Empty the output directory of a stage, unless an interrupted run of the same stage left it.

    Jobs that still write to it are cancelled first. A stage calls `finish` at its end.

    Args:
        directory: output of the stage; its logs are in `log/`.
        words: options that the result depends on.
        inputs: files, and directories that stand for the files directly in them. A stage is the same if names, sizes
            and times of these files, and of this package's source, are unchanged.

    Returns:
        whether the stage continues with the existing files; False if `inputs` is empty.

    Raises:
        InputError: if `directory` is a file.
        FailedError: if jobs cannot be cancelled, or a file cannot be removed.
    """
    directory = Path(directory)
    mark = directory / "log" / QUEUE / INPUTS
    paths = [Path(path) for path in inputs]
    if paths:
        now = fingerprint(words, [*paths, *sorted(Path(distilmos.__file__).parent.rglob("*.py"))])
        if mark.exists() and mark.read_text(encoding="utf-8") == now:
            return True
    cancel_all(State.below(directory), f"{directory} starts again")
    _make_empty(directory)
    if paths:
        write_text(mark, now)
    return False


def _make_empty(directory: Path) -> None:
    """Create a directory, or remove all files in it. A symbolic link to a directory, say on a larger disk, is kept.

    A file that stays could be taken for a result of the new stage, so it is an error.
    """
    try:
        target = directory.resolve()  # creates the target of a link that points to nothing
        target.mkdir(parents=True, exist_ok=True)
        for entry in target.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{directory}: is not a directory; remove it, or choose another output") from None
    except OSError as error:
        raise FailedError(f"{directory}: cannot be emptied: {error}") from None


def finish(directory: str | Path) -> None:
    """Record that a stage has completed `directory`, so that its next run starts from nothing."""
    (Path(directory) / "log" / QUEUE / INPUTS).unlink(missing_ok=True)


def take_up(array: Array) -> tuple[list[Job], Callable[[Job, int], None] | None]:
    """Return the elements to run on this machine, and a function to call with each ended element and its exit status.

    Raises:
        FailedError: if the array has jobs in a scheduler that cannot be cancelled.
    """
    state = State.of(array)
    cancel_all([state], "now runs on this machine")
    if state.inputs is None:
        return array.jobs, None
    if not state.is_of(array):
        state.begin(array)
    done = state.succeeded()
    submission = state.new_submission(LOCAL, array.indices)

    def ended(job: Job, status: int) -> None:
        submission.end(array.first if job.index is None else job.index, status)

    return [array.job(index) for index in array.indices if index not in done], ended
