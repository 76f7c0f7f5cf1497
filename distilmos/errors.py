"""Errors that the command line reports without a traceback, and their exit statuses."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

# Exit status (EX_TEMPFAIL of sysexits.h) of a command that saved its work after SIGTERM or SIGUSR1. The same command
# continues the work; a scheduler requeues the job.
PREEMPTED = 75
# Extra of the package that has a missing module; all others are of the recipes.
EXTRAS = {
    "gradio": "web",
    "onnx": "torch",
    "safetensors": "torch",
    "scipy": "torch",
    "torch": "torch",
    "torchaudio": "torch",
}


class InputError(Exception):
    """Bad input or bad usage: exit status 2. The message names the file and, if known, the line."""

    @classmethod
    def at(cls, path: str | Path, line: int, message: str) -> InputError:
        """Return an error about line `line` (counted from 1) of the file `path`."""
        return cls(f"{path}:{line}: {message}")


class FailedError(Exception):
    """The input is acceptable, but the work failed: exit status 1."""


class PreemptedError(Exception):
    """A signal stopped the work, which the same command continues: exit status PREEMPTED."""


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
    """Run the main function of a recipe's local script, as `run_command` does; exit unless it succeeds."""
    if status := run_command(Path(sys.argv[0]).name, main):
        sys.exit(status)


def run_command(name: str, run: Callable[[], int | None]) -> int:
    """Run a command; report warnings and errors in one line each, which starts with its name.

    Returns:
        the exit status: that of `run` or 0, 1 (failed), 2 (bad input or usage), PREEMPTED, or 130 after Ctrl-C.
    """
    try:
        with _warnings_in_one_line(name):
            return int(run() or 0)
    except InputError as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return 2
    except FailedError as error:
        print(f"{name}: failed: {error}", file=sys.stderr)
        return 1
    except PreemptedError as error:
        print(f"{name}: {error}; run again to continue", file=sys.stderr)
        return PREEMPTED
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("distilmos"):
            raise
        extra = EXTRAS.get(error.name.partition(".")[0], "recipes")
        message = f"needs the Python package {error.name}: pip install 'distilmos[{extra}]'"
        print(f"{name}: error: {message}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of our output has exited (`distilmos ... | head`); Python must not print an error at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # Such as a full disk or a missing permission; the system's message names the file.
        print(f"{name}: failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


@contextmanager
def _warnings_in_one_line(name: str) -> Iterator[None]:
    """Print every InputWarning as one line, like an error; leave other warnings as they are."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", InputWarning)
        show = warnings.showwarning

        def show_in_one_line(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, InputWarning):
                from tqdm import tqdm  # imported here: most commands never warn

                # Above the line of progress, if one is shown.
                tqdm.write(f"{name}: warning: {message}", file=sys.stderr)
            else:
                show(message, category, filename, lineno, file, line)

        warnings.showwarning = show_in_one_line
        yield
