"""Communication between the processes of a data-parallel run; a single process skips it at no cost.

Each process computes the gradients of its recordings. The gradients are summed after the backward passes of a step, not
during them as in DistributedDataParallel: that wrapper needs the same parameters in the backward passes of all
processes, but a process may have no recording of a small batch.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from distilmos.errors import PREEMPTED, FailedError, InputError, PreemptedError

T = TypeVar("T")

# The longest time that processes wait for one of them, for example to write a checkpoint or to read data. The end of a
# process is noticed at once; this limit is for a process whose machine is lost.
TIMEOUT = timedelta(minutes=30)
BUCKET = 1 << 24  # gradient values summed in one message: few messages, and no second copy of all gradients
STATUS = {InputError: 2, FailedError: 1, PreemptedError: PREEMPTED}


@dataclass(frozen=True)
class World:
    """The processes of a run, as one of them sees them.

    Attributes:
        rank: number of this process, counted from 0; only process 0 writes files and output.
        size: number of processes.
        local_rank: number of this process on its machine, which is the number of its GPU.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and output."""
        return self.rank == 0

    def largest(self, number: int) -> int:
        """Return the maximum of `number` over all processes."""
        if self.size == 1:
            return number
        tensor = torch.tensor(number)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return int(tensor)

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, ordered by rank."""
        if self.size == 1:
            return [value]
        values: list[T] = [value] * self.size
        dist.all_gather_object(values, value)
        return values

    def from_first(self, make: Callable[[], T]) -> T:
        """Call `make` in the first process only; return its result in all processes."""
        values: list[T | None] = [make() if self.first else None]
        if self.size > 1:
            dist.broadcast_object_list(values)
        return values[0]  # type: ignore[return-value]

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with those of the first process."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), 0)

    def add(self, tensor: Tensor) -> None:
        """Replace a tensor with its sum over all processes."""
        if self.size > 1:
            dist.all_reduce(tensor)

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient with its sum over all processes; a gradient that no process has stays None.

        None and zero differ for the optimiser: weight decay skips parameters without a gradient.
        """
        if self.size == 1:
            return
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        if not trained:
            return
        present = torch.tensor([parameter.grad is not None for parameter in trained], device=trained[0].device).int()
        dist.all_reduce(present)
        bucket: list[nn.Parameter] = []
        for parameter, count in zip(trained, present.tolist(), strict=True):
            if not count:
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if bucket and sum(p.numel() for p in bucket) + parameter.numel() > BUCKET:
                _add_bucket(bucket)
                bucket = []
            bucket.append(parameter)
        if bucket:
            _add_bucket(bucket)

    def barrier(self) -> None:
        """Wait until all processes have called this."""
        self.largest(0)

    @contextmanager
    def together(self) -> Iterator[None]:
        """End all processes if one of them raises an error of STATUS, once all have left the block.

        Raises:
            InputError, FailedError, PreemptedError: the errors of all processes, in the first process, as `end` does.
        """
        fault: InputError | FailedError | PreemptedError | None = None
        try:
            yield
        except (InputError, FailedError, PreemptedError) as error:
            if self.size == 1:
                raise
            fault = error
        if self.largest(fault is not None):
            faults = [fault for fault in self.gather(fault) if fault is not None]
            # Usually all processes read the same file and report the same error.
            self.end(type(faults[0])("\n".join(dict.fromkeys(map(str, faults)))))

    def end(self, error: InputError | FailedError | PreemptedError) -> NoReturn:
        """End all processes; each calls this with the same error, and only the first one reports it.

        Raises:
            InputError, FailedError, PreemptedError: `error`, in the first process.
            SystemExit: with the same exit status, in the other processes.
        """
        if self.first:
            raise error
        raise SystemExit(STATUS[type(error)])


def _add_bucket(parameters: Sequence[nn.Parameter]) -> None:
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    total = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(total)
    for gradient, part in zip(gradients, total.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


@contextmanager
def joined(uses_gpu: bool) -> Iterator[World]:
    """Join the processes that torchrun, or `distilmos train --nproc`, has started together with this one.

    The environment describes them: RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT. Without RANK, this is a
    single process.

    Args:
        uses_gpu: sum tensors on GPUs with NCCL; CPU tensors always use Gloo.

    Raises:
        FailedError: if other processes cannot be reached, or one has failed.
    """
    size = int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1
    if size == 1:
        yield World()
        return
    world = World(int(os.environ["RANK"]), size, int(os.environ["LOCAL_RANK"]))
    _end_with_parent()
    together = True
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if uses_gpu else "gloo", timeout=TIMEOUT)
        yield world
    except (InputError, FailedError, PreemptedError, SystemExit):
        raise  # all processes raise together
    except RuntimeError as error:
        together = False
        # DistError is a RuntimeError, and Gloo raises plain ones.
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            cause = str(error).splitlines()[0].partition("] ")[2].partition(". ")[0] or type(error).__name__
            raise FailedError(f"process {world.rank} of {size} has lost the others: {cause}") from None
        raise
    except BaseException:
        together = False
        raise
    finally:
        # Remaining Gloo threads would abort the exit; NCCL could wait for lost processes.
        if dist.is_initialized() and (together or not uses_gpu):
            dist.destroy_process_group()


def _end_with_parent() -> None:
    """End this process soon after its parent: if someone kills the parent, nothing else would end it."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
