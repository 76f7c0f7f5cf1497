"""Starts the processes of a data-parallel run on this machine, forwards signals to them, and returns their exit status.

torchrun also starts processes, but it answers SIGTERM with a traceback, dies of SIGUSR1, and always exits with status 1
when a process fails: a scheduler could not distinguish a stopped run from a failed one.
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

from distilmos.devices import threads
from distilmos.errors import PREEMPTED, FailedError, InputError
from distilmos.preemption import STOP_SIGNALS
from distilmos.training.distributed import TIMEOUT

# Environment variables with the number of this machine, from 0: the name of torch, then those of Slurm and PBS.
NODE_VARIABLES = ("NODE_RANK", "SLURM_NODEID", "PBS_NODENUM")
# From the first failure until the remaining processes are killed: enough for each to print its error.
GRACE_SECONDS = 5
POLL_SECONDS = 0.1


def launch(processes: int, nodes: int, command: Sequence[str]) -> int:
    """Run `command` in several processes on this machine.

    With several machines, each of them calls this function. Call it in the main thread.

    Args:
        processes: number of processes on each machine.
        nodes: number of machines. Above 1 the environment must have MASTER_ADDR and MASTER_PORT, the address of the
            first machine and a free port there, and one of NODE_VARIABLES, the number of this machine.
        command: program and arguments; it must call `joined`.

    Returns:
        the exit status of the first process that failed, or 0; PREEMPTED if a signal came before the processes joined.

    Raises:
        InputError: if the environment does not describe the machines.
        FailedError: if the port is not free, or a signal killed a process.
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
        "TORCHELASTIC_USE_AGENT_STORE": str(True),  # the store is in this process, not in rank 0
        "WORLD_SIZE": str(processes * nodes),
        "LOCAL_WORLD_SIZE": str(processes),
        "OMP_NUM_THREADS": str(max(1, threads() // processes)),
    }
    workers: list[subprocess.Popen[bytes]] = []
    with _forwarded_signals(workers) as stops:
        for number in range(processes):
            numbers = {"RANK": str(node * processes + number), "LOCAL_RANK": str(number)}
            workers.append(subprocess.Popen(command, env=environment | numbers))
        for signal_number in stops:  # signals that came before all processes were started
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
    """Return the number of this machine, and address and port of the first one (port 0: any free port)."""
    if nodes == 1:
        return 0, "127.0.0.1", 0
    values = {name: os.environ.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT")}
    numbers = [os.environ[name] for name in NODE_VARIABLES if name in os.environ]
    values["NODE_RANK"] = numbers[0] if numbers else ""
    missing = [name for name, value in values.items() if not value]
    if missing:
        raise InputError(f"--nnodes {nodes}: the environment lacks {', '.join(missing)}; set them in the job script")
    for name in ("NODE_RANK", "MASTER_PORT"):
        if not values[name].isdecimal():
            raise InputError(f"{name}: {values[name]!r} in the environment is not a number")
    node = int(values["NODE_RANK"])
    if node >= nodes:
        raise InputError(f"--nnodes {nodes}: the number of this machine, {node}, must be below {nodes}")
    return node, values["MASTER_ADDR"], int(values["MASTER_PORT"])


def _send(workers: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    for worker in workers:
        if worker.poll() is None:
            worker.send_signal(number)


@contextmanager
def _forwarded_signals(workers: list[subprocess.Popen[bytes]]) -> Iterator[list[int]]:
    """Forward STOP_SIGNALS to the processes; yield the list of received signals. Leave no process at the end."""
    stops: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        stops.append(number)
        _send(workers, number)

    before = {number: signal.signal(number, note) for number in STOP_SIGNALS}
    try:
        yield stops
    finally:
        # Processes are left only after an unexpected error, or Ctrl-C, which the terminal sends to them too.
        _send(workers, signal.SIGINT)
        _kill_after(workers, time.monotonic() + GRACE_SECONDS)
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(workers: Sequence[subprocess.Popen[bytes]]) -> int | None:
    """Wait for all processes; return the number of the first one that failed, or None.

    When one has failed, the others would wait for it forever, so they are killed. A stop is not a failure: all
    processes agree on it, and the first one writes the checkpoint.
    """
    while True:
        statuses = [worker.poll() for worker in workers]
        broken = [number for number, status in enumerate(statuses) if status not in (None, 0, PREEMPTED)]
        if broken:
            _kill_after(workers, time.monotonic() + GRACE_SECONDS)
            # Prefer a process that a signal killed: others that ended did so because they lost it.
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
