"""The directory that connects a waiting `distilmos run`, its jobs and a later run of the same array.

It is next to the logs, in `q/`, and has the name of the log file:

    q/dump_audio.JOB/array.json         the array: command, working directory, fingerprint of the inputs
    q/dump_audio.JOB/5.again            how often element 5 asked to be run again, without a signal of the scheduler
    q/dump_audio.JOB/1/                 a submission: elements submitted together; numbered
        job.json                        its elements and the name of the scheduler's job, written before the submission
        job.sh                          the job script
        id                              the scheduler's id, once known
        2.out                           output of the second element's job script before its log started
        5.status                        exit status of element 5
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
    """Elements that were submitted together, as the tasks 1..n of one job."""

    directory: Path
    backend: str
    job_name: str
    indices: tuple[int, ...]
    num_threads: int
    launcher: tuple[str, ...]

    @classmethod
    def read(cls, directory: Path) -> Submission:
        """Read the submission that `write` wrote to a directory."""
        stored = json.loads((directory / "job.json").read_text(encoding="utf-8"))
        stored |= {name: tuple(stored[name]) for name in ("indices", "launcher")}
        return cls(directory, **stored)

    def write(self) -> None:
        """Write job.json. This comes before the submission, so that a later run can look the job up by its name."""
        stored = asdict(self)
        del stored["directory"]
        write_text(self.directory / "job.json", json.dumps(stored))

    @property
    def id(self) -> str | None:
        """The scheduler's id of the job; None if unknown."""
        path = self.directory / "id"
        return path.read_text(encoding="utf-8") if path.exists() else None

    def submitted(self, job_id: str) -> None:
        """Record the scheduler's id."""
        write_text(self.directory / "id", job_id)

    def statuses(self, wanted: Container[int] | None = None) -> dict[int, int]:
        """Return element -> exit status for the ended elements, restricted to `wanted` if given.

        This lists the directory instead of testing each file, because a listing makes an NFS client ask the server.
        """
        ended = [path for path in self.directory.iterdir() if path.suffix == ".status" and path.stem.isdigit()]
        if wanted is not None:
            ended = [path for path in ended if int(path.stem) in wanted]
        return {int(path.stem): int(path.read_text(encoding="utf-8")) for path in ended}

    def refresh(self) -> None:
        """Change the directory, so that an NFS client drops its cache of it."""
        kick = temporary_name(self.directory / "refresh")
        kick.touch()
        kick.unlink()

    def end(self, index: int, status: int) -> None:
        """Record the exit status of an element."""
        write_text(self.directory / f"{index}.status", f"{status}\n")

    def output(self, index: int) -> Path:
        """Return the file for the output of an element's job script."""
        return self.directory / f"{self.indices.index(index) + 1}.out"


@dataclass(frozen=True)
class State:
    """The directory of one array."""

    directory: Path

    @classmethod
    def of(cls, array: Array) -> State:
        """Return the directory of an array; it may not exist yet."""
        log = Path(array.log).absolute()
        return cls(log.parent / QUEUE / log.name.removesuffix(".log"))

    @classmethod
    def below(cls, directory: Path) -> list[State]:
        """Return all of them below a directory."""
        return [cls(path.parent) for path in sorted(directory.glob(f"**/{QUEUE}/*/array.json"))]

    @property
    def inputs(self) -> str | None:
        """The fingerprint of the inputs, if `renew` has recorded one."""
        path = self.directory.parent / INPUTS
        return path.read_text(encoding="utf-8") if path.exists() else None

    def is_of(self, array: Array) -> bool:
        """Return whether the command, the working directory and the inputs are those of `array`."""
        path = self.directory / "array.json"
        return path.exists() and json.loads(path.read_text(encoding="utf-8")) == self._description(array)

    def begin(self, array: Array) -> None:
        """Remove all records and start with `array`."""
        shutil.rmtree(self.directory, ignore_errors=True)
        write_text(self.directory / "array.json", json.dumps(self._description(array)))

    def _description(self, array: Array) -> dict[str, Any]:
        stored = asdict(array) | {"directory": str(Path.cwd()), "inputs": self.inputs}
        return stored | {"command": list(array.command)}

    def array(self) -> tuple[Array, Path]:
        """Return the array and its working directory."""
        stored = json.loads((self.directory / "array.json").read_text(encoding="utf-8"))
        directory = Path(stored.pop("directory"))
        del stored["inputs"]
        return Array(**stored | {"command": tuple(stored["command"])}), directory

    def may_run_again(self, index: int, most: int) -> bool:
        """Record that an element asks to be run again; return whether it has not asked more than `most` times."""
        path = self.directory / f"{index}.again"
        count = int(path.read_text(encoding="utf-8")) + 1 if path.exists() else 1
        if count > most:
            path.unlink()
            return False
        write_text(path, f"{count}\n")
        return True

    def submissions(self) -> list[Submission]:
        """Return all submissions, the oldest first."""
        numbers = sorted(int(path.parent.name) for path in self.directory.glob("*/job.json"))
        return [Submission.read(self.directory / str(number)) for number in numbers]

    def new_submission(
        self, backend: str, indices: Iterable[int], num_threads: int = 1, launcher: Iterable[str] = ()
    ) -> Submission:
        """Write the directory of the next submission.

        The name of its job is unique, so that the scheduler finds the job if its id is lost.
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
        """Return the elements that succeeded."""
        ended = (item for submission in self.submissions() for item in submission.statuses().items())
        return {index for index, status in ended if status == 0}


def fingerprint(words: Iterable[str], paths: Iterable[Path]) -> str:
    """Return a digest of the words and of the name, size and modification time of each file.

    Args:
        words: options.
        paths: files, and directories that stand for the files directly in them.
    """
    digest = hashlib.sha256(json.dumps(list(words)).encode())
    for path in paths:
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            if file.exists() and not file.is_dir():
                about = file.stat()
                digest.update(json.dumps([str(file), about.st_size, about.st_mtime_ns]).encode())
    return digest.hexdigest()
