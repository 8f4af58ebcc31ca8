"""Sampling in several processes, one GPU each, started by torchrun; or in this process alone."""

from __future__ import annotations

import os
from datetime import timedelta
from types import TracebackType

import torch
import torch.distributed as dist


class ProcessGroup:
    """Process group of torchrun, as a context manager; a group of one without torchrun.

    Attributes:
        rank: rank of this process; rank 0 computes the metrics and writes the report.
        world_size: number of processes.
        device: GPU of this process if there are several processes; None for the default device.
    """

    def __init__(self) -> None:
        self.rank, self.world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        local = int(os.environ.get("LOCAL_RANK", 0))
        several = self.world_size > 1 and torch.cuda.is_available()
        self.device = f"cuda:{local % torch.cuda.device_count()}" if several else None

    def __enter__(self) -> ProcessGroup:
        if self.world_size > 1:
            # Used for barriers and settings only; the slowest process may need days longer than the fastest.
            dist.init_process_group("gloo", timeout=timedelta(days=7))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.world_size > 1:
            dist.destroy_process_group()

    def agree(self, value: str) -> str:
        """Return the value of rank 0."""
        values = [value]
        if self.world_size > 1:
            dist.broadcast_object_list(values, src=0)
        return values[0]

    def wait(self) -> None:
        """Wait until all processes have reached this point."""
        if self.world_size > 1:
            dist.barrier()
