"""What benchmarks measure against: the rate of plain matrix products on the same machine, in the same run."""

from __future__ import annotations

import platform
import resource
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch

MATRIX = 2048  # side of the square matrices whose product gives the machine's rate


class Row(NamedTuple):
    """One line of the table."""

    part: str
    gflop: float
    seconds: float
    share: float | None = None  # of the rate of plain matrix products in the same precision
    note: str = ""


def matrix_rate(precision: str, device: torch.device, repeats: int = 3) -> float:
    """Return the GFLOP/s of the product of two square matrices, the best of a few."""
    a = torch.randn(MATRIX, MATRIX, device=device).to(getattr(torch, precision))
    best = float("inf")
    for _ in range(2 + repeats):
        started = time.perf_counter()
        a @ a
        finish(device)
        best = min(best, time.perf_counter() - started)
    return 2 * MATRIX**3 / best / 1e9


def finish(device: torch.device) -> None:
    """Wait for what the device still computes."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def peak_memory(device: torch.device) -> int:
    """Return the most memory in use so far, in bytes: the device's, or the process's on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def processor() -> str:
    """Return the name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def table(rows: list[Row]) -> str:
    """Lay rows out as a Markdown table."""
    lines = ["| part | GFLOP | seconds | share of matrix rate | |", "| --- | ---: | ---: | ---: | --- |"]
    for row in rows:
        share = "" if row.share is None else f"{100 * row.share:.0f} %"
        lines.append(f"| {row.part} | {row.gflop:,.1f} | {row.seconds:.3f} | {share} | {row.note} |")
    return "\n".join(lines)
