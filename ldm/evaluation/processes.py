"""Several processes, each with its GPU, as torchrun starts them; or this one alone."""

from __future__ import annotations

import os
from datetime import timedelta
from types import TracebackType

import torch
import torch.distributed as dist


class Processes:
    """This process among all, as a context manager.

    Attributes:
        rank: its number; 0 scores and reports.
        world: how many there are.
        device: its own GPU where there are several; None leaves the choice.
    """

    def __init__(self) -> None:
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        local = int(os.environ.get("LOCAL_RANK", 0))
        several = self.world > 1 and torch.cuda.is_available()
        self.device = f"cuda:{local % torch.cuda.device_count()}" if several else None

    def __enter__(self) -> Processes:
        if self.world > 1:
            # Nothing but barriers goes through it; the slowest may need days more than the fastest.
            dist.init_process_group("gloo", timeout=timedelta(days=7))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.world > 1:
            dist.destroy_process_group()

    def wait(self) -> None:
        """Wait until all processes have come here."""
        if self.world > 1:
            dist.barrier()
