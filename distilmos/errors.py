"""Errors that the command line reports without a traceback, and their exit statuses."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path

# Exit status (EX_TEMPFAIL of sysexits.h) of a command that saved its work after SIGTERM or SIGUSR1. The same command
# continues the work; a scheduler requeues the job.
PREEMPTED = 75


class InputError(Exception):
    """Bad input or bad usage: exit status 2. The message names the file and, if known, the line."""

    @classmethod
    def at(cls, path: str | Path, line: int, message: str) -> InputError:
        """Return an error about line `line` (counted from 1) of the file `path`."""
        return cls(f"{path}:{line}: {message}")


class FailedError(Exception):
    """The input is acceptable, but the work failed: exit status 1."""


class InputWarning(UserWarning):
    """Input that can be used, but is probably not as the user wants it. The message is one line that names the file."""


# By default Python shows equal texts once, such as those of waveforms, whose names are their numbers in a call. Filters
# of the user come first.
warnings.simplefilter("always", InputWarning, append=True)


MAX_FAULTS_SHOWN = 50


def raise_faults(faults: list[str], what: str) -> None:
    """Report all faults of one input together.

    Args:
        faults: one line of text each, with file and line number.
        what: the input or the action, for the heading.

    Raises:
        InputError: if `faults` is not empty; shows the first MAX_FAULTS_SHOWN.
    """
    if not faults:
        return
    shown = faults[:MAX_FAULTS_SHOWN]
    if len(faults) > len(shown):
        shown = [*shown, f"... and {len(faults) - len(shown)} more"]
    raise InputError(f"{what}: {len(faults)} fault{'s' if len(faults) > 1 else ''}\n  " + "\n  ".join(shown))


def run_main(main: Callable[[], None]) -> None:
    """Run the main function of a recipe's local script; report errors as the `distilmos` command does.

    InputError becomes one message on stderr and exit status 2, FailedError exit status 1.
    """
    script = Path(sys.argv[0]).name
    try:
        main()
    except InputError as error:
        print(f"{script}: error: {error}", file=sys.stderr)
        sys.exit(2)
    except FailedError as error:
        print(f"{script}: failed: {error}", file=sys.stderr)
        sys.exit(1)
