"""Failures that the command line reports without a traceback, and exit statuses."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

# Exit status (EX_TEMPFAIL of sysexits.h) of a command that saved its work after SIGTERM or SIGUSR1 and can be run again
# to continue. A scheduler requeues such a job instead of failing it.
PREEMPTED = 75


class InputError(Exception):
    """Bad input or bad usage: exit status 2. The message names the file and, where there is one, the line."""

    @classmethod
    def at(cls, path: str | Path, line: int, message: str) -> InputError:
        """Return an error about line `line` (counted from 1) of the file `path`."""
        return cls(f"{path}:{line}: {message}")


class FailedError(Exception):
    """The work itself failed although the input was acceptable: exit status 1."""


MAX_FAULTS_SHOWN = 50


def raise_faults(faults: list[str], what: str) -> None:
    """Report all faults of one input together.

    Args:
        faults: one line each, naming file and line number.
        what: what was being read, for the heading.

    Raises:
        InputError: if there is any fault; shows the first MAX_FAULTS_SHOWN.
    """
    if not faults:
        return
    shown = faults[:MAX_FAULTS_SHOWN]
    if len(faults) > len(shown):
        shown = [*shown, f"... and {len(faults) - len(shown)} more"]
    raise InputError(f"{what}: {len(faults)} fault{'s' if len(faults) > 1 else ''}\n  " + "\n  ".join(shown))


def run_main(main: Callable[[], None]) -> None:
    """Call the main function of a recipe's local script; report its errors as the `distilmos` command does.

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
