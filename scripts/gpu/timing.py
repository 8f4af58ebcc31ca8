"""Time of a call on a device."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from scripts.benchmarking import finish


def median_time(call: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Return the median of three mean times of `repeats` calls without a wait between them, in seconds."""
    call()
    finish(device)
    times = []
    for _ in range(3):
        started = time.perf_counter()
        for _ in range(repeats):
            call()
        finish(device)
        times.append((time.perf_counter() - started) / repeats)
    return sorted(times)[1]
