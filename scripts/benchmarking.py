"""What benchmarks measure against: the rate of plain matrix products on the same machine, in the same run."""

from __future__ import annotations

import json
import platform
import resource
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ldm.atomic_files import write_text

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


def machine(device: torch.device) -> dict[str, Any]:
    """Return what a benchmark's readers want to know of the machine, and the most memory in use so far."""
    return {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "threads": torch.get_num_threads(),
        "peak_memory_gib": round(peak_memory(device) / 2**30, 2),
    }


def publish(rows: list[Row], facts: dict[str, Any], out: Path) -> None:
    """Print a benchmark's table and facts, and write both as JSON."""
    print(table(rows))
    print("\n".join(f"{key}: {value}" for key, value in facts.items()))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, json.dumps({**facts, "rows": [row._asdict() for row in rows]}, indent=1))
    print(f"written to {out}")


def table(rows: list[Row]) -> str:
    """Lay rows out as a Markdown table."""
    lines = ["| part | GFLOP | seconds | share of matrix rate | |", "| --- | ---: | ---: | ---: | --- |"]
    for row in rows:
        share = "" if row.share is None else f"{100 * row.share:.0f} %"
        lines.append(f"| {row.part} | {row.gflop:,.1f} | {row.seconds:.3f} | {share} | {row.note} |")
    return "\n".join(lines)
