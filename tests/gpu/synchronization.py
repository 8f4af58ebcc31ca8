"""Count how often the host waits for the device."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tests.host_reads import FindReads


@contextmanager
def synchronizations(device: torch.device) -> Iterator[list[str]]:
    """Collect where the host waits for the device within the context: file and line, or the operation on a CPU."""
    found: list[str] = []
    if device.type != "cuda":
        with FindReads() as reads:
            yield found
        found += reads.found
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")
    # The mode itself warns once that it "does not yet detect all synchronizing operations".
    found += [f"{w.filename}:{w.lineno}" for w in caught if "called a synchronizing" in str(w.message)]
