"""The directory through which a waiting `distilmos run`, its jobs and a later run of the same array know of each other.

It lies beside the logs, in `q/`, with the name of the log file:

    q/dump_audio.JOB/array.json         the array: commands, directory, what they read
    q/dump_audio.JOB/1/                 what was handed to the scheduler together, numbered
        job.json                        the elements, and the name of the scheduler's job, before it is submitted
        job.sh                          the job script
        id                              the scheduler's id, once it is known
        2.out                           what the job script of the second element printed before it had a log
        5.status                        the exit status of element 5
    q/inputs                            see `renew`
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Container, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distilmos.files import temporary_name, write_text
from distilmos.runner.jobs import Array

QUEUE = "q"
INPUTS = "inputs"
LOCAL = "local"  # the backend of elements that ran on this machine


@dataclass(frozen=True)
class Submission:
    """Elements that were handed to a scheduler together, as the tasks 1..n of one job."""

    directory: Path
    backend: str
    job_name: str
    indices: tuple[int, ...]
    num_threads: int
    launcher: tuple[str, ...]

    @classmethod
    def read(cls, directory: Path) -> Submission:
        """Return what `write` wrote."""
        stored = json.loads((directory / "job.json").read_text(encoding="utf-8"))
        stored |= {name: tuple(stored[name]) for name in ("indices", "launcher")}
        return cls(directory, **stored)

    def write(self) -> None:
        """Make the directory, before anything is submitted: whoever comes later can ask for the job by its name."""
        stored = asdict(self)
        del stored["directory"]
        write_text(self.directory / "job.json", json.dumps(stored))

    @property
    def id(self) -> str | None:
        """The scheduler's id of the job; None if it is not known."""
        path = self.directory / "id"
        return path.read_text(encoding="utf-8") if path.exists() else None

    def submitted(self, job_id: str) -> None:
        """Keep the scheduler's id."""
        write_text(self.directory / "id", job_id)

    def statuses(self, wanted: Container[int] | None = None) -> dict[int, int]:
        """Return the exit status of each element that has ended, of all or of those that are wanted.

        The directory is listed anew: that, rather than asking for each file, makes a client of NFS look at the server.
        """
        ended = [path for path in self.directory.iterdir() if path.suffix == ".status" and path.stem.isdigit()]
        if wanted is not None:
            ended = [path for path in ended if int(path.stem) in wanted]
        return {int(path.stem): int(path.read_text(encoding="utf-8")) for path in ended}

    def refresh(self) -> None:
        """Make a client of NFS forget what it knows of the directory, which a change of its own does."""
        kick = temporary_name(self.directory / "refresh")
        kick.touch()
        kick.unlink()

    def end(self, index: int, status: int) -> None:
        """Tell that an element has ended."""
        write_text(self.directory / f"{index}.status", f"{status}\n")

    def output(self, index: int) -> Path:
        """Return the file for what the job script of an element prints."""
        return self.directory / f"{self.indices.index(index) + 1}.out"


@dataclass(frozen=True)
class State:
    """The directory of one array."""

    directory: Path

    @classmethod
    def of(cls, array: Array) -> State:
        """Return that of an array, which need not exist."""
        log = Path(array.log).absolute()
        return cls(log.parent / QUEUE / log.name.removesuffix(".log"))

    @classmethod
    def below(cls, directory: Path) -> list[State]:
        """Return all that lie below a directory."""
        return [cls(path.parent) for path in sorted(directory.glob(f"**/{QUEUE}/*/array.json"))]

    @property
    def inputs(self) -> str | None:
        """The fingerprint of what the elements read, if whoever runs the array looks after it; see `renew`."""
        path = self.directory.parent / INPUTS
        return path.read_text(encoding="utf-8") if path.exists() else None

    def is_of(self, array: Array) -> bool:
        """Return whether it is of the same commands, in the same directory, reading the same."""
        path = self.directory / "array.json"
        return path.exists() and json.loads(path.read_text(encoding="utf-8")) == self._description(array)

    def begin(self, array: Array) -> None:
        """Forget what was there."""
        shutil.rmtree(self.directory, ignore_errors=True)
        write_text(self.directory / "array.json", json.dumps(self._description(array)))

    def _description(self, array: Array) -> dict[str, Any]:
        stored = asdict(array) | {"directory": str(Path.cwd()), "inputs": self.inputs}
        return stored | {"command": list(array.command)}

    def array(self) -> tuple[Array, Path]:
        """Return the array and the directory that it runs in."""
        stored = json.loads((self.directory / "array.json").read_text(encoding="utf-8"))
        directory = Path(stored.pop("directory"))
        del stored["inputs"]
        return Array(**stored | {"command": tuple(stored["command"])}), directory

    def submissions(self) -> list[Submission]:
        """Return all, the oldest first."""
        numbers = sorted(int(path.parent.name) for path in self.directory.glob("*/job.json"))
        return [Submission.read(self.directory / str(number)) for number in numbers]

    def new_submission(
        self, backend: str, indices: Iterable[int], num_threads: int = 1, launcher: Iterable[str] = ()
    ) -> Submission:
        """Write the directory of the next one.

        The name of its job cannot be that of another: the scheduler is asked for it if the id got lost.
        """
        number = max((int(path.name) for path in self.directory.iterdir() if path.is_dir()), default=0) + 1
        stem = re.sub(r"[^A-Za-z0-9_]+", "_", self.directory.name)[:32]
        stem = stem if stem[:1].isalpha() else f"j{stem}"
        name = f"{stem}-{secrets.token_hex(4)}"
        submission = Submission(
            self.directory / str(number), backend, name, tuple(indices), num_threads, tuple(launcher)
        )
        submission.write()
        return submission

    def succeeded(self) -> set[int]:
        """Return the elements that have ended with success."""
        ended = (item for submission in self.submissions() for item in submission.statuses().items())
        return {index for index, status in ended if status == 0}


def fingerprint(words: Iterable[str], paths: Iterable[Path]) -> str:
    """Return a digest that changes with the words, and with name, size or time of any file.

    Args:
        words: such as options.
        paths: files, and directories that stand for the files right in them.
    """
    digest = hashlib.sha256(json.dumps(list(words)).encode())
    for path in paths:
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            if file.exists() and not file.is_dir():
                about = file.stat()
                digest.update(json.dumps([str(file), about.st_size, about.st_mtime_ns]).encode())
    return digest.hexdigest()
