"""Commands in wav.scp (`utt sph2pipe -f wav x.sph |`): Kaldi's way to convert audio while it is read.

A command can do anything that the user may do, so only `distilmos dump-audio --execute-pipes` runs them.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

from distilmos.errors import InputError


class Pipes:
    """Runs commands whose output is an audio file.

    Used as a context manager, which removes the output at its end. The output of the last command is kept, because the
    segments of a recording mostly follow each other.
    """

    def __init__(self) -> None:
        """Create no file yet."""
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._last: str | None = None

    def __enter__(self) -> Pipes:
        """Return the object itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the output."""
        if self._directory is not None:
            self._directory.cleanup()

    def run(self, command: str) -> Path:
        """Run a command in bash, where every part of a pipeline must succeed; return the file with its output.

        The file is valid until the next call.

        Raises:
            InputError: if the command fails or writes nothing.
        """
        if self._directory is None:
            self._directory = tempfile.TemporaryDirectory(prefix="distilmos-pipe-")
        path = Path(self._directory.name) / "audio"
        if command == self._last:
            return path
        self._last = None
        with path.open("wb") as output:
            done = subprocess.run(
                ["bash", "-o", "pipefail", "-c", command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.PIPE,
                check=False,
            )
        if done.returncode != 0 or path.stat().st_size == 0:
            message = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
            problem = f"fails with exit status {done.returncode}" if done.returncode else "writes nothing"
            raise InputError(f"{command!r} {problem}{message and ': ' + message}")
        self._last = command
        return path
