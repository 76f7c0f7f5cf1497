"""Start the processes of a data-parallel training on this machine, pass signals on to them, and tell how they ended.

torchrun does the first as well, but it answers SIGTERM with a traceback, dies of SIGUSR1, and its exit status is 1
however the processes ended: a scheduler could not tell a training that was stopped from one that failed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import torch.distributed as dist

from distilmos.errors import PREEMPTED, FailedError, InputError
from distilmos.training.distributed import TIMEOUT
from distilmos.training.preemption import STOP_SIGNALS

# Where the number of this machine, from 0, is found: torch's name for it, then those of Slurm and PBS.
NODE_VARIABLES = ("NODE_RANK", "SLURM_NODEID", "PBS_NODENUM")
# Between the first failure and killing what is left: time enough to say what each process has to say.
GRACE_SECONDS = 5
POLL_SECONDS = 0.1


def launch(processes: int, nodes: int, command: Sequence[str]) -> int:
    """Run `command` in several processes, on each of several machines on which this function is called.

    Must be called in the main thread.

    Args:
        processes: how many on this machine; as many on the others.
        nodes: how many machines; above 1 the environment has MASTER_ADDR and MASTER_PORT, the address of the first
            machine and a free port there, and the number of this machine, from 0, as one of NODE_VARIABLES.
        command: program and arguments; it calls `joined`.

    Returns:
        the exit status of the first process that failed, or 0; that of a stop, if a signal came before they began.

    Raises:
        InputError: if the environment does not say which machines there are.
        FailedError: if the port cannot be taken, or a signal killed a process.
    """
    node, address, port = _place(nodes)
    store = None
    if node == 0:
        try:
            store = dist.TCPStore(address, port, is_master=True, wait_for_workers=False, timeout=TIMEOUT)
        except RuntimeError as error:
            raise FailedError(f"{address}:{port}: {str(error).splitlines()[0]}") from None
        port = store.port
    environment = os.environ | {
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": str(True),  # torch's word for a store that is kept here, not by rank 0
        "WORLD_SIZE": str(processes * nodes),
        "LOCAL_WORLD_SIZE": str(processes),
        "OMP_NUM_THREADS": str(max(1, _threads() // processes)),
    }
    workers: list[subprocess.Popen[bytes]] = []
    with _passing_on(workers) as stops:
        for number in range(processes):
            numbers = {"RANK": str(node * processes + number), "LOCAL_RANK": str(number)}
            workers.append(subprocess.Popen(command, env=environment | numbers))
        for signal_number in stops:  # came while they were started, and missed some
            _send(workers, signal_number)
        failed = _wait(workers)
    if failed is None:
        return 0
    status = workers[failed].returncode
    if status >= 0:
        return status
    if -status in stops:
        return PREEMPTED
    raise FailedError(
        f"process {node * processes + failed} of {processes * nodes} was killed by {signal.Signals(-status).name}"
    )


def _place(nodes: int) -> tuple[int, str, int]:
    """Return the number of this machine, and address and port of the first one (port 0: any that is free)."""
    if nodes == 1:
        return 0, "127.0.0.1", 0
    values = {name: os.environ.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT")}
    numbers = [os.environ[name] for name in NODE_VARIABLES if name in os.environ]
    values["NODE_RANK"] = numbers[0] if numbers else ""
    missing = [name for name, value in values.items() if not value]
    if missing:
        raise InputError(f"{nodes} machines: the environment lacks {', '.join(missing)}, which their scheduler sets")
    for name in ("NODE_RANK", "MASTER_PORT"):
        if not values[name].isdecimal():
            raise InputError(f"{name}: {values[name]!r} in the environment is not a number")
    node = int(values["NODE_RANK"])
    if node >= nodes:
        raise InputError(f"this is machine {node}, counted from 0, of {nodes}")
    return node, values["MASTER_ADDR"], int(values["MASTER_PORT"])


def _threads() -> int:
    """Return the CPU threads that the processes of this machine share."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() else len(os.sched_getaffinity(0))


def _send(workers: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    for worker in workers:
        if worker.poll() is None:
            worker.send_signal(number)


@contextmanager
def _passing_on(workers: list[subprocess.Popen[bytes]]) -> Iterator[list[int]]:
    """Pass STOP_SIGNALS on to the processes; gives the list of those that came. At the end no process is left."""
    stops: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        stops.append(number)
        _send(workers, number)

    before = {number: signal.signal(number, note) for number in STOP_SIGNALS}
    try:
        yield stops
    finally:
        # Only after Ctrl-C, which the terminal has sent to them too, or something unforeseen.
        _send(workers, signal.SIGINT)
        _kill_after(workers, time.monotonic() + GRACE_SECONDS)
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(workers: Sequence[subprocess.Popen[bytes]]) -> int | None:
    """Wait for all processes; return the number of the first that failed.

    Those that others wait for in vain would hang: when one has failed the others are ended. A stop is no failure: all
    agree on it, and one of them writes the checkpoint.
    """
    while True:
        statuses = [worker.poll() for worker in workers]
        broken = [number for number, status in enumerate(statuses) if status not in (None, 0, PREEMPTED)]
        if broken:
            _kill_after(workers, time.monotonic() + GRACE_SECONDS)
            # A signal is the cause where there is one: what else has ended, did so for want of that process.
            return next((number for number in broken if (statuses[number] or 0) < 0), broken[0])
        if None not in statuses:
            return next((number for number, status in enumerate(statuses) if status), None)
        time.sleep(POLL_SECONDS)


def _kill_after(workers: Sequence[subprocess.Popen[bytes]], deadline: float) -> None:
    while any(worker.poll() is None for worker in workers) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    _send(workers, signal.SIGKILL)
    for worker in workers:
        worker.wait()
