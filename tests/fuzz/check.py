"""Run a reader on one input and find what it must not do.

A reader may raise InputError or FailedError and nothing else. It must end within SECONDS and take less than MEMORY. It
must execute nothing, write nothing outside the directory of the input and leave no temporary file in it. Unless the
input is a list of paths, it must open nothing outside either.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import resource
import signal
import sys
import sysconfig
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

import distilmos
from distilmos.errors import FailedError, InputError

from .mutations import CANARY, Files

SECONDS = 5.0  # of CPU time, since other processes may slow this one down
WAITS = 30.0  # seconds by the clock, for readers that wait without computing
MEMORY = 1 << 30  # bytes, above what the process holds before
DOCUMENTED = (InputError, FailedError)
INPUT, OUTSIDE = "input", "outside"
SHARED_MEMORY = Path("/dev/shm")
_EXECUTES = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "subprocess.Popen", "pickle.find_class")
_CONNECTS = ("socket.connect", "socket.getaddrinfo", "urllib.Request")
_CHANGES = (
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "shutil.rmtree",
)


@dataclass(frozen=True)
class Reader:
    """A reader of files.

    Attributes:
        name: of the reader, for the command line.
        seeds: returns valid inputs.
        read: reads the input in the working directory.
        fixed: whether a file is never changed, such as audio next to the list that is fuzzed.
        confined: whether the reader must open only files of the input. Lists of paths may name any file.
        share: of the time by hand, compared with other readers.
        examples: number of inputs in the test.
    """

    name: str
    seeds: Callable[[], list[Files]]
    read: Callable[[], object]
    fixed: Callable[[str], bool] = lambda name: False
    confined: bool = True
    share: float = 1.0
    examples: int = 30


@dataclass(frozen=True)
class Finding:
    """Something that a reader must not do.

    Attributes:
        kind: "escaped", "hang", "memory", "executed", "connected", "opened", "wrote" or "left".
        what: the error, command or path.
        where: the place in distilmos, or in the reader if there is none.
        trace: the traceback; empty without one.
    """

    kind: str
    what: str
    where: str = ""
    trace: str = ""

    @property
    def signature(self) -> str:
        """Equal findings have an equal signature: paths and numbers are left out."""
        return f"{self.kind} {re.sub(r'[0-9]+', 'N', self.what.partition(':')[0])} {self.where}"


@dataclass
class Outcome:
    """What a reader did with an input.

    Attributes:
        accepted: whether it raised nothing.
        refusal: the text of a documented error.
        findings: what it must not do.
        seconds: duration.
        memory: largest memory in bytes, above what the process held before.
    """

    accepted: bool = False
    refusal: str = ""
    findings: list[Finding] = field(default_factory=list)
    seconds: float = 0.0
    memory: int = 0


class Hang(BaseException):
    """The reader has not ended in time."""


@dataclass
class _Watch:
    """What the audit hook of Python reports while a reader runs."""

    root: Path | None = None
    confined: bool = True
    findings: list[Finding] = field(default_factory=list)


_WATCH = _Watch()


@cache
def _installed() -> tuple[str, ...]:
    """Return where Python, its packages and distilmos may open files of their own."""
    own = {
        sys.prefix,
        sys.base_prefix,
        *sysconfig.get_paths().values(),
        str(Path(distilmos.__file__).resolve().parents[1]),
    }
    return (*own, "/proc/", "/sys/", "/dev/null", "/dev/urandom", "/usr/", "/etc/", str(Path.home() / ".cache"))


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    root = _WATCH.root
    if root is None:
        return
    if event in _EXECUTES or event in _CONNECTS:
        kind = "executed" if event in _EXECUTES else "connected"
        _WATCH.findings.append(Finding(kind, f"{event}: {arguments!r}", _stack_place()))
    elif event == "open" or event in _CHANGES:
        if not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        path = os.path.normpath(root / INPUT / os.fsdecode(arguments[0]))
        if path.startswith(f"{root / INPUT}{os.sep}") or path == str(root / INPUT):
            return
        mode, flags = (arguments[1], arguments[2]) if event == "open" else ("w", 0)
        writes = bool(set(mode or "") & set("wax+")) or bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if path.startswith(_installed()) and not (writes and path.startswith(str(Path(distilmos.__file__).parent))):
            return
        if writes:
            _WATCH.findings.append(Finding("wrote", f"{event}: {path}", _stack_place()))
        elif _WATCH.confined:
            _WATCH.findings.append(Finding("opened", f"{event}: {path}", _stack_place()))


@cache
def install_audit() -> None:
    """Install the audit hook; Python cannot remove one, so that it does nothing while no reader runs."""
    sys.addaudithook(_audit)


def _stack_place() -> str:
    return _place(traceback.extract_stack())


def _place(frames: Any) -> str:
    """Return the innermost place in distilmos or in a recipe of a traceback, without its line, which changes."""
    found = "?"
    for frame in frames:
        if re.search(r"/(distilmos|egs|tools/convert)", frame.filename):
            found = re.sub(r".*/(?=(distilmos|egs|tools)/[^.]*\.py)", "", frame.filename) + f" {frame.name}"
    return found


def temporary_root() -> tempfile.TemporaryDirectory[str]:
    """Return a temporary directory, in memory if possible."""
    return tempfile.TemporaryDirectory(prefix="fuzz", dir=SHARED_MEMORY if SHARED_MEMORY.is_dir() else None)


def write_files(root: Path, files: Files) -> None:
    """Write an input, and next to it a recording that it must not reach."""
    (root / OUTSIDE).mkdir(parents=True)
    (root / OUTSIDE / "decoy.wav").write_bytes(decoy())
    (root / INPUT).mkdir()
    for name, content in files.items():
        path = root / INPUT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@cache
def decoy() -> bytes:
    """Return a recording."""
    stream = io.BytesIO()
    soundfile.write(stream, np.full(1000, 0.1), 16000, format="WAV")
    return stream.getvalue()


def check(reader: Reader, files: Files) -> Outcome:
    """Run a reader on one input."""
    with temporary_root() as directory:
        root = Path(directory).resolve()
        write_files(root, files)
        return check_directory(reader, root)


def check_directory(reader: Reader, root: Path) -> Outcome:
    """Run a reader on the input in `root`, as `write_files` wrote it."""
    install_audit()
    outcome = Outcome()
    before = _listing(root / INPUT)
    error: BaseException | None = None
    _WATCH.findings, _WATCH.confined = [], reader.confined
    with _limits() as memory, contextlib.chdir(root / INPUT):
        _WATCH.root = root
        start = time.perf_counter()
        try:
            with _silence():
                reader.read()
            outcome.accepted = True
        except DOCUMENTED as refusal:
            outcome.refusal = str(refusal)
            error = refusal
        except KeyboardInterrupt:
            raise
        except BaseException as escaped:
            error = escaped
        finally:
            outcome.seconds = time.perf_counter() - start
            _WATCH.root = None
    outcome.memory = memory[0]
    outcome.findings = [*_WATCH.findings, *_error_findings(error), *_directory_findings(root, before, outcome)]
    if outcome.memory > MEMORY and not any(finding.kind == "memory" for finding in outcome.findings):
        outcome.findings.append(Finding("memory", f"MiB: {outcome.memory >> 20}", _error_place(error)))
    return outcome


def _error_place(error: BaseException | None) -> str:
    return _place(traceback.extract_tb(error.__traceback__)) if error is not None else "accepted"


def _error_findings(error: BaseException | None) -> list[Finding]:
    """Return the findings in an error and in those that it was raised from."""
    if error is None:
        return []
    trace = "".join(traceback.format_exception(error, chain=True))[-20_000:]
    if isinstance(error, Hang):
        return [Finding("hang", f"s: more than {SECONDS:g}", _error_place(error), trace)]
    if not isinstance(error, DOCUMENTED):
        kind = "memory" if _is_memory(error) else "escaped"
        return [Finding(kind, f"{type(error).__name__}: {str(error)[:500]}", _error_place(error), trace)]
    cause: BaseException | None = error
    while cause is not None:
        # A refusal that follows from a failed allocation: with more memory the reader would have taken it.
        if _is_memory(cause):
            trace = "".join(traceback.format_exception(cause))[-20_000:]
            return [Finding("memory", f"{type(cause).__name__}: {str(cause)[:500]}", _error_place(cause), trace)]
        cause = cause.__cause__ or cause.__context__
    return []


def _is_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or "allocate" in str(error)[:2000].lower()


def _directory_findings(root: Path, before: set[str], outcome: Outcome) -> list[Finding]:
    findings = []
    if (root / INPUT / CANARY).exists() or (root / CANARY).exists():
        findings.append(Finding("executed", "canary: exists"))
    strays = [path for path in root.rglob("*") if not path.is_relative_to(root / INPUT)]
    known = {root / OUTSIDE, root / OUTSIDE / "decoy.wav"}
    findings += [Finding("wrote", f"file: {path.relative_to(root)!s:.200}") for path in strays if path not in known]
    if (root / OUTSIDE / "decoy.wav").read_bytes() != decoy():
        findings.append(Finding("wrote", "file: decoy.wav"))
    new = _listing(root / INPUT) - before
    left = [name for name in new if re.search(r"(^|/)\.[^/]*(\.tmp|\.lock)?$", name) and ".backup" not in name]
    findings += [
        Finding("left", f"file: {name:.200}", "accepted" if outcome.accepted else "refused") for name in left[:1]
    ]
    return findings


def _listing(directory: Path) -> set[str]:
    return {os.fsdecode(path.relative_to(directory)) for path in directory.rglob("*")}


@contextlib.contextmanager
def _limits() -> Iterator[list[int]]:
    """Limit time and memory; yield a list that afterwards holds the growth of the peak memory in bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resident = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
    # Twice what is allowed, since address space is more than memory. It protects the machine.
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + 2 * MEMORY, hard))
    timers = ((signal.SIGPROF, signal.ITIMER_PROF, SECONDS), (signal.SIGALRM, signal.ITIMER_REAL, WAITS))
    former = {number: signal.signal(number, _alarm) for number, _, _ in timers}
    for _, timer, seconds in timers:
        signal.setitimer(timer, seconds)
    grown = [0]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield grown
    finally:
        for number, timer, _ in timers:
            signal.setitimer(timer, 0)
            signal.signal(number, former[number])
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        grown[0] = peak_memory() - resident


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Discard what the reader prints, also what libraries print without Python."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(number) for number in (1, 2)]
    with (
        Path(os.devnull).open("w") as nothing,
        contextlib.redirect_stdout(nothing),
        contextlib.redirect_stderr(nothing),
    ):
        for number in (1, 2):
            os.dup2(nothing.fileno(), number)
        try:
            yield
        finally:
            for number, copy in zip((1, 2), saved, strict=True):
                os.dup2(copy, number)
                os.close(copy)


def _alarm(_signal: int, _frame: object) -> None:
    raise Hang


def peak_memory() -> int:
    """Return the largest memory of this process in bytes since the last reader began."""
    return _status("VmHWM")


def _status(key: str) -> int:
    """Return a size in bytes from /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return 1024 * int(line.split()[1])
    raise KeyError(key)
