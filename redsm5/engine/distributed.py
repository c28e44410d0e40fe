"""Communication between the processes that train one trial together, besides the gradients.

Each takes its share of every batch (redsm5/data/batches.py). The first one decides and writes; the others follow. In a
trial with one process, nothing here sends, waits or changes a number.

Decisions use a process group of their own, on the CPU. It does not wait for a GPU, and it has no timeout: the others
may have to wait for disk space or for the pruner. If a process exits, all who wait for it get an error.
"""

import os
from contextlib import suppress
from datetime import timedelta
from typing import Any, Self, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from redsm5.engine.jsonio import dumps, loads

FAULT = "redsm5/fault"
NO_LIMIT = timedelta(days=30)

T = TypeVar("T")


class ProcessGroup:
    """This process among those of its trial.

    Attributes:
        rank, world_size: which one it is, from 0, and of how many.
    """

    def __init__(self, rank: int = 0, world_size: int = 1) -> None:
        self.rank, self.world_size = rank, world_size
        if world_size > 1:
            self._control = dist.new_group(backend="gloo", timeout=NO_LIMIT)
            # The launcher's store: it outlives each of the processes, and so tells what the last words of one were.
            address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
            self._notes = dist.TCPStore(  # type: ignore[attr-defined]
                address, port, is_master=False, wait_for_workers=False
            )

    @classmethod
    def current(cls) -> Self:
        """This process among those that Accelerate has brought together; the only one, where it has not."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def is_first(self) -> bool:
        """Whether this is the one that decides and writes."""
        return self.rank == 0

    @property
    def share(self) -> tuple[int, int]:
        """Which share of each batch is this process's: (rank, world_size)."""
        return self.rank, self.world_size

    def mean(self, value: Tensor) -> Tensor:
        """The mean over all processes, without a gradient."""
        if self.world_size == 1:
            return value
        total = value.detach().clone()
        dist.all_reduce(total)
        return total / self.world_size

    def any(self, flag: bool) -> bool:
        """Whether it is so for any process; all learn the same."""
        if self.world_size == 1:
            return flag
        flags = torch.tensor([flag], dtype=torch.int32)
        dist.all_reduce(flags, op=dist.ReduceOp.MAX, group=self._control)
        return bool(flags.item())

    def of_first(self, value: T) -> T:
        """What the first process has."""
        if self.world_size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, group=self._control)
        return values[0]

    def gathered(self, value: T) -> list[T]:
        """What each process has, in their order."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self._control)
        return values

    def leave(self) -> None:
        """End the communication, once all have come so far; each process continues, or exits, on its own."""
        if self.world_size > 1:
            dist.barrier(group=self._control)
            dist.destroy_process_group()

    def report_fault(self, fault: dict[str, Any]) -> None:
        """Leave a message on why this process exits; only the first process's message counts."""
        with suppress(Exception):  # the launcher may have ended
            self._notes.compare_set(FAULT, "", dumps(fault).decode())

    def reported_fault(self) -> dict[str, Any] | None:
        """The message that another process left before it exited; None if it left none."""
        with suppress(Exception):
            if self._notes.check([FAULT]):
                fault: dict[str, Any] = loads(self._notes.get(FAULT))
                return fault
        return None


ALONE = ProcessGroup()
